//! Reports: what the index knows of duplicates, in the form that was asked for.
//!
//! Owns the formats. Refuses to know where the groups come from (a [`ReportReader`]) and where the
//! text goes (any [`Write`](std::io::Write)). Each format is a [`Sink`] that is handed one item at
//! a time, so that a report is never held in memory as a whole.

pub mod csv;
pub mod files;
pub mod history;
pub mod html;
pub mod json;
pub mod text;

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancel;
use crate::index::{IndexError, ReportReader};
use crate::model::group::{ReportItem, SortBy, Summary};
use crate::model::scan::{Root, ScanStatus};
use crate::model::stamp::Nanos;

/// What stands at the head of a report.
#[derive(Debug, Clone)]
pub struct Head {
    /// When it was made.
    pub generated_at: Nanos,
    /// The figures.
    pub summary: Summary,
    /// The roots and how far they were scanned.
    pub roots: Vec<RootState>,
    /// The subtrees it is limited to, if it is.
    pub under: Vec<PathBuf>,
    /// The smallest size of a file, in bytes.
    pub min_size: u64,
    /// The order of the groups.
    pub sort: SortBy,
}

/// How far a root was scanned.
#[derive(Debug, Clone)]
pub struct RootState {
    /// Its path.
    pub path: PathBuf,
    /// How its latest scan ended, and when it ended or began.
    pub last_scan: Option<(ScanStatus, Nanos)>,
    /// True if its latest walk reached its end.
    pub discovered: bool,
}

impl From<&Root> for RootState {
    fn from(root: &Root) -> Self {
        let last_scan =
            root.last_scan.as_ref().map(|scan| (scan.status, scan.ended_at.unwrap_or(scan.started_at)));
        Self { path: root.path.clone(), last_scan, discovered: !root.needs_discovery() }
    }
}

impl Head {
    /// True if nothing is left to be walked or read.
    pub fn is_complete(&self) -> bool {
        let was_scanned = self.summary.files > 0 || !self.roots.is_empty();
        was_scanned && self.summary.pending_files == 0 && self.roots.iter().all(|root| root.discovered)
    }

    /// When the newest scan of any root ended.
    pub fn last_scan(&self) -> Option<Nanos> {
        self.roots.iter().filter_map(|root| root.last_scan.map(|(_, at)| at)).max()
    }
}

/// One format of a report.
pub trait Sink {
    /// How many groups it wants; `None` is all.
    fn limit(&self) -> Option<u64>;

    /// Begins.
    fn head(&mut self, head: &Head) -> io::Result<()>;

    /// Takes the next item: a group, then its members. Members of groups beyond the limit are not
    /// sent, unless the sink wants all.
    fn item(&mut self, item: &ReportItem) -> io::Result<()>;

    /// Ends.
    fn finish(&mut self) -> io::Result<()>;
}

/// Why a report could not be written to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The text could not be written.
    #[error("write report: {0}")]
    Write(#[from] io::Error),
    /// The user asked to stop.
    #[error("interrupted; no report was written")]
    Cancelled,
}

/// Sends a report to all sinks in one pass.
pub async fn write_report(
    head: &Head,
    reader: &mut dyn ReportReader,
    sinks: &mut [Box<dyn Sink>],
    cancel: &Cancel,
) -> Result<(), ReportError> {
    for sink in &mut *sinks {
        sink.head(head)?;
    }
    let mut groups: u64 = 0;
    loop {
        let items = reader.next().await?;
        if items.is_empty() {
            break;
        }
        if cancel.is_requested() {
            return Err(ReportError::Cancelled);
        }
        for item in &items {
            groups += u64::from(matches!(item, ReportItem::Group(_)));
            let is_wanted = |sink: &dyn Sink| sink.limit().is_none_or(|limit| groups <= limit);
            for sink in sinks.iter_mut().filter(|sink| is_wanted(sink.as_ref())) {
                sink.item(item)?;
            }
        }
    }
    for sink in sinks {
        sink.finish()?;
    }
    Ok(())
}

/// The most groups that any of the sinks wants.
pub fn common_limit(sinks: &[Box<dyn Sink>]) -> Option<u64> {
    sinks.iter().map(|sink| sink.limit()).try_fold(0, |most, limit| limit.map(|limit| most.max(limit)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;
    use crate::model::digest::Digest;
    use crate::model::group::{Group, Member};
    use crate::model::stamp::Stamp;

    pub(super) fn head() -> Head {
        let summary = Summary { files: 6, bytes: 60, groups: 2, redundant_files: 2, ..Summary::default() };
        Head {
            generated_at: Nanos(0),
            summary,
            roots: Vec::new(),
            under: Vec::new(),
            min_size: 0,
            sort: SortBy::default(),
        }
    }

    /// Two groups: one with hard links and a file on another host, one with a name that is not UTF-8.
    pub(super) fn items() -> Vec<ReportItem> {
        let group = |size, byte| ReportItem::Group(Group { size, digest: Digest([byte; 32]), files: 2 });
        let member = |path: &[u8], first_name| {
            let stamp = Stamp { size: 10, mtime: Nanos(1_500_000_000), ctime: Nanos(0), inode: 5 };
            let host = path.starts_with(b"/d/b").then(|| "nas".into());
            ReportItem::Member(Member { first_name, host, path: OsStr::from_bytes(path).into(), stamp })
        };
        vec![
            group(10, 1),
            member(b"/d/a", true),
            member(b"/d/a-link", false),
            member(b"/d/odd\xff", false),
            member(b"/d/b \"\n", true),
            group(5, 2),
            member(b"/d/\xff", true),
            member(b"/d/z", true),
        ]
    }

    #[test]
    fn the_reader_is_asked_for_what_the_greediest_sink_wants() {
        let json = |limit| Box::new(json::JsonSink::new(io::sink(), limit)) as Box<dyn Sink>;
        assert_eq!(common_limit(&[json(Some(3)), json(Some(7))]), Some(7));
        assert_eq!(common_limit(&[json(Some(3)), json(None)]), None);
    }
}
