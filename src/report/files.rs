//! What is known of single files: for people, and as JSON; one file at a time.

use std::io::{self, Write};
use std::path::Path;

use super::json::{LinkList, begin_file, begin_member};
use crate::format::{Style, base64_if_odd, bytes, count, moment, plural, rfc3339};
use crate::model::file::{FileItem, KnownFile};
use crate::model::group::Member;
use crate::model::path::shown_path;
use crate::model::rot::ROTTEN;

/// One form of a list of files.
pub trait FilesSink {
    /// Takes the next file, or a copy of the last.
    fn item(&mut self, item: &FileItem) -> io::Result<()>;

    /// Ends; `more` if there are others beyond the limit.
    fn finish(&mut self, more: bool) -> io::Result<()>;
}

/// Digits of a hash that stand for it where there is little room: enough to tell millions apart.
const SHORT_HASH: usize = 12;

/// Where paths begin in a list.
const INDENT: usize = 10 + 2 + 16 + 2 + SHORT_HASH + 2 + 6 + 2;

/// Writes a line for each file, for people.
#[derive(Debug)]
pub struct FileList<W> {
    output: W,
    style: Style,
    files: u64,
    bytes: u64,
    with_copies: u64,
    pending: u64,
    problems: u64,
}

impl<W: Write> FileList<W> {
    /// A list of what the reader sends.
    pub fn new(output: W, style: Style) -> Self {
        Self { output, style, files: 0, bytes: 0, with_copies: 0, pending: 0, problems: 0 }
    }

    fn file(&mut self, file: &KnownFile) -> io::Result<()> {
        if self.files == 0 {
            let heading = format!(
                "{:>10}  {:<16}  {:<SHORT_HASH$}  {:>6}  PATH",
                "SIZE", "MODIFIED (UTC)", "HASH", "COPIES"
            );
            writeln!(self.output, "{}", self.style.dim(&heading))?;
        }
        self.files += 1;
        self.bytes += file.stamp.size;
        self.with_copies += u64::from(file.copies > 0);
        self.pending += u64::from(file.is_pending);
        self.problems += u64::from(file.problem.is_some());
        let hash = match file.digest {
            Some(digest) => format!("{:<SHORT_HASH$}", &digest.to_string()[..SHORT_HASH]),
            None if file.problem.is_some() => self.style.error(&format!("{:<SHORT_HASH$}", "problem")),
            None if file.is_pending => self.style.warning(&format!("{:<SHORT_HASH$}", "pending")),
            None => self.style.dim(&format!("{:<SHORT_HASH$}", "-")),
        };
        let copies = if file.copies == 0 { "-".to_owned() } else { count(file.copies) };
        let modified = moment(file.stamp.mtime);
        let modified = modified.trim_end_matches(" UTC");
        let path = shown_path(file.host.as_deref(), &file.path);
        writeln!(self.output, "{:>10}  {modified:<16}  {hash}  {copies:>6}  {path}", bytes(file.stamp.size))?;
        if let Some(problem) = &file.problem {
            writeln!(self.output, "{:INDENT$}{}", "", self.style.warning(problem))?;
        }
        Ok(())
    }
}

impl<W: Write> FilesSink for FileList<W> {
    fn item(&mut self, item: &FileItem) -> io::Result<()> {
        match item {
            FileItem::File(file) => self.file(file),
            FileItem::Copy(copy) => copy_line(&mut self.output, self.style, INDENT, copy),
        }
    }

    fn finish(&mut self, more: bool) -> io::Result<()> {
        let mut parts = vec![format!("{} with {}", plural(self.files, "file", "files"), bytes(self.bytes))];
        let others =
            [(self.with_copies, "with copies"), (self.pending, "pending"), (self.problems, "with a problem")];
        parts.extend(
            others
                .iter()
                .filter(|(number, _)| *number > 0)
                .map(|(number, what)| format!("{} {what}", count(*number))),
        );
        let text = parts.join(", ");
        let rest = if more { "; more are not listed (--limit)" } else { "" };
        writeln!(self.output, "{}{rest}", self.style.bold(&text))?;
        self.output.flush()
    }
}

/// Copies stand below their file, hard links below theirs.
fn copy_line(output: &mut impl Write, style: Style, indent: usize, copy: &Member) -> io::Result<()> {
    let path = shown_path(copy.host.as_deref(), &copy.path);
    let relation = if copy.first_name { "=" } else { "  = hard link" };
    writeln!(output, "{:indent$}{} {path}", "", style.dim(relation))
}

/// Writes all that is known of one file, for people.
#[derive(Debug)]
pub struct FileDetails<W> {
    output: W,
    style: Style,
}

impl<W: Write> FileDetails<W> {
    /// Of the file that the reader sends.
    pub fn new(output: W, style: Style) -> Self {
        Self { output, style }
    }

    fn line(&mut self, name: &str, value: &str) -> io::Result<()> {
        writeln!(self.output, "  {} {value}", self.style.dim(&format!("{name:<11}")))
    }

    fn file(&mut self, file: &KnownFile) -> io::Result<()> {
        let path = shown_path(file.host.as_deref(), &file.path);
        writeln!(self.output, "{}", self.style.bold(&path))?;
        let size = file.stamp.size;
        let exact = format!("{} ({})", bytes(size), plural(size, "byte", "bytes"));
        self.line("size", if size < 1024 { exact.split(" (").next().unwrap_or_default() } else { &exact })?;
        self.line("modified", &moment(file.stamp.mtime))?;
        self.line("changed", &moment(file.stamp.ctime))?;
        self.line("inode", &file.stamp.inode.to_string())?;
        match file.digest {
            Some(digest) => self.line("hash", &digest.to_string())?,
            None => self.line("hash", &self.style.warning(why_unread(file)))?,
        }
        if let Some(problem) = &file.problem {
            let problem = self.style.error(problem);
            self.line("problem", &problem)?;
        }
        let copies = match file.copies {
            0 => "none known".to_owned(),
            copies => format!("{} elsewhere", plural(copies, "file", "files")),
        };
        self.line("duplicates", &copies)
    }
}

/// Why a file has no hash.
fn why_unread(file: &KnownFile) -> &'static str {
    match file {
        KnownFile { problem: Some(problem), .. } if problem == ROTTEN => {
            "none: it is not what it was; 'dupfind verify' says more"
        }
        KnownFile { problem: Some(_), .. } => "none: it could not be read; the next run tries again",
        KnownFile { is_pending: true, .. } => "none yet: the next run reads it",
        KnownFile { is_sampled: true, .. } => "none: three places of it differ from any file of its size",
        _ => "none: no other file has its size",
    }
}

impl<W: Write> FilesSink for FileDetails<W> {
    fn item(&mut self, item: &FileItem) -> io::Result<()> {
        match item {
            FileItem::File(file) => self.file(file),
            FileItem::Copy(copy) => copy_line(&mut self.output, self.style, 4, copy),
        }
    }

    fn finish(&mut self, _more: bool) -> io::Result<()> {
        self.output.flush()
    }
}

/// Writes one JSON document, as a stream: each file is a line, or more if its copies are listed.
#[derive(Debug)]
pub struct FilesJson<W> {
    output: W,
    with_copies: bool,
    open: Open,
    links: LinkList,
}

/// How deep the text is inside the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Files,
    File,
    Links,
    CopyLinks,
}

impl<W: Write> FilesJson<W> {
    /// Begins the document about `path`.
    pub fn new(mut output: W, path: &Path, with_copies: bool) -> io::Result<Self> {
        write!(output, "{{\"version\":1,\"path\":")?;
        serde_json::to_writer(&mut output, &path.to_string_lossy())?;
        if let Some(encoded) = base64_if_odd(path) {
            write!(output, ",\"path_base64\":\"{encoded}\"")?;
        }
        write!(output, ",\n\"files\":[")?;
        Ok(Self { output, with_copies, open: Open::Files, links: LinkList::default() })
    }

    fn file(&mut self, file: &KnownFile) -> io::Result<()> {
        let separator = if self.open == Open::Files { "\n" } else { ",\n" };
        self.close_file()?;
        write!(self.output, "{separator}")?;
        begin_file(&mut self.output, file.host.as_deref(), &file.path)?;
        let (modified, changed) = (rfc3339(file.stamp.mtime), rfc3339(file.stamp.ctime));
        let (size, inode) = (file.stamp.size, file.stamp.inode);
        write!(
            self.output,
            ",\"size\":{size},\"modified\":\"{modified}\",\"changed\":\"{changed}\",\"inode\":{inode},\"hash\":"
        )?;
        match file.digest {
            Some(digest) => write!(self.output, "\"{digest}\"")?,
            None => write!(self.output, "null")?,
        }
        write!(self.output, ",\"pending\":{},\"problem\":", file.is_pending)?;
        serde_json::to_writer(&mut self.output, &file.problem)?;
        write!(self.output, ",\"duplicates\":{}", file.copies)?;
        self.open = Open::File;
        if self.with_copies {
            self.links.begin(&mut self.output)?;
            self.open = Open::Links;
        }
        Ok(())
    }

    fn copy(&mut self, copy: &Member) -> io::Result<()> {
        if !copy.first_name {
            return self.links.add(&mut self.output, &copy.path);
        }
        self.links.end(&mut self.output)?;
        let separator = if self.open == Open::Links { ",\"duplicate_files\":[\n  " } else { "},\n  " };
        write!(self.output, "{separator}")?;
        begin_member(&mut self.output, &mut self.links, copy)?;
        self.open = Open::CopyLinks;
        Ok(())
    }

    fn close_file(&mut self) -> io::Result<()> {
        match self.open {
            Open::Files => return Ok(()),
            Open::File => {}
            Open::Links => {
                self.links.end(&mut self.output)?;
                write!(self.output, ",\"duplicate_files\":[]")?;
            }
            Open::CopyLinks => {
                self.links.end(&mut self.output)?;
                write!(self.output, "}}]")?;
            }
        }
        write!(self.output, "}}")
    }
}

impl<W: Write> FilesSink for FilesJson<W> {
    fn item(&mut self, item: &FileItem) -> io::Result<()> {
        match item {
            FileItem::File(file) => self.file(file),
            FileItem::Copy(copy) => self.copy(copy),
        }
    }

    fn finish(&mut self, more: bool) -> io::Result<()> {
        self.close_file()?;
        writeln!(self.output, "\n],\"more\":{more}}}")?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::digest::Digest;
    use crate::model::stamp::{Nanos, Stamp};

    fn known(path: &[u8]) -> KnownFile {
        KnownFile {
            host: None,
            path: OsStr::from_bytes(path).into(),
            stamp: Stamp { size: 1536, mtime: Nanos(0), ctime: Nanos(1), inode: 7 },
            digest: Some(Digest([0xab; 32])),
            is_sampled: false,
            is_pending: false,
            problem: None,
            copies: 2,
        }
    }

    fn copy(path: &[u8], first_name: bool) -> FileItem {
        let stamp = Stamp { size: 1536, mtime: Nanos(0), ctime: Nanos(0), inode: 8 };
        let path = OsStr::from_bytes(path).into();
        FileItem::Copy(Member { first_name, host: Some("nas".into()), path, stamp })
    }

    fn items() -> Vec<FileItem> {
        vec![
            FileItem::File(known(b"/d/\xff")),
            copy(b"/d/own\xff", false),
            copy(b"/e/b", true),
            copy(b"/e/b-link", false),
            copy(b"/e/c", true),
            FileItem::File(KnownFile { digest: None, is_pending: true, copies: 0, ..known(b"/d/new") }),
            FileItem::File(KnownFile {
                digest: None,
                problem: Some("permission denied".to_owned()),
                copies: 0,
                ..known(b"/d/z\n")
            }),
        ]
    }

    fn written(with_copies: bool, items: &[FileItem]) -> Value {
        let mut output = Vec::new();
        let mut sink = FilesJson::new(&mut output, Path::new("/d"), with_copies).unwrap();
        for item in items {
            sink.item(item).unwrap();
        }
        sink.finish(true).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    #[test]
    fn the_stream_is_json_with_and_without_copies() {
        let json = written(true, &items());
        assert_eq!((&json["version"], &json["path"], &json["more"]), (&1.into(), &"/d".into(), &true.into()));
        let files = json["files"].as_array().unwrap();
        assert_eq!(files.len(), 3);
        assert_eq!(files[0]["hash"], "ab".repeat(32));
        assert!(files[0]["path_base64"].is_string() && files[0]["hard_links_base64"].is_array());
        assert_eq!(files[0]["hard_links"], json!(["/d/own\u{fffd}"]));
        let copies = files[0]["duplicate_files"].as_array().unwrap();
        assert_eq!((copies.len(), &copies[0]["host"]), (2, &"nas".into()));
        assert_eq!((&copies[0]["hard_links"], &copies[1]["path"]), (&json!(["/e/b-link"]), &"/e/c".into()));
        assert_eq!((&files[1]["pending"], &files[1]["hash"]), (&true.into(), &Value::Null));
        assert_eq!((&files[1]["duplicate_files"], &files[1]["hard_links"]), (&json!([]), &json!([])));
        assert_eq!(files[2]["problem"], "permission denied");

        let alone = [FileItem::File(known(b"/d/a")), FileItem::File(known(b"/d/b"))];
        let json = written(false, &alone);
        assert_eq!(json["files"][1]["duplicates"], 2);
        assert_eq!(json["files"][1].get("duplicate_files"), None, "only if they were asked for");
        assert_eq!(written(true, &[])["files"], json!([]));
    }

    #[test]
    fn a_list_for_people_says_how_each_file_stands() {
        let mut output = Vec::new();
        let mut sink = FileList::new(&mut output, Style::plain());
        for item in items() {
            sink.item(&item).unwrap();
        }
        sink.finish(true).unwrap();
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "   1.5 KiB  1970-01-01 00:00  abababababab       2  /d/\\xff");
        assert_eq!(lines[1].find('/'), Some(INDENT));
        assert_eq!(lines[2].trim(), "= hard link /d/own\\xff".replace("/d", "nas:/d"));
        assert_eq!(lines[3], format!("{:INDENT$}= nas:/e/b", ""));
        assert!(lines[6].ends_with("pending            -  /d/new"), "{text}");
        assert!(lines[7].ends_with("problem            -  /d/z\\n"), "{text}");
        assert_eq!(lines[8].trim(), "permission denied");
        assert_eq!(
            lines[9],
            "3 files with 4.5 KiB, 1 with copies, 1 pending, 1 with a problem; more are not listed (--limit)"
        );
    }

    #[test]
    fn one_file_is_told_in_full() {
        let told = |file: KnownFile| {
            let mut output = Vec::new();
            let mut sink = FileDetails::new(&mut output, Style::plain());
            sink.item(&FileItem::File(file)).unwrap();
            sink.finish(false).unwrap();
            String::from_utf8(output).unwrap()
        };
        let text = told(known(b"/d/a"));
        for words in ["/d/a\n", "1.5 KiB (1,536 bytes)", &"ab".repeat(32), "2 files elsewhere"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let unread = KnownFile { digest: None, copies: 0, ..known(b"/d/a") };
        assert!(told(unread.clone()).contains("no other file has its size"));
        assert!(told(KnownFile { is_sampled: true, ..unread.clone() }).contains("three places"));
        assert!(told(KnownFile { is_pending: true, ..unread }).contains("the next run reads it"));
    }
}
