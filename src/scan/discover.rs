//! Phase one of a run: what the walk finds goes to the index.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::process::COMMIT_INTERVAL;
use super::{OpenScan, Run, ScanError, Scanner};
use crate::bridge::run_blocking;
use crate::discovery::filter::Filter;
use crate::discovery::named::{NamedRequest, list_named};
use crate::discovery::walk::{WalkRequest, walk};
use crate::model::group::ProblemRow;
use crate::model::listing::{Coverage, Listing};
use crate::model::scan::{Root, ScanCounts, ScanId, ScanKind};
use crate::model::volume::{Extent, Location, MountedVolume, VolumeId};
use crate::progress::Phase;
use crate::volume::Place;

/// Listings that wait for the index: a directory each, of at most 4,096 entries.
const WAITING_LISTINGS: usize = 256;

impl Run<'_> {
    /// Walks roots one after the other. Returns the subtrees that were walked.
    ///
    /// All their scans are on record before the first walk begins, so that a root that is not reached
    /// is known to be unfinished.
    pub(super) async fn discover_roots(
        &mut self,
        kind: ScanKind,
        roots: Vec<Root>,
    ) -> Result<Vec<Extent>, ScanError> {
        let known = self.scanner.index.roots().await?;
        let mut reachable = Vec::new();
        for root in roots {
            if let Some(problem) = self.why_offline(&root) {
                self.report.skipped_roots.push(ProblemRow { host: None, path: root.path, problem });
                continue;
            }
            let id = self.writer.begin_scan(Some(root.id), kind).await?;
            self.scans.push(OpenScan {
                id,
                extents: Vec::new(),
                counts: ScanCounts::default(),
                discovered: false,
            });
            reachable.push((self.scans.len() - 1, root));
        }
        self.writer.commit().await?;

        let mut extents = Vec::new();
        for (scan, root) in reachable {
            if self.scanner.cancel.is_requested() {
                break;
            }
            self.scanner.progress.enter(Phase::Discovery);
            let others = known.iter().filter(|other| other.id != root.id).map(Root::location).collect();
            self.discover(scan, &root, others).await?;
            extents.extend_from_slice(&self.scans[scan].extents);
        }
        Ok(extents)
    }

    /// Walks one root to its end, unless it is stopped; `scan` is the place of its open scan.
    async fn discover(
        &mut self,
        scan: usize,
        root: &Root,
        other_roots: HashSet<Location>,
    ) -> Result<(), ScanError> {
        let scanner = self.scanner;
        let id = self.scans[scan].id;
        let request = WalkRequest {
            root: root.path.clone(),
            filter: Filter::new(&root.settings)?,
            settings: root.settings.clone(),
            other_roots,
            own_files: scanner.index.own_files(),
        };

        let pool = Scanner::pool("walk", scanner.workers.walk)?;
        let (sender, listings) = mpsc::channel(WAITING_LISTINGS);
        let (volumes, cancel) = (Arc::clone(&scanner.volumes), scanner.cancel.clone());
        let progress = Arc::clone(&scanner.progress);
        let walking =
            run_blocking("walk", move || walk(&request, &volumes, &pool, sender, &cancel, &progress));
        let (mut counts, _) = self.write_listings(id, listings).await?;
        let end = walking.await?.map_err(|source| ScanError::Root { path: root.path.clone(), source })?;

        let mut extents = self.register(end.entered).await?;
        if end.complete {
            let mut linked = self.register(end.linked).await?;
            // A link to a disk that is not mounted leads nowhere for now: what is there stays.
            let reachable = scanner.reachable_mounts().await?.volumes();
            linked.extend(root.linked.iter().filter(|extent| !reachable.contains(&extent.volume)).cloned());
            counts.removed += self.writer.finish_discovery(id, Some(root.id), &extents, &linked).await?;
            self.writer.commit().await?;
            extents.extend(linked);
        }
        let open = &mut self.scans[scan];
        open.extents = extents;
        open.counts = counts;
        open.discovered = end.complete;
        Ok(())
    }

    /// Lists files that were named. Returns the directories they lie in.
    pub(super) async fn discover_named(
        &mut self,
        request: NamedRequest,
        mut names: Box<dyn BufRead + Send>,
    ) -> Result<Vec<Extent>, ScanError> {
        let scanner = self.scanner;
        scanner.progress.enter(Phase::Discovery);
        let scan = self.writer.begin_scan(None, ScanKind::FilesFrom).await?;
        self.writer.commit().await?;

        let (sender, listings) = mpsc::channel(WAITING_LISTINGS);
        let (volumes, cancel) = (Arc::clone(&scanner.volumes), scanner.cancel.clone());
        let progress = Arc::clone(&scanner.progress);
        let listing = run_blocking("list", move || {
            list_named(&request, names.as_mut(), &volumes, sender, &cancel, &progress)
        });
        let (mut counts, extents) = self.write_listings(scan, listings).await?;
        let end = listing.await?.map_err(ScanError::Names)?;

        if end.complete {
            self.writer.finish_discovery(scan, None, &[], &[]).await?;
            self.writer.commit().await?;
        }
        counts.problems += end.problems.len() as u64;
        self.report.unknown_names = end.problems;
        let extents: Vec<Extent> = extents.into_iter().collect();
        let discovered = end.complete;
        self.scans.push(OpenScan { id: scan, extents: extents.clone(), counts, discovered });
        Ok(extents)
    }

    async fn register(&mut self, places: Vec<Place>) -> Result<Vec<Extent>, ScanError> {
        let mut extents = Vec::with_capacity(places.len());
        for Place { volume, path } in places {
            let volume = self.writer.register_volume(&self.scanner.host.name, &volume).await?;
            extents.push(Extent { volume, path });
        }
        Ok(extents)
    }

    /// Writes listings as they come, many at once, and commits about every second; while one batch is
    /// written, the next is collected. Returns what changed, and the directories whose
    /// files were named.
    async fn write_listings(
        &mut self,
        scan: ScanId,
        mut listings: mpsc::Receiver<Listing>,
    ) -> Result<(ScanCounts, HashSet<Extent>), ScanError> {
        let most = self.scanner.workers.batch;
        let mut counts = ScanCounts::default();
        let mut selected = HashSet::new();
        let mut registered: HashMap<Arc<MountedVolume>, VolumeId> = HashMap::new();
        let mut committed = Instant::now();
        let mut batch = next_batch(&mut listings, most).await;
        while !batch.is_empty() {
            for listing in &batch {
                let volume = self.register_once(&listing.volume, &mut registered).await?;
                if listing.coverage == Coverage::Selected {
                    selected.insert(Extent { volume, path: listing.directory.clone() });
                }
                counts.directories += 1;
                counts.problems += u64::from(matches!(listing.coverage, Coverage::Unreadable(_)));
                counts.files_seen += listing.entries.len() as u64;
                counts.bytes_seen += listing.entries.iter().map(|entry| entry.stamp.size).sum::<u64>();
            }
            let writing = self.writer.write_listings(scan, &batch);
            let (written, next) = tokio::join!(writing, next_batch(&mut listings, most));
            counts += written?;
            batch = next;
            if committed.elapsed() >= COMMIT_INTERVAL {
                self.writer.commit().await?;
                committed = Instant::now();
            }
        }
        self.writer.commit().await?;
        Ok((counts, selected))
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

/// The next listings, until they have `most` rows, or a second is over, or there are no more: empty then.
async fn next_batch(listings: &mut mpsc::Receiver<Listing>, most: usize) -> Vec<Listing> {
    let mut batch = Vec::new();
    let mut rows = 0;
    let collecting = async {
        while rows < most {
            let Some(listing) = listings.recv().await else { break };
            rows += 1 + listing.entries.len();
            batch.push(listing);
        }
    };
    // What is found slowly must last, too.
    if tokio::time::timeout(COMMIT_INTERVAL, collecting).await.is_err() && batch.is_empty() {
        batch.extend(listings.recv().await);
    }
    batch
}
