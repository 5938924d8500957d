//! Reports as text: for people, and in the form of fdupes.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use super::{Head, Sink};
use crate::format::{Style, bytes, count, moment, plural};
use crate::model::group::{Group, Member, ReportItem};
use crate::model::path::{escape_path, shown_path};

/// Writes groups and figures for people.
#[derive(Debug)]
pub struct TextSink<W> {
    output: W,
    style: Style,
    limit: Option<u64>,
    shown: u64,
    head: Option<Head>,
}

impl<W: Write> TextSink<W> {
    /// A report of at most `limit` groups.
    pub fn new(output: W, style: Style, limit: Option<u64>) -> Self {
        Self { output, style, limit, shown: 0, head: None }
    }

    fn group(&mut self, group: &Group) -> io::Result<()> {
        self.shown += 1;
        let files = plural(group.files, "file", "files");
        let title = format!("{files} of {} each", bytes(group.size));
        let reclaimable = bytes(group.reclaimable_bytes());
        writeln!(self.output, "{}, {reclaimable} reclaimable", self.style.bold(&title))
    }

    fn member(&mut self, member: &Member) -> io::Result<()> {
        let path = shown_path(member.host.as_deref(), &member.path);
        if member.first_name {
            return writeln!(self.output, "  {path}");
        }
        writeln!(self.output, "    {} {path}", self.style.dim("= hard link"))
    }
}

impl<W: Write> Sink for TextSink<W> {
    fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn head(&mut self, head: &Head) -> io::Result<()> {
        self.head = Some(head.clone());
        Ok(())
    }

    fn item(&mut self, item: &ReportItem) -> io::Result<()> {
        match item {
            ReportItem::Group(group) => {
                if self.shown > 0 {
                    writeln!(self.output)?;
                }
                self.group(group)
            }
            ReportItem::Member(member) => self.member(member),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let summary = &head.summary;
        if self.shown > 0 {
            writeln!(self.output)?;
        }
        let left_out = summary.groups - self.shown.min(summary.groups);
        if left_out > 0 {
            writeln!(self.output, "{} not listed (--limit)", plural(left_out, "more group", "more groups"))?;
        }
        let reclaimable = self.style.bold(&format!("{} reclaimable", bytes(summary.reclaimable_bytes)));
        writeln!(
            self.output,
            "{reclaimable}: {} in {}, of {} with {}",
            plural(summary.redundant_files, "redundant file", "redundant files"),
            plural(summary.groups, "group", "groups"),
            plural(summary.files, "file", "files"),
            bytes(summary.bytes),
        )?;
        match head.last_scan() {
            Some(at) => writeln!(self.output, "last scanned {}", moment(at))?,
            None => writeln!(self.output, "never scanned")?,
        }
        for note in notes(&head) {
            writeln!(self.output, "{}", self.style.warning(&note))?;
        }
        self.output.flush()
    }
}

/// Writes what `fdupes` writes: a path on each line, hard links left out, a blank line after each
/// group. With NUL, both become NUL bytes.
#[derive(Debug)]
pub struct FdupesSink<W> {
    output: W,
    terminator: u8,
    limit: Option<u64>,
    any: bool,
}

impl<W: Write> FdupesSink<W> {
    /// A report of at most `limit` groups; `terminator` is a newline or NUL.
    pub fn new(output: W, terminator: u8, limit: Option<u64>) -> Self {
        Self { output, terminator, limit, any: false }
    }
}

impl<W: Write> Sink for FdupesSink<W> {
    fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn head(&mut self, _head: &Head) -> io::Result<()> {
        Ok(())
    }

    fn item(&mut self, item: &ReportItem) -> io::Result<()> {
        match item {
            ReportItem::Group(_) if self.any => self.output.write_all(&[self.terminator]),
            ReportItem::Group(_) => {
                self.any = true;
                Ok(())
            }
            ReportItem::Member(member) if member.first_name => {
                if let Some(host) = &member.host {
                    write!(self.output, "{host}:")?;
                }
                self.output.write_all(member.path.as_os_str().as_bytes())?;
                self.output.write_all(&[self.terminator])
            }
            ReportItem::Member(_) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.any {
            self.output.write_all(&[self.terminator])?;
        }
        self.output.flush()
    }
}

/// What keeps a report from being the whole truth, and what to do about it.
pub fn notes(head: &Head) -> Vec<String> {
    let mut notes = Vec::new();
    let summary = &head.summary;
    if summary.pending_files > 0 {
        let files = plural(summary.pending_files, "file", "files");
        let size = bytes(summary.pending_bytes);
        notes.push(format!("not complete: {files} ({size}) still to be read; run 'dupfind resume'"));
    }
    if summary.files == 0 && head.roots.is_empty() {
        notes.push("nothing was scanned yet; run 'dupfind scan DIR'".to_owned());
    }
    let unwalked = head.roots.iter().filter(|root| !root.discovered);
    for root in unwalked {
        let path = escape_path(&root.path);
        notes.push(format!("not complete: {path} was not walked to its end; run 'dupfind resume'"));
    }
    if summary.problems > 0 {
        let what = if summary.problems == 1 {
            "1 file or directory could not be read, or is not what it was".to_owned()
        } else {
            format!(
                "{} files and directories could not be read, or are not what they were",
                count(summary.problems)
            )
        };
        notes.push(format!("{what}; 'dupfind status --problems' lists them"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, items};
    use super::*;

    fn written(mut sink: impl Sink) {
        sink.head(&head()).unwrap();
        for item in items() {
            sink.item(&item).unwrap();
        }
        sink.finish().unwrap();
    }

    #[test]
    fn fdupes_prints_raw_names_and_a_blank_line_after_each_group() {
        let mut output = Vec::new();
        written(FdupesSink::new(&mut output, b'\n', None));
        assert_eq!(output, b"/d/a\nnas:/d/b \"\n\n\n/d/\xff\n/d/z\n\n");
        output.clear();
        written(FdupesSink::new(&mut output, 0, None));
        assert_eq!(output, b"/d/a\0nas:/d/b \"\n\0\0/d/\xff\0/d/z\0\0");
    }

    #[test]
    fn text_for_people_escapes_names_and_names_what_is_missing() {
        let mut output = Vec::new();
        written(TextSink::new(&mut output, Style::plain(), None));
        let text = String::from_utf8(output).unwrap();
        assert!(
            text.contains("2 files of 10 B each, 10 B reclaimable\n  /d/a\n    = hard link /d/a-link\n"),
            "{text}"
        );
        assert!(text.contains("  nas:/d/b \"\\n\n"), "{text}");
        assert!(text.contains("  /d/\\xff\n"), "{text}");
        let mut incomplete = head();
        incomplete.summary.pending_files = 2;
        incomplete.summary.problems = 1;
        assert_eq!(notes(&head()), [""; 0]);
        assert_eq!(notes(&incomplete).len(), 2);
    }
}
