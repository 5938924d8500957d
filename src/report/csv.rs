//! The CSV report (RFC 4180): a header, then a line for each name.

use std::io::{self, Write};

use super::{Head, Sink};
use crate::format::{base64_if_odd, rfc3339};
use crate::model::group::{Group, ReportItem};

const HEADER: [&str; 9] =
    ["group", "size", "hash", "path", "path_base64", "modified", "inode", "hard_link", "host"];

/// Writes CSV.
#[derive(Debug)]
pub struct CsvSink<W: Write> {
    output: csv::Writer<W>,
    limit: Option<u64>,
    groups: u64,
    group: Option<Group>,
}

impl<W: Write> CsvSink<W> {
    /// A report of at most `limit` groups.
    pub fn new(output: W, limit: Option<u64>) -> Self {
        let output = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(output);
        Self { output, limit, groups: 0, group: None }
    }
}

impl<W: Write> Sink for CsvSink<W> {
    fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn head(&mut self, _head: &Head) -> io::Result<()> {
        Ok(self.output.write_record(HEADER)?)
    }

    fn item(&mut self, item: &ReportItem) -> io::Result<()> {
        let member = match item {
            ReportItem::Group(group) => {
                self.groups += 1;
                self.group = Some(*group);
                return Ok(());
            }
            ReportItem::Member(member) => member,
        };
        let Some(group) = self.group else { return Ok(()) };
        let encoded = base64_if_odd(&member.path).unwrap_or_default();
        Ok(self.output.write_record([
            self.groups.to_string().as_str(),
            &group.size.to_string(),
            &group.digest.to_string(),
            &member.path.to_string_lossy(),
            &encoded,
            &rfc3339(member.stamp.mtime),
            &member.stamp.inode.to_string(),
            if member.first_name { "false" } else { "true" },
            member.host.as_deref().unwrap_or_default(),
        ])?)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, items};
    use super::*;

    #[test]
    fn names_are_quoted_as_rfc_4180_asks() {
        let mut output = Vec::new();
        let mut sink = CsvSink::new(&mut output, None);
        sink.head(&head()).unwrap();
        for item in items() {
            sink.item(&item).unwrap();
        }
        sink.finish().unwrap();
        drop(sink);
        let text = String::from_utf8(output).unwrap();
        assert!(text.starts_with("group,size,hash,path,path_base64,modified,inode,hard_link,host\r\n"));
        assert!(text.contains(",\"/d/b \"\"\n\",,"), "{text}");
        let rows: Vec<csv::StringRecord> =
            csv::Reader::from_reader(text.as_bytes()).records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 6);
        assert_eq!(&rows[1][7], "true");
        assert_eq!(&rows[4][0], "2");
    }
}
