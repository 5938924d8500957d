//! The main job, top-down: discovery of some roots, then processing of what may be a duplicate.
//!
//! Joins discovery, processing and the index, which do not know each other. Three bounded channels
//! are all that lies between them:
//!
//! ```text
//! walk pool --listings--> index writer                                 discovery
//! index reader --jobs--> hash pool --outcomes--> index writer          processing
//! ```

mod ahead;
mod discover;
mod error;
mod follow;
mod process;
mod reconcile;
mod roots;
mod sampled;
mod verify;
mod worker;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;

pub use error::ScanError;
pub use follow::{Followed, Journal, Seen, SeenMove, Touched};
pub use reconcile::Reconciled;
pub use roots::{RootCandidate, RootRequest, check_root};
pub use verify::{VerifyMode, VerifyReport, VerifyRequest};

use crate::cancel::Cancel;
use crate::concurrency::{LastAdaptation, Threads};
use crate::discovery::filter::Filter;
use crate::discovery::named::NamedRequest;
use crate::discovery::walk::{Follower, Part};
use crate::index::{Index, Writer};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::pending::Unread;
use crate::model::scan::{Root, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, Host, VolumeId};
use crate::model::worker::Participant;
use crate::progress::{Phase, Progress};
use crate::volume::Volumes;

/// How the work is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Threads that walk.
    pub walk: Threads,
    /// Threads that read and hash.
    pub read: Threads,
    /// Rows written to the index at once.
    pub batch: usize,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// What was done, over all roots.
    pub counts: ScanCounts,
    /// Completed, discovered (reading was put off) or interrupted.
    pub status: ScanStatus,
    /// True if there was nothing to do.
    pub idle: bool,
    /// The figures of the whole index at its end, unless it was stopped before.
    pub summary: Option<Summary>,
    /// Roots that could not be scanned, and why; nothing of theirs was removed.
    pub skipped_roots: Vec<ProblemRow>,
    /// True if files were named one by one.
    pub was_named: bool,
    /// Named files that could not be found.
    pub unknown_names: Vec<ProblemRow>,
}

/// What runs share: the index, the mounts, the threads, and who watches.
#[derive(Debug)]
pub struct Scanner {
    index: Arc<dyn Index>,
    host: Host,
    volumes: Arc<Volumes>,
    workers: Workers,
    cancel: Cancel,
    progress: Arc<Progress>,
    /// How fast files could be read when that was done last.
    adaptation: Arc<LastAdaptation>,
}

/// A run at work: the right to write, and the scans whose rows are open.
struct Run<'a> {
    scanner: &'a Scanner,
    writer: Box<dyn Writer>,
    /// Who is told of directories before they are listed.
    follower: Option<Arc<dyn Follower>>,
    /// Files with several names that were listed, by volume and inode, if somebody wants to know.
    links: Option<HashMap<(VolumeId, u64), Stamp>>,
    scans: Vec<OpenScan>,
    report: ScanReport,
    unread: Unread,
}

struct OpenScan {
    id: ScanId,
    /// What it concerns.
    walked: Walked,
    counts: ScanCounts,
    /// False until its walk reached its end.
    discovered: bool,
}

impl OpenScan {
    fn new(id: ScanId) -> Self {
        Self { id, walked: Walked::default(), counts: ScanCounts::default(), discovered: false }
    }
}

/// What was walked.
#[derive(Debug, Clone, Default)]
struct Walked {
    /// Subtrees.
    extents: Vec<Extent>,
    /// Directories, without what lies below them.
    directories: Vec<Extent>,
}

impl Walked {
    fn extend(&mut self, other: &Self) {
        self.extents.extend_from_slice(&other.extents);
        self.directories.extend_from_slice(&other.directories);
    }
}

/// What is left to do after discovery.
enum Processing {
    /// Nothing now (`--discover-only`).
    PutOff,
    /// All that this needs.
    Of(Walked),
    /// The same, but what others have chosen already comes first.
    HelpWith(Walked),
}

/// What a run that came to its end leaves to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// All was read.
    Nothing,
    /// Only some directories were completed.
    Perhaps,
    /// Processing was put off.
    PutOff,
}

impl ScanReport {
    /// True if it was stopped before its end.
    pub fn is_interrupted(&self) -> bool {
        self.status == ScanStatus::Interrupted
    }
}

impl Scanner {
    /// Prepares for runs; nothing is written yet.
    pub fn new(
        index: Arc<dyn Index>,
        host: Host,
        workers: Workers,
        cancel: Cancel,
        progress: Arc<Progress>,
    ) -> Result<Self, ScanError> {
        let volumes = Arc::new(Volumes::read(&host).map_err(ScanError::Mounts)?);
        Ok(Self { index, host, volumes, workers, cancel, progress, adaptation: Arc::default() })
    }

    /// Scans directories, and the roots inside them; unless `discover_only`, reads what they may
    /// have in common with anything in the index.
    ///
    /// A root that is new and inside no other begins with `defaults`.
    pub async fn scan(
        &self,
        requests: &[RootRequest],
        defaults: &ScanSettings,
        discover_only: bool,
    ) -> Result<ScanReport, ScanError> {
        let mut run = self.begin("scan").await?;
        let result = async {
            let roots = run.put_roots(requests, defaults).await?;
            let walked = run.discover_roots(ScanKind::Scan, wholly(roots), !discover_only).await?;
            run.process(if discover_only { Processing::PutOff } else { Processing::Of(walked) }).await
        };
        let result = result.await;
        run.end(result, if discover_only { Pending::PutOff } else { Pending::Nothing }).await
    }

    /// Finishes what was interrupted or put off: below these directories, or everything.
    pub async fn resume(&self, directories: &[PathBuf]) -> Result<ScanReport, ScanError> {
        let mut run = self.begin("resume").await?;
        let result = async {
            let within = run.extents_of(directories).await?;
            let (roots, mounts) = (self.index.roots().await?, self.index.mounts(&self.host.name).await?);
            let (mut unfinished, mut discovered) = (Vec::new(), Vec::new());
            for root in roots.into_iter().filter(|root| root.overlaps(&within)) {
                let unreadable = self.index.extent_totals(&root.extents).await?.unreadable_directories;
                let group =
                    if root.needs_discovery() || unreadable > 0 { &mut unfinished } else { &mut discovered };
                group.push(run.as_seen_here(root, &mounts));
            }
            let is_idle = unfinished.is_empty();
            run.discover_roots(ScanKind::Resume, wholly(unfinished), true).await?;
            run.reopen(discovered).await?;
            run.process(Processing::Of(Walked { extents: within, directories: Vec::new() })).await?;
            run.report.idle = is_idle && self.progress.total_files.get() == 0;
            Ok(())
        };
        let result = result.await;
        let pending = if directories.is_empty() { Pending::Nothing } else { Pending::Perhaps };
        run.end(result, pending).await
    }

    /// Adds and updates files that were named one by one; removes nothing.
    pub async fn scan_named(
        &self,
        names: Box<dyn BufRead + Send>,
        delimiter: u8,
        current_directory: PathBuf,
        settings: &ScanSettings,
        discover_only: bool,
    ) -> Result<ScanReport, ScanError> {
        let filter = Filter::for_named_files(settings)?;
        let request =
            NamedRequest { delimiter, current_directory, filter, follow_links: settings.follow_links };
        let mut run = self.begin("scan").await?;
        let result = async {
            run.report.was_named = true;
            let walked = run.discover_named(request, names).await?;
            run.process(if discover_only { Processing::PutOff } else { Processing::Of(walked) }).await
        };
        let result = result.await;
        run.end(result, if discover_only { Pending::PutOff } else { Pending::Nothing }).await
    }

    async fn begin(&self, task: &'static str) -> Result<Run<'_>, ScanError> {
        let participant =
            Participant { host: Arc::clone(&self.host.name), task, progress: Arc::clone(&self.progress) };
        let mut writer = self.index.writer(&participant).await?;
        writer.forget_names(&self.host.name, &self.host.identities()).await?;
        Ok(Run {
            scanner: self,
            writer,
            follower: None,
            links: None,
            scans: Vec::new(),
            report: ScanReport::default(),
            unread: Unread::Perhaps,
        })
    }
}

/// All of some roots.
fn wholly(roots: Vec<Root>) -> Vec<(Root, Part)> {
    roots.into_iter().map(|root| (root, Part::Whole)).collect()
}

impl Run<'_> {
    /// Writes how each scan ended, whatever happened; what was done is kept.
    async fn end(mut self, result: Result<(), ScanError>, pending: Pending) -> Result<ScanReport, ScanError> {
        self.scanner.progress.enter(Phase::Finishing);
        self.report.status = match pending {
            _ if self.scanner.cancel.is_requested() => ScanStatus::Interrupted,
            Pending::PutOff => ScanStatus::Discovered,
            Pending::Nothing | Pending::Perhaps => ScanStatus::Completed,
        };
        if let Err(error) = result {
            // A call that failed may have done half of its work.
            self.writer.roll_back().await;
            // If the index itself failed, this may fail too: the next writer marks the scans.
            let _ = self.end_scans(Some(&error.to_string()), pending).await;
            let _ = self.writer.close().await;
            return Err(error);
        }
        let ended = self.end_scans(None, pending).await?;
        if !self.report.is_interrupted() {
            let figures = self.writer.settle(self.unread).await?;
            self.writer.note_figures(&ended, &figures).await?;
            self.report.summary = Some(figures);
        }
        self.writer.close().await?;
        Ok(self.report)
    }

    /// Returns the scans that were ended.
    async fn end_scans(&mut self, error: Option<&str>, pending: Pending) -> Result<Vec<ScanId>, ScanError> {
        self.writer.commit().await?;
        let mut total = std::mem::take(&mut self.report.counts);
        let processed = total;
        let mut ended = Vec::new();
        for (index, scan) in std::mem::take(&mut self.scans).into_iter().enumerate() {
            let mut counts = scan.counts;
            total += counts;
            // Several roots are processed together: that part stands on the first one's row.
            if index == 0 {
                counts += processed;
            }
            let status = match error {
                Some(_) => ScanStatus::Failed,
                None if !scan.discovered => ScanStatus::Interrupted,
                None if self.report.is_interrupted() => ScanStatus::Interrupted,
                None if pending == Pending::Perhaps && self.has_pending(&scan).await? => {
                    ScanStatus::Discovered
                }
                None => self.report.status,
            };
            self.writer.end_scan(scan.id, status, &counts, error).await?;
            ended.push(scan.id);
        }
        self.report.counts = total;
        self.writer.commit().await?;
        Ok(ended)
    }

    async fn has_pending(&self, scan: &OpenScan) -> Result<bool, ScanError> {
        let under = scan.walked.extents.clone();
        let filter = ReportFilter { under: Some(under), ..ReportFilter::default() };
        Ok(self.scanner.index.summary(&filter).await?.pending_files > 0)
    }
}
