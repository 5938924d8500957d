//! What a watcher saw: names that were touched are looked at again, and what was moved keeps its hash.
//!
//! It is the same walk, the same writer and the same processing as in a scan, of a small part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roots::{locate, nearest_root, why_offline};
use super::{OpenScan, Processing, Run, ScanError, Scanner, Walked};
use crate::discovery::walk::{Follower, Part};
use crate::index::IndexError;
use crate::model::listing::{KnownName, Move};
use crate::model::pending::Unread;
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::stamp::{FileStat, Stamp};
use crate::model::volume::VolumeId;

/// Hashes after whose writing the index is prepared for reports at once, as after a scan.
const MANY_HASHES: u64 = 10_000;

/// What a watcher was told of in a while.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What was renamed, in this order.
    pub moves: Vec<SeenMove>,
    /// What was touched, by root.
    pub roots: BTreeMap<RootId, Touched>,
    /// Names of files that were written to. If they are others by now, those they were may have other names, of which
    /// nobody is told that they were written to.
    pub rewritten: Vec<PathBuf>,
    /// Files that got another name, each with a path it had and its inode: it may be gone by now, and may have been
    /// written through.
    pub linked: Vec<(PathBuf, u64)>,
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
    /// What was renamed, as far as it keeps what is known of it.
    pub moved: u64,
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
        run.links = Some(HashMap::new());
        let result = run.follow(seen, journal).await;
        run.end_following(result, journal).await
    }
}

impl Scanner {
    /// Prepares the index for reports after something was followed, and notes in the open rows what it holds.
    pub async fn settle(&self, journal: &Journal) -> Result<(), ScanError> {
        let mut run = self.begin("watch").await?;
        run.writer.expect_small_scopes().await?;
        let figures = run.writer.settle(Unread::Perhaps).await?;
        let scans: Vec<ScanId> = journal.0.values().map(|entry| entry.scan).collect();
        run.writer.note_figures(&scans, &figures).await?;
        Ok(run.writer.close().await?)
    }
}

impl Run<'_> {
    async fn follow(&mut self, seen: &Seen, journal: &Journal) -> Result<FollowedRoots, ScanError> {
        let known = self.scanner.index.roots().await?;
        let mut followed = FollowedRoots::default();
        let mut touched_elsewhere = self.files_replaced(seen).await?;
        let touched = self.open_roots(&seen.roots, &known, journal, &mut followed).await?;
        if let Some(first) = self.scans.first() {
            let scan = first.id;
            followed.result.moved = self.write_moves(scan, &seen.moves, &known).await?;
        }
        let mut walked = Walked::default();
        self.discover_touched(touched, &known, &mut walked).await?;
        let linked = self.links.take().unwrap_or_default();
        touched_elsewhere.extend(linked.into_iter().map(|(file, stamp)| (file, Some(stamp))));
        if !touched_elsewhere.is_empty() {
            let names = self.other_names(&touched_elsewhere, &known).await?;
            let touched = self.open_roots(&names, &known, journal, &mut followed).await?;
            self.discover_touched(touched, &known, &mut walked).await?;
        }
        self.process(Processing::Of(walked)).await?;
        Ok(followed)
    }

    /// Opens the rows of roots in this interval. Returns those that can be reached, with the place of their open scan.
    async fn open_roots<'t>(
        &mut self,
        touched: &'t BTreeMap<RootId, Touched>,
        known: &[Root],
        journal: &Journal,
        followed: &mut FollowedRoots,
    ) -> Result<Vec<(usize, Root, &'t Touched)>, ScanError> {
        let mounts = self.scanner.index.mounts(&self.scanner.host.name).await?;
        let mut opened = Vec::new();
        for (id, touched) in touched {
            let Some(root) = known.iter().find(|root| root.id == *id) else {
                followed.result.forgotten.push(*id);
                continue;
            };
            let root = self.as_seen_here(root.clone(), &mounts);
            if let Some(reason) = why_offline(&self.scanner.volumes, &root) {
                followed.result.offline.push((*id, reason));
                continue;
            }
            let position = if let Some(open) = followed.roots.iter().position(|open| open == id) {
                open
            } else {
                let scan = self.open_entry(*id, journal).await?;
                self.scans.push(OpenScan::new(scan));
                followed.roots.push(*id);
                followed.roots.len() - 1
            };
            self.scans[position].counts.events += touched.events;
            opened.push((position, root, touched));
        }
        self.writer.commit().await?;
        Ok(opened)
    }

    async fn discover_touched(
        &mut self,
        touched: Vec<(usize, Root, &Touched)>,
        known: &[Root],
        walked: &mut Walked,
    ) -> Result<(), ScanError> {
        for (position, root, touched) in touched {
            let part = Part::Names(touched.names.clone());
            self.discover(position, &root, part, known, false).await?;
            walked.extend(&self.scans[position].walked);
        }
        Ok(())
    }

    /// The files that the index knows by names that were written to, and that they are not any more; and those that
    /// got a name.
    async fn files_replaced(
        &self,
        seen: &Seen,
    ) -> Result<HashMap<(VolumeId, u64), Option<Stamp>>, ScanError> {
        let index = &self.scanner.index;
        let mounts = index.mounts(&self.scanner.host.name).await?;
        let inode_at = |path: &Path| std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino());
        let mut names = Vec::new();
        for path in &seen.rewritten {
            let directory = path.parent().and_then(|directory| mounts.locate(directory));
            if let (Some(directory), Some(name)) = (directory, name_of(path)) {
                names.push((directory, name.into()));
            }
        }
        let mut replaced = HashMap::new();
        for (path, inode) in &seen.linked {
            if let Some(directory) = path.parent().and_then(|directory| mounts.locate(directory)) {
                replaced.insert((directory.volume, *inode), None);
            }
        }
        for KnownName { directory, name, stamp } in index.known_names(&names).await? {
            let path = mounts.absolute(directory.volume, &directory.path);
            let path = path.map(|path| path.join(OsStr::from_bytes(&name)));
            if path.and_then(|path| inode_at(&path)) != Some(stamp.inode) {
                replaced.insert((directory.volume, stamp.inode), None);
            }
        }
        Ok(replaced)
    }

    /// The other names of files that were listed with a stamp, where the index knows them with another, and those of
    /// files that are not there any more: who writes through one name touches no other.
    async fn other_names(
        &self,
        links: &HashMap<(VolumeId, u64), Option<Stamp>>,
        known: &[Root],
    ) -> Result<BTreeMap<RootId, Touched>, ScanError> {
        let index = &self.scanner.index;
        let mounts = index.mounts(&self.scanner.host.name).await?;
        let files: Vec<(VolumeId, u64)> = links.keys().copied().collect();
        let mut others: BTreeMap<RootId, Touched> = BTreeMap::new();
        for KnownName { directory, name, stamp } in index.names_of(&files).await? {
            let is_current = links.get(&(directory.volume, stamp.inode)) == Some(&Some(stamp));
            let path = mounts.absolute(directory.volume, &directory.path).filter(|_| !is_current);
            if let (Some(path), Some(root)) = (path, nearest_root(known, &directory)) {
                others.entry(root.id).or_default().names.entry(path).or_default().insert(name);
            }
        }
        Ok(others)
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
        renamed: &[SeenMove],
        known: &[Root],
    ) -> Result<u64, ScanError> {
        let mut told = Vec::new();
        for seen in renamed {
            let Some(moved) = self.to_move(seen, known) else { continue };
            if let (None, Some(follower)) = (&moved.stamp, &self.follower) {
                // A walk may have been there before we heard of the move: its rows now go elsewhere.
                follower.forget(&seen.from);
                follower.forget(&seen.to);
            }
            self.writer.register_volume(&self.scanner.host.name, &moved.volume).await?;
            told.push(moved);
        }
        if !told.is_empty() {
            self.writer.write_moves(scan, &told).await?;
        }
        Ok(told.len() as u64)
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
            self.writer.settle(Unread::Perhaps).await?;
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
    path.file_name().map(OsStr::as_bytes)
}
