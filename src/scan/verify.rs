//! A run against bit rot: files that nobody changed are read again, and compared with the hash they had.
//!
//! The reading is that of a scan, with its pool and its reader; what differs is that nothing is written for a file that
//! is as it was. A run may take days, so where only one process may write it has that right only while it writes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::process::{Hashing, feed};
use super::roots::real_path;
use super::{Run, ScanError, Scanner};
use crate::index::{IndexError, PendingReader, Writer};
use crate::model::group::{ProblemRow, Summary};
use crate::model::listing::Problem;
use crate::model::path::VolumePath;
use crate::model::pending::{FileKey, Finding, Job, Outcome, PendingName, PendingTotals, Scope, Unread};
use crate::model::rot::{Ended, Rereading, Rot, RotCopy, Share, ShownPath};
use crate::model::scan::{Root, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::stamp::FileStat;
use crate::model::volume::{Extent, MountMap};
use crate::model::worker::Participant;
use crate::progress::Phase;

/// Findings that wait to be written; a kill costs no more of them, and they are found again.
const MOST_WAITING: usize = 1024;

/// Files on record that are remembered: some megabytes. Beyond that, those that are as they should be are read twice.
const MOST_REMEMBERED: usize = 64 * 1024;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// Directories, and unless samples are wanted also files; everything that can be reached if there are none.
    pub directories: Vec<PathBuf>,
    /// Which files in them.
    pub mode: VerifyMode,
}

/// Which files are read again. Those of which something is on record always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMode {
    /// All that have a hash.
    All,
    /// The next part of them.
    Sample(Share),
    /// Only those on record.
    OnRecord,
    /// Only those on record, and they are accepted as they are.
    Accept,
}

/// How a verification went.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// What was read. Problems are files that are rotten or could not be read, also those found earlier.
    pub counts: ScanCounts,
    /// Completed or interrupted.
    pub status: ScanStatus,
    /// Names whose content is what it was.
    pub intact: u64,
    /// Names whose file changed since, or is gone; a scan looks at them.
    pub changed: u64,
    /// Names of files that this user may not read. Nothing follows for their content.
    pub denied: u64,
    /// Names that were chosen and not read: gone from the index meanwhile, or on a part of a volume that is not mounted.
    pub not_read: u64,
    /// Names without hash: they have never been read whole, so nothing can be said of them.
    pub unhashed: u64,
    /// Findings that the user accepted.
    pub accepted: u64,
    /// What is rotten, or could not be read again, also from earlier runs.
    pub rot: Vec<Rot>,
    /// Findings that ended.
    pub ended: Vec<Ended>,
    /// What is on volumes that are not mounted.
    pub left_out: Vec<ProblemRow>,
    /// True if the user asked for some of that by name.
    pub lacks_named: bool,
    /// The figures of the whole index at its end, unless it was stopped before.
    pub summary: Option<Summary>,
}

impl VerifyReport {
    /// True if it was stopped before its end.
    pub fn is_interrupted(&self) -> bool {
        self.status == ScanStatus::Interrupted
    }

    /// True if not all that was to be verified is as it was.
    pub fn has_problems(&self) -> bool {
        self.counts.problems > 0 || self.lacks_named
    }
}

/// Where files are verified.
struct Target {
    /// Subtrees whose findings are shown, none inside another.
    extents: Vec<Extent>,
    /// What of them can be reached.
    reachable: Vec<Extent>,
    mounts: MountMap,
    /// If only some files are meant: these, and what is below directories.
    only: Option<Vec<Named>>,
}

/// A file or a directory that is meant.
#[derive(Debug, Clone)]
struct Named {
    path: PathBuf,
    is_file: bool,
}

impl Target {
    fn scope(&self, extents: Vec<Extent>) -> Scope {
        Scope { extents, directories: Vec::new(), reachable: self.mounts.volumes(), helps: false }
    }
}

impl Scanner {
    /// Reads files again whose stamp is unchanged, and says which of them have another content than they had.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<VerifyReport, ScanError> {
        let mut report = VerifyReport::default();
        let mut opened = self.begin("verify").await?;
        // What another host found may be mounted here.
        opened.register_mounted().await?;
        let Run { writer, .. } = opened;
        let mut run = Verification {
            scanner: self,
            writer: Some(writer),
            waiting: Vec::new(),
            accepts: false,
            done: Rc::default(),
        };
        let (target, scan) = match run.begin(request, &mut report).await {
            Ok(begun) => begun,
            Err(error) => {
                run.give_up().await;
                return Err(error);
            }
        };
        let read_before = self.progress.read_bytes.get();
        let mut result = run.work(scan, request.mode, &target, &mut report).await;
        report.counts.bytes_read = self.progress.read_bytes.get() - read_before;
        if result.is_ok() {
            result = run.end(scan, &target, &mut report).await;
        }
        if let Err(error) = result {
            // If the index itself failed, this may fail too: the next writer marks the run.
            if let Ok(writer) = run.writer().await {
                writer.roll_back().await;
                let text = error.to_string();
                let _ = writer.end_scan(scan, ScanStatus::Failed, &report.counts, Some(&text)).await;
            }
            run.give_up().await;
            return Err(error);
        }
        Ok(report)
    }

    /// What is meant by a request; notes what of it cannot be reached.
    async fn target(&self, request: &VerifyRequest, report: &mut VerifyReport) -> Result<Target, ScanError> {
        let mounts = self.reachable_mounts().await?;
        let is_everything = request.directories.is_empty();
        let (extents, only) = if is_everything {
            let volumes = self.index.volumes().await?.into_iter();
            (volumes.map(|(volume, _)| Extent { volume, path: VolumePath::new(b"") }).collect(), None)
        } else {
            let (extents, only) = self.extents_and_files(&request.directories, &mounts).await?;
            if let (Some(Named { path, is_file: true }), VerifyMode::Sample(_)) =
                (only.iter().find(|meant| meant.is_file), request.mode)
            {
                return Err(ScanError::NoSampleOfFiles(path.clone()));
            }
            let is_narrow = request.mode == VerifyMode::Accept || only.iter().any(|meant| meant.is_file);
            (extents, is_narrow.then_some(only))
        };
        let extents = without_inner(extents);
        // Of everything, exactly what is mounted: samples of it have a position of their own, so that hosts which
        // mount different parts of one volume do not skip each other's.
        let reachable: Vec<Extent> = if is_everything {
            let mounted = mounts.iter().map(|(volume, mount)| Extent { volume, path: mount.root.clone() });
            without_inner(mounted.collect())
        } else {
            let is_shown = |extent: &&Extent| mounts.absolute(extent.volume, &extent.path).is_some();
            extents.iter().filter(is_shown).cloned().collect()
        };
        report.left_out = self.left_out(&extents, &reachable).await?;
        report.lacks_named = !is_everything && !report.left_out.is_empty();
        Ok(Target { extents, reachable, mounts, only })
    }

    /// What of these subtrees cannot be reached: the roots in them, or they themselves.
    async fn left_out(&self, extents: &[Extent], reachable: &[Extent]) -> Result<Vec<ProblemRow>, ScanError> {
        let is_reached = |extent: &Extent| reachable.iter().any(|reached| reached.covers(extent));
        let roots = self.index.roots().await?;
        let mut lacking: Vec<Extent> = roots
            .iter()
            .flat_map(|root| &root.extents)
            .filter_map(|own| extents.iter().find_map(|extent| extent.intersection(own)))
            .filter(|extent| !is_reached(extent))
            .cloned()
            .collect();
        for extent in extents.iter().filter(|extent| !reachable.iter().any(|it| it.volume == extent.volume)) {
            let is_named = lacking.iter().any(|root| extent.covers(root) || root.covers(extent));
            if !is_named && self.index.knows(std::slice::from_ref(extent)).await? {
                lacking.push(extent.clone());
            }
        }
        let places = self.index.places(&self.host.name).await?;
        let row = |extent: Extent| {
            let (host, path) = places.show(extent.volume, &extent.path);
            ProblemRow { host, path, problem: "not mounted here; left out".to_owned() }
        };
        Ok(without_inner(lacking).into_iter().map(row).collect())
    }

    /// The subtrees of directories, or of the directories of files; and what is meant in them, as this host's mounts
    /// show it.
    async fn extents_and_files(
        &self,
        paths: &[PathBuf],
        mounts: &MountMap,
    ) -> Result<(Vec<Extent>, Vec<Named>), ScanError> {
        let (mut extents, mut only) = (Vec::new(), Vec::new());
        let roots = self.index.roots().await?;
        for path in paths {
            let real = real_path(path);
            let is_known = self.index.knows(&mounts.extents_below(&real)).await?;
            let is_directory = is_known || std::fs::metadata(&real).is_ok_and(|metadata| metadata.is_dir());
            let (parent, name) = (real.parent(), real.file_name());
            let (Some(parent), Some(name), false) = (parent, name, is_directory) else {
                for extent in self.extents_of(std::slice::from_ref(path)).await? {
                    let shown = mounts.absolute(extent.volume, &extent.path);
                    only.extend(shown.map(|path| Named { path, is_file: false }));
                    extents.push(extent);
                }
                continue;
            };
            let around = mounts.extents_below(parent).into_iter().next();
            let Some(extent) = around else { return Err(ScanError::Unknown(path.clone())) };
            if !roots.iter().flat_map(|root| &root.extents).any(|covered| covered.covers(&extent)) {
                return Err(ScanError::Unknown(path.clone()));
            }
            if std::fs::symlink_metadata(&real).is_err() && !self.knows_name(&real, mounts).await? {
                return Err(ScanError::Unknown(path.clone()));
            }
            let shown = mounts.absolute(extent.volume, &extent.path);
            only.extend(shown.map(|shown| Named { path: shown.join(name), is_file: true }));
            extents.push(extent);
        }
        Ok((extents, only))
    }

    /// True if a copy on a disk of this host is not what the index knows any more.
    fn has_changed(&self, copy: &RotCopy, size: u64) -> bool {
        let is_same = |metadata: std::fs::Metadata| {
            let stat = FileStat::from(&metadata);
            metadata.is_file() && (stat.size, stat.mtime) == (size, copy.modified)
        };
        self.is_here(&copy.place) && !std::fs::symlink_metadata(&copy.place.path).is_ok_and(is_same)
    }

    /// True if it is this host's.
    fn is_here(&self, place: &ShownPath) -> bool {
        place.host.as_ref().is_none_or(|host| **host == *self.host.name)
    }
}

/// Subtrees but for those inside others.
fn without_inner(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    extents.dedup();
    let all = extents.clone();
    extents.retain(|extent| !all.iter().any(|other| other != extent && other.covers(extent)));
    extents
}

/// The one root that lies in these subtrees or next around them, and the directory of it that is meant, if not all.
fn only_root<'a>(roots: &'a [Root], extents: &'a [Extent]) -> Option<(&'a Root, Option<&'a VolumePath>)> {
    let is_around = |root: &Root| extents.iter().all(|extent| root.extent.covers(extent));
    let is_nearer = |root: &Root, than: &Root| root.id != than.id && than.extent.covers(&root.extent);
    let has_nearer = |root: &Root| roots.iter().any(|other| is_around(other) && is_nearer(other, root));
    let mut touched = roots.iter().filter(|root| root.overlaps(extents) && !has_nearer(root));
    let (root, None) = (touched.next()?, touched.next()) else { return None };
    let within = match extents {
        [extent] if *extent != root.extent && root.extent.covers(extent) => Some(&extent.path),
        _ => None,
    };
    Some((root, within))
}

/// A verification at work.
struct Verification<'a> {
    scanner: &'a Scanner,
    /// The right to write, while there is something to be written or others may have it too.
    writer: Option<Box<dyn Writer>>,
    /// What is to be written.
    waiting: Vec<Outcome>,
    /// True if what is read now is taken for what the files are to hold.
    accepts: bool,
    /// What was on record and was read: it may have a hash again, and is not read twice then.
    done: Rc<RefCell<HashSet<FileKey>>>,
}

impl Verification<'_> {
    async fn writer(&mut self) -> Result<&mut dyn Writer, ScanError> {
        let writer = if let Some(writer) = self.writer.take() {
            writer
        } else {
            let Scanner { host, progress, .. } = self.scanner;
            let (host, progress) = (Arc::clone(&host.name), Arc::clone(progress));
            self.scanner.index.writer(&Participant { host, task: "verify", progress }).await?
        };
        Ok(self.writer.insert(writer).as_mut())
    }

    /// Makes what was written last; where only one may write, others may now.
    async fn let_others_write(&mut self) -> Result<(), ScanError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.commit().await?;
        if self.scanner.index.is_shared() {
            self.writer = Some(writer);
        } else {
            writer.close().await?;
        }
        Ok(())
    }

    async fn give_up(&mut self) {
        if let Some(writer) = self.writer.take() {
            // What it holds is free at once, if the index can still be told.
            let _ = writer.close().await;
        }
    }

    async fn begin(
        &mut self,
        request: &VerifyRequest,
        report: &mut VerifyReport,
    ) -> Result<(Target, ScanId), ScanError> {
        let target = self.scanner.target(request, report).await?;
        let roots = self.scanner.index.roots().await?;
        let (root, within) = only_root(&roots, &target.extents).unzip();
        let root = root.map(|root| root.id);
        let scan = self.writer().await?.begin_scan(root, ScanKind::Verify, within.flatten()).await?;
        self.let_others_write().await?;
        Ok((target, scan))
    }

    async fn work(
        &mut self,
        scan: ScanId,
        mode: VerifyMode,
        target: &Target,
        report: &mut VerifyReport,
    ) -> Result<(), ScanError> {
        self.accepts = mode == VerifyMode::Accept;
        let everywhere = target.scope(target.reachable.clone());
        self.read(scan, Rereading::OnRecord, &everywhere, target, report).await?;
        if std::mem::take(&mut report.changed) > 0 {
            // Somebody put other files in their places: a second look says what these hold, and its figures count.
            report.counts = ScanCounts::default();
            (report.intact, report.denied, report.not_read) = (0, 0, 0);
            self.done = Rc::default();
            self.read(scan, Rereading::OnRecord, &everywhere, target, report).await?;
        }
        match mode {
            VerifyMode::OnRecord | VerifyMode::Accept => {}
            VerifyMode::All => {
                self.read(scan, Rereading::Hashed(None), &everywhere, target, report).await?;
            }
            VerifyMode::Sample(share) => {
                for extent in &target.reachable {
                    let scope = target.scope(vec![extent.clone()]);
                    let position = self.scanner.index.sampled_to(extent).await?;
                    for range in share.slices_from(position) {
                        self.read(scan, Rereading::Hashed(Some(range)), &scope, target, report).await?;
                        if self.scanner.cancel.is_requested() {
                            return Ok(());
                        }
                        self.writer().await?.note_sampled(extent, range).await?;
                        self.let_others_write().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads some files and writes what is not as it was.
    async fn read(
        &mut self,
        scan: ScanId,
        what: Rereading,
        scope: &Scope,
        target: &Target,
        report: &mut VerifyReport,
    ) -> Result<(), ScanError> {
        let scanner = self.scanner;
        if scanner.cancel.is_requested() || scope.extents.is_empty() {
            return Ok(());
        }
        scanner.progress.enter(Phase::Selecting);
        let chosen = scanner.index.rereading(scan, what, scope, &target.mounts).await?;
        let totals = chosen.totals();
        if totals.files == 0 {
            return Ok(());
        }
        let skipped = Rc::new(Cell::new(0));
        let (only, but) = (target.only.clone(), Rc::clone(&self.done));
        let chosen = Box::new(Meant { chosen, only, but, skipped: Rc::clone(&skipped) });
        scanner.progress.total_files.add(totals.files);
        scanner.progress.total_bytes.add(totals.bytes);
        scanner.progress.enter(Phase::Processing);
        let before = report.counts.files_seen;
        let Hashing { jobs, outcomes, ended, concurrency } = scanner.start_hashing();
        let (fed, sorted, hashed) = tokio::join!(
            feed(chosen, jobs, &concurrency, &scanner.cancel),
            self.sort(what == Rereading::OnRecord, outcomes, report),
            ended
        );
        sorted?;
        fed?;
        hashed?;
        if !scanner.cancel.is_requested() && target.only.is_none() {
            let seen = report.counts.files_seen - before;
            report.not_read += totals.files.saturating_sub(seen + skipped.get());
        }
        Ok(())
    }

    /// Counts what was read, and writes what has to be.
    async fn sort(
        &mut self,
        on_record: bool,
        mut outcomes: mpsc::Receiver<Vec<Outcome>>,
        report: &mut VerifyReport,
    ) -> Result<(), ScanError> {
        while let Some(batch) = outcomes.recv().await {
            for outcome in batch {
                if on_record && self.done.borrow().len() < MOST_REMEMBERED {
                    self.done.borrow_mut().insert(outcome.key.clone());
                }
                let matters = tally(&outcome, report);
                // Of what is on record, that it is as it should be matters too.
                if matters || on_record {
                    self.waiting.push(outcome);
                }
            }
            if self.waiting.len() >= MOST_WAITING {
                self.flush(false, report).await?;
            }
        }
        self.flush(true, report).await
    }

    /// Writes what is waiting; if there will be time later, only if nobody else is writing whom the user does not want
    /// to wait for.
    async fn flush(&mut self, is_last: bool, report: &mut VerifyReport) -> Result<(), ScanError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        match self.writer().await {
            Ok(_) => {}
            Err(ScanError::Index(IndexError::Busy { .. })) if !is_last => return Ok(()),
            Err(error) => return Err(error),
        }
        let (accepts, waiting) = (self.accepts, std::mem::take(&mut self.waiting));
        let writer = self.writer().await?;
        if accepts {
            report.accepted += writer.accept(waiting).await?;
        } else {
            writer.write_verified(waiting).await?;
        }
        self.let_others_write().await
    }

    async fn end(
        &mut self,
        scan: ScanId,
        target: &Target,
        report: &mut VerifyReport,
    ) -> Result<(), ScanError> {
        let scanner = self.scanner;
        scanner.progress.enter(Phase::Finishing);
        let places = scanner.index.places(&scanner.host.name).await?;
        report.status =
            if scanner.cancel.is_requested() { ScanStatus::Interrupted } else { ScanStatus::Completed };
        let writer = self.writer().await?;
        report.ended = writer.conclude(&places, &target.extents).await?;
        writer.commit().await?;
        if !report.is_interrupted() {
            if target.only.is_none() {
                report.unhashed = scanner.index.count_unhashed(&target.reachable).await?;
            }
            report.summary = Some(writer.settle(Unread::Perhaps).await?);
        }
        // After the index over hashes was made, if it was lacking.
        report.rot = scanner.index.rot(&places, &target.extents).await?;
        if let Some(only) = &target.only {
            let is_meant = |place: &ShownPath| only.iter().any(|meant| place.path.starts_with(&meant.path));
            report.rot.retain(|rot| scanner.is_here(&rot.place) && is_meant(&rot.place));
        }
        for rot in &mut report.rot {
            let size = rot.size;
            rot.copies.retain(|copy| !scanner.has_changed(copy, size));
        }
        report.counts.problems = report.denied + report.rot.len() as u64;
        writer.end_scan(scan, report.status, &report.counts, None).await?;
        if let Some(figures) = &report.summary {
            writer.note_figures(&[scan], figures).await?;
        }
        writer.commit().await?;
        if let Some(writer) = self.writer.take() {
            writer.close().await?;
        }
        Ok(())
    }
}

/// Counts an outcome; true if something is wrong with the file.
fn tally(outcome: &Outcome, report: &mut VerifyReport) -> bool {
    report.counts.files_seen += 1;
    report.counts.bytes_seen += outcome.expected.size;
    match &outcome.finding {
        Finding::Hashed { digest, racy, .. } => {
            report.counts.hashed += 1;
            let is_intact = outcome.known == Some(*digest);
            report.intact += u64::from(is_intact);
            // Somebody may be writing to it at this moment.
            report.changed += u64::from(!is_intact && *racy);
            !is_intact && !racy
        }
        Finding::Failed(Problem::Vanished | Problem::NotRegular | Problem::Changed)
        | Finding::Changed(_)
        | Finding::Sampled { .. } => {
            report.changed += 1;
            false
        }
        Finding::Failed(Problem::PermissionDenied) => {
            report.denied += 1;
            true
        }
        Finding::Failed(Problem::Io(_) | Problem::EndsEarly) => true,
    }
}

/// Of some files those that are meant, and were not read before.
struct Meant {
    chosen: Box<dyn PendingReader>,
    /// Files and directories; nothing if all are meant.
    only: Option<Vec<Named>>,
    but: Rc<RefCell<HashSet<FileKey>>>,
    /// How many were read before.
    skipped: Rc<Cell<u64>>,
}

impl Meant {
    fn is_meant(&self, name: &PendingName) -> bool {
        if self.but.borrow().contains(&name.key) {
            self.skipped.set(self.skipped.get() + 1);
            return false;
        }
        let Some(only) = &self.only else { return true };
        let path = name.path();
        only.iter().any(|meant| path.starts_with(&meant.path))
    }
}

#[async_trait(?Send)]
impl PendingReader for Meant {
    fn totals(&self) -> PendingTotals {
        self.chosen.totals()
    }

    async fn next(&mut self) -> Result<Vec<Job>, IndexError> {
        loop {
            let mut jobs = self.chosen.next().await?;
            if jobs.is_empty() {
                return Ok(jobs);
            }
            for job in &mut jobs {
                job.names.retain(|name| self.is_meant(name));
            }
            jobs.retain(|job| !job.names.is_empty());
            if !jobs.is_empty() {
                return Ok(jobs);
            }
        }
    }
}
