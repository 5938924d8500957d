//! The JSON report, version 1: stable, documented in the README, written as a stream.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{Head, Sink};
use crate::format::{base64_if_odd, rfc3339};
use crate::model::group::{Group, Member, ReportItem};

/// Writes JSON.
#[derive(Debug)]
pub struct JsonSink<W> {
    output: W,
    limit: Option<u64>,
    open: Open,
    links: LinkList,
}

/// How deep the text is inside the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Groups,
    Files,
    Links,
}

/// The hard links of a file, as they come.
#[derive(Debug, Default)]
pub(super) struct LinkList {
    any: bool,
    /// Those whose names are not UTF-8.
    odd: Vec<String>,
}

impl LinkList {
    /// Begins the list of the file whose object is open.
    pub(super) fn begin(&mut self, output: &mut impl Write) -> io::Result<()> {
        self.any = false;
        write!(output, ",\"hard_links\":[")
    }

    pub(super) fn add(&mut self, output: &mut impl Write, path: &Path) -> io::Result<()> {
        if std::mem::replace(&mut self.any, true) {
            write!(output, ",")?;
        }
        self.odd.extend(base64_if_odd(path));
        Ok(serde_json::to_writer(output, &path.to_string_lossy())?)
    }

    pub(super) fn end(&mut self, output: &mut impl Write) -> io::Result<()> {
        write!(output, "]")?;
        if !self.odd.is_empty() {
            write!(output, ",\"hard_links_base64\":")?;
            serde_json::to_writer(output, &self.odd)?;
            self.odd.clear();
        }
        Ok(())
    }
}

/// Begins the object of a file with where it is.
pub(super) fn begin_file(output: &mut impl Write, host: Option<&str>, path: &Path) -> io::Result<()> {
    write!(output, "{{\"path\":")?;
    serde_json::to_writer(&mut *output, &path.to_string_lossy())?;
    if let Some(encoded) = base64_if_odd(path) {
        write!(output, ",\"path_base64\":\"{encoded}\"")?;
    }
    if let Some(host) = host {
        write!(output, ",\"host\":")?;
        serde_json::to_writer(output, host)?;
    }
    Ok(())
}

/// Writes a copy as the object of a file, up to its hard links.
pub(super) fn begin_member(output: &mut impl Write, links: &mut LinkList, member: &Member) -> io::Result<()> {
    begin_file(output, member.host.as_deref(), &member.path)?;
    let (modified, inode) = (rfc3339(member.stamp.mtime), member.stamp.inode);
    write!(output, ",\"modified\":\"{modified}\",\"inode\":{inode}")?;
    links.begin(output)
}

#[derive(Serialize)]
struct SummaryObject {
    files: u64,
    bytes: u64,
    groups: u64,
    redundant_files: u64,
    reclaimable_bytes: u64,
    pending_files: u64,
    problems: u64,
}

impl<W: Write> JsonSink<W> {
    /// A report of at most `limit` groups.
    pub fn new(output: W, limit: Option<u64>) -> Self {
        Self { output, limit, open: Open::Groups, links: LinkList::default() }
    }

    fn group(&mut self, group: &Group) -> io::Result<()> {
        let first = self.open == Open::Groups;
        self.close_file()?;
        if !first {
            write!(self.output, "\n]}},")?;
        }
        let (size, digest, reclaimable) = (group.size, group.digest, group.reclaimable_bytes());
        write!(
            self.output,
            "\n{{\"size\":{size},\"hash\":\"{digest}\",\"reclaimable_bytes\":{reclaimable},\"files\":["
        )?;
        self.open = Open::Files;
        Ok(())
    }

    fn member(&mut self, member: &Member) -> io::Result<()> {
        if !member.first_name {
            return self.links.add(&mut self.output, &member.path);
        }
        let separator = if self.open == Open::Files { "\n" } else { ",\n" };
        self.close_file()?;
        write!(self.output, "{separator}")?;
        begin_member(&mut self.output, &mut self.links, member)?;
        self.open = Open::Links;
        Ok(())
    }

    fn close_file(&mut self) -> io::Result<()> {
        if self.open != Open::Links {
            return Ok(());
        }
        self.links.end(&mut self.output)?;
        write!(self.output, "}}")
    }
}

impl<W: Write> Sink for JsonSink<W> {
    fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn head(&mut self, head: &Head) -> io::Result<()> {
        let summary = &head.summary;
        let object = SummaryObject {
            files: summary.files,
            bytes: summary.bytes,
            groups: summary.groups,
            redundant_files: summary.redundant_files,
            reclaimable_bytes: summary.reclaimable_bytes,
            pending_files: summary.pending_files,
            problems: summary.problems,
        };
        let (at, complete) = (rfc3339(head.generated_at), head.is_complete());
        write!(
            self.output,
            "{{\"version\":1,\"generated_at\":\"{at}\",\"complete\":{complete},\n\"summary\":"
        )?;
        serde_json::to_writer(&mut self.output, &object)?;
        write!(self.output, ",\n\"groups\":[")
    }

    fn item(&mut self, item: &ReportItem) -> io::Result<()> {
        match item {
            ReportItem::Group(group) => self.group(group),
            ReportItem::Member(member) => self.member(member),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.close_file()?;
        if self.open != Open::Groups {
            write!(self.output, "\n]}}")?;
        }
        writeln!(self.output, "\n]}}")?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::tests::{head, items};
    use super::*;

    #[test]
    fn the_stream_is_json_of_the_documented_shape() {
        let mut output = Vec::new();
        let mut sink = JsonSink::new(&mut output, None);
        sink.head(&head()).unwrap();
        for item in items() {
            sink.item(&item).unwrap();
        }
        sink.finish().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["complete"], true);
        assert_eq!(json["groups"].as_array().unwrap().len(), 2);
        let files = json["groups"][0]["files"].as_array().unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0]["hard_links"], serde_json::json!(["/d/a-link", "/d/odd\u{fffd}"]));
        assert_eq!(files[0]["hard_links_base64"], serde_json::json!([STANDARD.encode(b"/d/odd\xff")]));
        assert_eq!(files[1]["path"], "/d/b \"\n");
        assert_eq!((&files[0]["host"], &files[1]["host"]), (&serde_json::Value::Null, &"nas".into()));
        assert_eq!(files[1]["modified"], "1970-01-01T00:00:01.5Z");
        assert_eq!(json["groups"][1]["files"][0]["path_base64"], STANDARD.encode(b"/d/\xff"));
    }

    #[test]
    fn no_groups_are_an_empty_list() {
        let mut output = Vec::new();
        let mut sink = JsonSink::new(&mut output, None);
        sink.head(&head()).unwrap();
        sink.finish().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(json["groups"], serde_json::json!([]));
    }
}
