//! The HTML report: one file that needs no network.
//!
//! The largest groups go into the page as JSON for its table; all groups count in the figures and
//! charts. Names reach the page escaped for display, in JSON that is safe inside a script.

mod charts;
mod history;
mod page;

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use askama::Template as _;
use serde::Serialize;

use self::charts::Charts;
pub use self::history::History;
use self::page::{Page, RootLine};
use super::text::notes;
use super::{Head, Sink};
use crate::format::{bytes, count, moment, plural, rfc3339};
use crate::model::group::{Group, Member, ReportItem};
use crate::model::path::{escape_path, shell_quote, shown_path};

/// Groups in the table if the user sets no limit: more make a page slow to open on a phone.
pub const DEFAULT_GROUPS: u64 = 1000;

/// Names of one group in the table; the rest of a larger group is a number.
const NAMES_IN_GROUP: usize = 200;

/// Writes HTML.
#[derive(Debug)]
pub struct HtmlSink<W> {
    output: W,
    limit: u64,
    head: Option<Head>,
    history: History,
    charts: Charts,
    shown: u64,
    shown_bytes: u64,
    data: String,
    open: Option<GroupObject>,
    group: Option<Group>,
}

#[derive(Debug, Serialize)]
struct GroupObject {
    size: u64,
    hash: String,
    reclaimable: u64,
    count: u64,
    #[serde(rename = "type")]
    kind: String,
    files: Vec<FileObject>,
    more: u64,
    #[serde(skip)]
    names: usize,
}

#[derive(Debug, Serialize)]
struct FileObject {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    modified: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<String>,
}

impl<W: Write> HtmlSink<W> {
    /// A page whose table holds at most `limit` groups, with a history of the whole index.
    pub fn new(output: W, limit: u64, history: History) -> Self {
        Self {
            output,
            limit,
            head: None,
            history,
            charts: Charts::default(),
            shown: 0,
            shown_bytes: 0,
            data: String::from("["),
            open: None,
            group: None,
        }
    }

    fn begin_group(&mut self, group: &Group) -> io::Result<()> {
        self.close_group()?;
        self.group = Some(*group);
        if self.shown == self.limit {
            return Ok(());
        }
        self.shown += 1;
        self.shown_bytes += group.reclaimable_bytes();
        self.open = Some(GroupObject {
            size: group.size,
            hash: group.digest.to_string(),
            reclaimable: group.reclaimable_bytes(),
            count: group.files,
            kind: String::new(),
            files: Vec::new(),
            more: group.files,
            names: 0,
        });
        Ok(())
    }

    fn add_member(&mut self, member: &Member) {
        if let (Some(group), true) = (&self.group, member.first_name) {
            self.charts.add(group, member.host.as_deref(), &member.path);
        }
        let Some(open) = &mut self.open else { return };
        if open.names == NAMES_IN_GROUP {
            return;
        }
        open.names += 1;
        let path = shown_path(member.host.as_deref(), &member.path);
        if !member.first_name {
            if let Some(file) = open.files.last_mut() {
                file.links.push(path);
            }
            return;
        }
        if open.files.is_empty() {
            open.kind = charts::kind_of(&member.path);
        }
        open.more -= 1;
        let quoted = shell_quote(member.path.as_os_str().as_bytes());
        let copy = (quoted != path).then_some(quoted);
        open.files.push(FileObject { path, copy, modified: rfc3339(member.stamp.mtime), links: Vec::new() });
    }

    fn close_group(&mut self) -> io::Result<()> {
        let Some(group) = self.open.take() else { return Ok(()) };
        if self.data.len() > 1 {
            self.data.push_str(",\n");
        }
        let json = serde_json::to_string(&group)?;
        push_safe_in_script(&mut self.data, &json);
        Ok(())
    }

    fn page(&mut self, head: &Head) -> Page {
        let summary = &head.summary;
        let left_out = summary.groups.saturating_sub(self.shown);
        let left_out_bytes = summary.reclaimable_bytes.saturating_sub(self.shown_bytes);
        let rest = (left_out > 0).then(|| {
            let groups = plural(left_out, "more group", "more groups");
            format!(
                "{groups} with {} are counted above but not listed; --limit lists more",
                bytes(left_out_bytes)
            )
        });
        let (problems, pending): (Vec<String>, Vec<String>) =
            notes(head).into_iter().partition(|note| note.contains("could not be read"));
        let join = |notes: Vec<String>| (!notes.is_empty()).then(|| notes.join("; "));
        Page {
            version: env!("CARGO_PKG_VERSION"),
            generated_at: moment(head.generated_at),
            generated_at_rfc3339: rfc3339(head.generated_at),
            complete: head.is_complete(),
            pending: join(pending),
            problems: join(problems),
            roots: head.roots.iter().map(root_line).collect(),
            filter: filter_text(head),
            files: count(summary.files),
            bytes: bytes(summary.bytes),
            groups: count(summary.groups),
            redundant_files: count(summary.redundant_files),
            reclaimable: bytes(summary.reclaimable_bytes),
            shown_groups: count(self.shown),
            shown_is_all: left_out == 0,
            rest,
            by_directory: self.charts.by_directory(),
            by_type: self.charts.by_type(),
            data: std::mem::take(&mut self.data),
            history: self.history.view(head.generated_at),
        }
    }
}

impl<W: Write> Sink for HtmlSink<W> {
    /// All: the charts count every group.
    fn limit(&self) -> Option<u64> {
        None
    }

    fn head(&mut self, head: &Head) -> io::Result<()> {
        self.charts = Charts::new(head.roots.iter().map(|root| root.path.clone()).collect());
        self.head = Some(head.clone());
        Ok(())
    }

    fn item(&mut self, item: &ReportItem) -> io::Result<()> {
        match item {
            ReportItem::Group(group) => self.begin_group(group),
            ReportItem::Member(member) => {
                self.add_member(member);
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.close_group()?;
        self.data.push(']');
        let Some(head) = self.head.take() else { return Ok(()) };
        let page = self.page(&head);
        page.write_into(&mut self.output).map_err(io::Error::other)?;
        self.output.flush()
    }
}

fn root_line(root: &super::RootState) -> RootLine {
    let (last_scan, status) = match root.last_scan {
        Some((status, at)) => (moment(at), status.as_str().to_owned()),
        None => ("never".to_owned(), "not scanned".to_owned()),
    };
    RootLine { path: escape_path(&root.path), last_scan, status }
}

fn filter_text(head: &Head) -> Option<String> {
    let mut parts: Vec<String> =
        head.under.iter().map(|path| format!("below {}", escape_path(path))).collect();
    if head.min_size > 0 {
        parts.push(format!("at least {}", bytes(head.min_size)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Inside a script, `</script>` and `<!--` would end it early, whatever the JSON says; U+2028 and
/// U+2029 end a line in old JavaScript.
fn push_safe_in_script(data: &mut String, json: &str) {
    for character in json.chars() {
        match character {
            '<' => data.push_str("\\u003c"),
            '>' => data.push_str("\\u003e"),
            '&' => data.push_str("\\u0026"),
            '\u{2028}' => data.push_str("\\u2028"),
            '\u{2029}' => data.push_str("\\u2029"),
            _ => data.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, items};
    use super::*;

    fn page(limit: u64) -> String {
        let mut output = Vec::new();
        let mut sink = HtmlSink::new(&mut output, limit, History::default());
        sink.head(&head()).unwrap();
        for item in items() {
            sink.item(&item).unwrap();
        }
        sink.finish().unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn groups_beyond_the_limit_are_counted_but_not_listed() {
        assert!(page(10).contains("/d/z"));
        let limited = page(1);
        assert!(!limited.contains("/d/z"));
        assert!(limited.contains("1 more group"), "{limited}");
    }

    #[test]
    fn without_scripts_both_parts_of_the_page_are_shown() {
        let page = page(10);
        for part in [r#"<div id="duplicates">"#, r#"<section class="history" id="history" tabindex="-1""#] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("Charts begin with the second run"), "{page}");
        assert!(page.contains("Nothing has run yet."), "{page}");
    }

    #[test]
    fn json_cannot_end_its_script() {
        let mut data = String::new();
        push_safe_in_script(&mut data, "\"</script><!--\u{2028}&\"");
        assert_eq!(data, "\"\\u003c/script\\u003e\\u003c!--\\u2028\\u0026\"");
    }
}
