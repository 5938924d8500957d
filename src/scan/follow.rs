//! What a watcher saw: names that were touched are looked at again, and what was moved keeps its hash.
//!
//! It is the same walk, the same writer and the same processing as in a scan, of a small part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roots::{locate, why_offline};
use super::{OpenScan, Processing, Run, ScanError, Scanner, Walked};
use crate::discovery::walk::{Follower, Part};
use crate::index::IndexError;
use crate::model::listing::Move;
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::stamp::{FileStat, Stamp};

/// Hashes after whose writing the index is prepared for reports at once, as after a scan.
const MANY_HASHES: u64 = 10_000;

/// What a watcher was told of in a while.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What was renamed, in this order.
    pub moves: Vec<SeenMove>,
    /// What was touched, by root.
    pub roots: BTreeMap<RootId, Touched>,
}

/// What was touched in a root.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    /// Names, by the real paths of their directories.
    pub names: BTreeMap<PathBuf, BTreeSet<Box<[u8]>>>,
    /// How many events that were.
    pub events: u64,
}

/// Something that was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMove {
    /// Its path before.
    pub from: PathBuf,
    /// Its path now.
    pub to: PathBuf,
    /// True if the index knew it as it was, and nothing but its name has changed since: then a file keeps its hash.
    pub is_clean: bool,
}

/// The rows of the history in which a watcher's activity is summed: one a root and interval.
#[derive(Debug, Default)]
pub struct Journal(HashMap<RootId, Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    scan: ScanId,
    counts: ScanCounts,
}

impl Journal {
    /// Begins a new interval.
    pub fn turn_over(&mut self) {
        self.0.clear();
    }
}

/// What following led to.
#[derive(Debug, Default)]
pub struct Followed {
    /// What changed in the index, over all roots.
    pub counts: ScanCounts,
    /// Roots that could not be reached, and why; nothing of theirs was removed.
    pub offline: Vec<(RootId, String)>,
    /// Roots that the index does not know any more.
    pub forgotten: Vec<RootId>,
}

impl Scanner {
    /// Brings the index up to date with what was seen. If it fails, all of it may be tried again.
    pub async fn follow(
        &self,
        seen: &Seen,
        journal: &mut Journal,
        follower: Arc<dyn Follower>,
    ) -> Result<Followed, ScanError> {
        let mut run = self.begin("watch").await?;
        run.follower = Some(follower);
        let result = run.follow(seen, journal).await;
        run.end_following(result, journal).await
    }
}

impl Scanner {
    /// Prepares the index for reports after something was followed, and notes in the open rows what it holds.
    pub async fn settle(&self, journal: &Journal) -> Result<(), ScanError> {
        let mut run = self.begin("watch").await?;
        let figures = run.writer.settle().await?;
        let scans: Vec<ScanId> = journal.0.values().map(|entry| entry.scan).collect();
        run.writer.note_figures(&scans, &figures).await?;
        Ok(run.writer.close().await?)
    }
}

impl Run<'_> {
    async fn follow(&mut self, seen: &Seen, journal: &Journal) -> Result<FollowedRoots, ScanError> {
        let known = self.scanner.index.roots().await?;
        let mut followed = FollowedRoots::default();
        let mut touched = Vec::new();
        for (id, names) in &seen.roots {
            let Some(root) = known.iter().find(|root| root.id == *id) else {
                followed.result.forgotten.push(*id);
                continue;
            };
            let mounts = self.scanner.index.mounts(&self.scanner.host.name).await?;
            let root = self.as_seen_here(root.clone(), &mounts);
            if let Some(reason) = why_offline(&self.scanner.volumes, &root) {
                followed.result.offline.push((*id, reason));
                continue;
            }
            let scan = self.open_entry(*id, journal).await?;
            let counts = ScanCounts { events: names.events, ..ScanCounts::default() };
            self.scans.push(OpenScan { counts, ..OpenScan::new(scan) });
            followed.roots.push(*id);
            touched.push((root, names));
        }
        self.writer.commit().await?;
        if let Some(first) = self.scans.first() {
            let scan = first.id;
            self.write_moves(scan, &seen.moves, &known).await?;
        }
        let mut walked = Walked::default();
        for (position, (root, touched)) in touched.into_iter().enumerate() {
            let part = Part::Names(touched.names.clone());
            self.discover(position, &root, part, &known, false).await?;
            walked.extend(&self.scans[position].walked);
        }
        self.process(Processing::Of(walked)).await?;
        Ok(followed)
    }

    /// The row of a root in this interval: the one that was begun, or a new one.
    async fn open_entry(&mut self, root: RootId, journal: &Journal) -> Result<ScanId, ScanError> {
        if let Some(entry) = journal.0.get(&root) {
            match self.writer.continue_scan(entry.scan).await {
                Err(IndexError::TakenForDead) => {}
                continued => return Ok(continued?),
            }
        }
        Ok(self.writer.begin_scan(Some(root), ScanKind::Watch, None).await?)
    }

    async fn write_moves(
        &mut self,
        scan: ScanId,
        moves: &[SeenMove],
        known: &[Root],
    ) -> Result<(), ScanError> {
        let mut written = Vec::new();
        for moved in moves {
            if let Some(moved) = self.to_move(moved, known) {
                self.writer.register_volume(&self.scanner.host.name, &moved.volume).await?;
                written.push(moved);
            }
        }
        if !written.is_empty() {
            self.writer.write_moves(scan, &written).await?;
        }
        Ok(())
    }

    /// What the index is told of a move: nothing if what is there now may be something else. A later move of the same
    /// thing leaves nothing at its goal; its rows then go the whole way in two steps, or are read again.
    fn to_move(&self, moved: &SeenMove, known: &[Root]) -> Option<Move> {
        let directory = moved.to.parent()?;
        let place = locate(&self.scanner.volumes, directory).ok()?;
        let to = place.path.join(name_of(&moved.to)?);
        let from = place.volume.mount.locate(&moved.from)?;
        let metadata = std::fs::symlink_metadata(&moved.to).ok();
        let is_directory = metadata.as_ref().is_none_or(std::fs::Metadata::is_dir);
        let stamp = if is_directory {
            // What other roots cover is theirs.
            let is_others = |root: &Root| {
                root.identity == place.volume.identity
                    && (root.extent.path.is_within(&from) || root.extent.path.is_within(&to))
            };
            if known.iter().any(is_others) {
                return None;
            }
            None
        } else {
            // A file with other names may be written to through one that nobody watches.
            let is_certain = |it: &std::fs::Metadata| moved.is_clean && it.is_file() && it.nlink() == 1;
            let metadata = metadata.filter(is_certain)?;
            let device = std::fs::metadata(directory).ok()?.dev();
            Some(Stamp::of(&FileStat::from(&metadata), device))
        };
        Some(Move { volume: place.volume, from, to, stamp })
    }

    /// Adds what was done to the rows of this interval. What failed does not count: it will be tried again.
    async fn end_following(
        mut self,
        result: Result<FollowedRoots, ScanError>,
        journal: &mut Journal,
    ) -> Result<Followed, ScanError> {
        let FollowedRoots { roots, mut result } = match result {
            Ok(followed) => followed,
            Err(error) => {
                self.writer.roll_back().await;
                // If the index itself failed, this may fail too: the next writer marks the scans.
                let _ = self.end_scans(Some(&error.to_string()), super::Pending::Perhaps).await;
                let _ = self.writer.close().await;
                return Err(error);
            }
        };
        let mut processed = std::mem::take(&mut self.report.counts);
        for (root, scan) in roots.into_iter().zip(std::mem::take(&mut self.scans)) {
            // Several roots are processed together: that part stands on the first one's row.
            let counts = scan.counts + std::mem::take(&mut processed);
            let before = journal.0.get(&root).map(|entry| entry.counts).unwrap_or_default();
            let entry = Entry { scan: scan.id, counts: before + counts };
            self.writer.end_scan(scan.id, ScanStatus::Completed, &entry.counts, None).await?;
            journal.0.insert(root, entry);
            result.counts += counts;
        }
        self.writer.commit().await?;
        if result.counts.hashed > MANY_HASHES {
            self.writer.settle().await?;
        }
        self.writer.close().await?;
        Ok(result)
    }
}

/// The roots whose scans are open, in their order, and what else there is to tell.
#[derive(Default)]
struct FollowedRoots {
    roots: Vec<RootId>,
    result: Followed,
}

fn name_of(path: &Path) -> Option<&[u8]> {
    path.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes)
}
