//! Phase one of a run: what the walk finds goes to the index.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::ahead::{ReadAhead, ReadAll};
use super::process::COMMIT_INTERVAL;
use super::roots::{locate, why_offline};
use super::{OpenScan, Processing, Run, ScanError, Walked};
use crate::bridge::run_blocking;
use crate::discovery::filter::Filter;
use crate::discovery::named::{NamedRequest, list_named};
use crate::discovery::walk::{Order, Part, WalkRequest, walk};
use crate::model::group::ProblemRow;
use crate::model::listing::{Coverage, Listing};
use crate::model::path::VolumePath;
use crate::model::pending::{Outcome, Unread};
use crate::model::rules::HashRules;
use crate::model::scan::{Root, ScanCounts, ScanId, ScanKind};
use crate::model::volume::{Extent, MountedVolume, VolumeId};
use crate::progress::Phase;
use crate::volume::Place;

/// Sends of listings that wait for the index, each of some hundred rows or one large directory's piece.
const WAITING_SENDS: usize = 16;

impl Run<'_> {
    /// Walks roots, or parts of them, one after the other. Returns what was walked.
    ///
    /// All their scans are on record before the first walk begins, so that a root that is not reached
    /// is known to be unfinished. With `may_read`, files of roots that are new are read meanwhile.
    pub(super) async fn discover_roots(
        &mut self,
        kind: ScanKind,
        parts: Vec<(Root, Part)>,
        may_read: bool,
    ) -> Result<Walked, ScanError> {
        let known = self.scanner.index.roots().await?;
        let mut reachable = Vec::new();
        for (root, part) in parts {
            if let Some(problem) = why_offline(&self.scanner.volumes, &root) {
                self.report.skipped_roots.push(ProblemRow { host: None, path: root.path, problem });
                continue;
            }
            let within = self.within(&part);
            let id = self.writer.begin_scan(Some(root.id), kind, within.as_ref()).await?;
            self.scans.push(OpenScan::new(id));
            reachable.push((self.scans.len() - 1, root, part));
        }
        self.writer.commit().await?;

        let mut walked = Walked::default();
        for (scan, root, part) in reachable {
            if self.scanner.cancel.is_requested() {
                break;
            }
            if may_read && matches!(part, Part::Whole) {
                self.complete_first(kind, &root, &known).await?;
            }
            self.scanner.progress.enter(Phase::Discovery);
            self.discover(scan, &root, part, &known, may_read).await?;
            walked.extend(&self.scans[scan].walked);
        }
        Ok(walked)
    }

    /// Walks and reads the directories of a root that are to be complete before the others, one after the other.
    async fn complete_first(&mut self, kind: ScanKind, root: &Root, known: &[Root]) -> Result<(), ScanError> {
        let filter = Filter::new(&root.settings)?;
        for below in &root.upkeep.first {
            let directory = root.path.join(below);
            if filter.passes_over_path(below.as_bytes()) || !directory.is_dir() {
                continue;
            }
            let part = Part::Below(directory);
            let id = self.writer.begin_scan(Some(root.id), kind, self.within(&part).as_ref()).await?;
            self.scans.push(OpenScan::new(id));
            self.writer.commit().await?;
            let scan = self.scans.len() - 1;
            self.scanner.progress.enter(Phase::Discovery);
            self.discover(scan, root, part, known, true).await?;
            let walked = self.scans[scan].walked.clone();
            self.process(Processing::Of(walked)).await?;
            if self.scanner.cancel.is_requested() {
                break;
            }
        }
        Ok(())
    }

    /// The directory that a walk is limited to, inside its volume.
    pub(super) fn within(&self, part: &Part) -> Option<VolumePath> {
        let Part::Below(directory) = part else { return None };
        locate(&self.scanner.volumes, directory).ok().map(|place| place.path)
    }

    /// Walks one root to its end, or a part of it, unless it is stopped; `scan` is the place of its open scan.
    pub(super) async fn discover(
        &mut self,
        scan: usize,
        root: &Root,
        part: Part,
        known: &[Root],
        may_read: bool,
    ) -> Result<(), ScanError> {
        let scanner = self.scanner;
        let id = self.scans[scan].id;
        let is_whole = matches!(part, Part::Whole);
        let other_roots = known.iter().filter(|other| other.id != root.id).map(Root::location).collect();
        let request = WalkRequest {
            root: root.path.clone(),
            part,
            follower: self.follower.clone(),
            order: if root.upkeep.recent_first { Order::Recent } else { Order::LastFound },
            filter: Filter::new(&root.settings)?,
            settings: root.settings.clone(),
            other_roots,
            threads: scanner.workers.walk,
            own_files: scanner.index.own_files(),
        };

        let (sender, listings) = mpsc::channel(WAITING_SENDS);
        let (volumes, cancel) = (Arc::clone(&scanner.volumes), scanner.cancel.clone());
        let progress = Arc::clone(&scanner.progress);
        let walking = run_blocking("walk", move || walk(&request, &volumes, sender, &cancel, &progress));
        self.unread = Unread::Perhaps;
        let mut ahead = if may_read { self.read_ahead(root).await? } else { None };
        let (mut counts, mut directories) = self.write_listings(id, listings, ahead.as_mut()).await?;
        let end = walking.await?.map_err(|source| ScanError::Root { path: root.path.clone(), source })?;

        directories.extend(self.register(end.listed).await?);
        let mut extents = self.register(end.entered).await?;
        if end.complete {
            let mut linked = self.register(end.linked).await?;
            counts.removed += if is_whole {
                // A link to a disk that is not mounted leads nowhere for now: what is there stays.
                let reachable = scanner.reachable_mounts().await?.volumes();
                let offline = root.linked.iter().filter(|extent| !reachable.contains(&extent.volume));
                linked.extend(offline.cloned());
                self.writer.finish_discovery(id, Some(root.id), &extents, &linked).await?
            } else {
                self.writer.finish_parts(id, root.id, &extents, &linked).await?
            };
            self.writer.commit().await?;
            extents.extend(linked);
        }
        if let Some(ahead) = ahead {
            let (read, all) = ahead.finish(scanner, self.writer.as_mut()).await?;
            counts += read;
            if let Some(ReadAll { met, is_all }) = all.filter(|_| end.complete) {
                let (held, moment) = scanner.index.count_files().await?;
                // If the index holds nothing else, nothing else has to be read.
                if held == met {
                    self.unread = if is_all { Unread::Nothing(moment) } else { Unread::Sampled };
                }
            }
        }
        let open = &mut self.scans[scan];
        open.walked = Walked { extents, directories };
        open.counts += counts;
        open.discovered = end.complete;
        Ok(())
    }

    /// Lists files that were named. Returns the directories they lie in.
    pub(super) async fn discover_named(
        &mut self,
        request: NamedRequest,
        mut names: Box<dyn BufRead + Send>,
    ) -> Result<Walked, ScanError> {
        let scanner = self.scanner;
        scanner.progress.enter(Phase::Discovery);
        let scan = self.writer.begin_scan(None, ScanKind::FilesFrom, None).await?;
        self.writer.commit().await?;

        let (sender, listings) = mpsc::channel(WAITING_SENDS);
        let (volumes, cancel) = (Arc::clone(&scanner.volumes), scanner.cancel.clone());
        let progress = Arc::clone(&scanner.progress);
        let listing = run_blocking("list", move || {
            list_named(&request, names.as_mut(), &volumes, sender, &cancel, &progress)
        });
        let (mut counts, directories) = self.write_listings(scan, listings, None).await?;
        let end = listing.await?.map_err(ScanError::Names)?;

        if end.complete {
            self.writer.finish_discovery(scan, None, &[], &[]).await?;
            self.writer.commit().await?;
        }
        counts.problems += end.problems.len() as u64;
        self.report.unknown_names = end.problems;
        let walked = Walked { extents: Vec::new(), directories };
        let discovered = end.complete;
        self.scans.push(OpenScan { id: scan, walked: walked.clone(), counts, discovered });
        Ok(walked)
    }

    async fn register(&mut self, places: Vec<Place>) -> Result<Vec<Extent>, ScanError> {
        let mut extents = Vec::with_capacity(places.len());
        for Place { volume, path } in places {
            let volume = self.writer.register_volume(&self.scanner.host.name, &volume).await?;
            extents.push(Extent { volume, path });
        }
        Ok(extents)
    }

    /// For the first scan of a root: what is found can be read at once, because nothing of it is known.
    async fn read_ahead(&mut self, root: &Root) -> Result<Option<ReadAhead>, ScanError> {
        let is_known = self.scanner.index.knows(std::slice::from_ref(&root.extent)).await?;
        // Others want their share, which they get when it is known what there is to do.
        if is_known || !self.writer.is_alone().await? {
            return Ok(None);
        }
        let rules = HashRules::of(&self.scanner.index.roots().await?);
        Ok(ReadAhead::start(self.scanner, root.settings.hash, rules))
    }

    /// Writes listings as they come, many at once, and commits about every second. Returns what changed,
    /// and the directories whose files were named.
    async fn write_listings(
        &mut self,
        scan: ScanId,
        listings: mpsc::Receiver<Vec<Listing>>,
        mut ahead: Option<&mut ReadAhead>,
    ) -> Result<(ScanCounts, Vec<Extent>), ScanError> {
        let mut incoming = Incoming::new(listings, self.scanner.workers.batch);
        let mut counts = ScanCounts::default();
        let mut selected = HashSet::new();
        let mut registered: HashMap<Arc<MountedVolume>, VolumeId> = HashMap::new();
        let mut commits =
            tokio::time::interval_at(tokio::time::Instant::now() + COMMIT_INTERVAL, COMMIT_INTERVAL);
        commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_behind = ahead.as_ref().is_some_and(|ahead| ahead.is_behind());
            let batch = tokio::select! {
                batch = incoming.next(), if !is_behind => batch,
                outcomes = outcomes_of(ahead.as_deref_mut()) => {
                    if let Some(ahead) = ahead.as_mut() {
                        ahead.write(outcomes, self.writer.as_mut()).await?;
                    }
                    continue;
                }
                _ = commits.tick() => {
                    self.commit_discovery(ahead.as_deref_mut()).await?;
                    continue;
                }
            };
            if batch.is_empty() {
                break;
            }
            let mut volumes = Vec::with_capacity(batch.len());
            for listing in &batch {
                let volume = self.register_once(&listing.volume, &mut registered).await?;
                volumes.push(volume);
                if let Some(links) = &mut self.links {
                    let linked = listing.entries.iter().filter(|entry| entry.has_other_names);
                    let other = listing.absent().map(|absent| absent.linked.as_slice()).unwrap_or_default();
                    let stamps = linked.map(|entry| entry.stamp).chain(other.iter().copied());
                    links.extend(stamps.map(|stamp| ((volume, stamp.inode), stamp)));
                }
                if listing.absent().is_some() {
                    selected.insert(Extent { volume, path: listing.directory.clone() });
                }
                counts.directories += 1;
                counts.problems += u64::from(matches!(listing.coverage, Coverage::Unreadable(_)));
                counts.files_seen += listing.entries.len() as u64;
                counts.bytes_seen += listing.entries.iter().map(|entry| entry.stamp.size).sum::<u64>();
            }
            let written = incoming.while_busy(self.writer.write_listings(scan, &batch)).await?;
            counts += written.counts;
            if let Some(ahead) = ahead.as_mut() {
                for ((listing, volume), (directory, first)) in
                    batch.into_iter().zip(volumes).zip(written.directories)
                {
                    ahead.meet(listing, volume, directory, first);
                }
            }
        }
        self.writer.commit().await?;
        Ok((counts, selected.into_iter().collect()))
    }

    /// Makes what was found so far last, and what was read of it.
    async fn commit_discovery(&mut self, ahead: Option<&mut ReadAhead>) -> Result<(), ScanError> {
        if let Some(ahead) = ahead {
            ahead.flush(self.writer.as_mut()).await?;
            if !self.writer.is_alone().await? {
                ahead.leave_the_rest();
            }
        }
        Ok(self.writer.commit().await?)
    }

    async fn register_once(
        &mut self,
        volume: &Arc<MountedVolume>,
        registered: &mut HashMap<Arc<MountedVolume>, VolumeId>,
    ) -> Result<VolumeId, ScanError> {
        if let Some(id) = registered.get(volume) {
            return Ok(*id);
        }
        let id = self.writer.register_volume(&self.scanner.host.name, volume).await?;
        registered.insert(Arc::clone(volume), id);
        Ok(id)
    }
}

/// What was read ahead, as soon as there is some.
async fn outcomes_of(ahead: Option<&mut ReadAhead>) -> Vec<Outcome> {
    match ahead {
        Some(ahead) if !ahead.has_stopped() => ahead.outcomes().await,
        _ => std::future::pending().await,
    }
}

/// Listings as they come, collected into batches.
struct Incoming {
    listings: mpsc::Receiver<Vec<Listing>>,
    batch: Vec<Listing>,
    rows: usize,
    most: usize,
    has_ended: bool,
    since: tokio::time::Instant,
}

impl Incoming {
    fn new(listings: mpsc::Receiver<Vec<Listing>>, most: usize) -> Self {
        let since = tokio::time::Instant::now();
        Self { listings, batch: Vec::new(), rows: 0, most, has_ended: false, since }
    }

    fn has_room(&self) -> bool {
        self.rows < self.most && !self.has_ended
    }

    /// Waits for some more. Nothing is lost if the wait is broken off.
    async fn receive(&mut self) {
        match self.listings.recv().await {
            Some(listings) => {
                self.rows += listings.iter().map(|listing| 1 + listing.entries.len()).sum::<usize>();
                self.batch.extend(listings);
            }
            None => self.has_ended = true,
        }
    }

    /// The next batch: as soon as it is large enough, or a second is over, because what is found slowly
    /// must last, too. Empty at the end. Nothing is lost if the wait is broken off.
    async fn next(&mut self) -> Vec<Listing> {
        let deadline = self.since + COMMIT_INTERVAL;
        while self.has_room() {
            let is_late = tokio::time::timeout_at(deadline, self.receive()).await.is_err();
            if is_late && self.batch.is_empty() {
                self.receive().await;
            }
            if is_late {
                break;
            }
        }
        self.rows = 0;
        self.since = tokio::time::Instant::now();
        std::mem::take(&mut self.batch)
    }

    /// Collects while something else is being done, so that the walk need not wait for it.
    async fn while_busy<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = self.receive(), if self.has_room() => {}
            }
        }
    }
}
