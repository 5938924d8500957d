//! Reading ahead: in the first walk of a root, files are read while the walk goes on.
//!
//! As soon as a second file of a size is listed, both are sure to be read, whatever comes. They are handed
//! to the pool with the paths just listed, and the index is neither asked what to read nor waited
//! for. This is no selection of its own: what is not read here (partners that the index knew before, what is
//! beyond [`MOST_SIZES`] and [`MOST_LINKED`]) has no hash, and the index chooses it afterwards.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::process::{Hashing, WriteBack};
use super::sampled::Sampled;
use super::{ScanError, Scanner};
use crate::index::{IndexError, PendingReader, Writer};
use crate::model::listing::{DirectoryId, Entry, Listing};
use crate::model::path::VolumePath;
use crate::model::pending::{FileId, FileKey, Job, Outcome, PendingName, PendingTotals, Stage};
use crate::model::rules::HashRules;
use crate::model::scan::ScanCounts;
use crate::model::settings::HashPolicy;
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, MountedVolume, VolumeId};
use crate::processing::pool::{Batches, Task};
use crate::progress::{Phase, Progress};

/// Sizes of which one file was met are remembered with that file: some 20 MiB of them.
const MOST_SIZES: usize = 128 * 1024;

/// Names of files that have several are remembered until the walk ends: some 15 MiB of them.
const MOST_LINKED: usize = 64 * 1024;

/// Files that are put off at once.
const MOST_PUT_OFF: usize = 64 * 1024;

/// Bytes of large files that are read without asking the index for them. More take so long that choosing them does not
/// count, and others may come to share the work.
const MOST_FORESEEN_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// Files that are read while others are still being found.
pub(super) struct ReadAhead {
    hashing: Hashing,
    written: WriteBack,
    stage: Stage,
    policy: HashPolicy,
    /// If roots have others: what is mounted in one may lie in another.
    rules: Option<HashRules>,
    sizes: HashMap<u64, Met>,
    /// Files that have other names: these may be met yet, and are read with them.
    linked: HashMap<(Arc<MountedVolume>, Stamp), Candidate>,
    linked_names: usize,
    /// Files that were met before the second one of their size. They lie all over what was walked: one by one,
    /// each would cost its directory to be opened and a page of the index to be changed.
    put_off: Vec<Candidate>,
    /// Files met; none if some have to be left to the index.
    met: Option<u64>,
    /// Large files that were queued.
    sampled: Sampled,
    /// True if all that is still to come is left to the index.
    leaves_the_rest: bool,
    /// Jobs that the pool has no room for yet.
    backlog: Batches,
    has_stopped: bool,
    progress: Arc<Progress>,
    read_before: u64,
}

/// What is known when all that was met and has to be read was read.
pub(super) struct ReadAll {
    /// How many files were met.
    pub(super) met: u64,
    /// False if some of which a sample was read are to be read whole.
    pub(super) is_all: bool,
}

/// What was met of a size.
enum Met {
    Once(Box<Candidate>),
    Often,
}

/// A physical file that will be read if another one of its size is met.
struct Candidate {
    stamp: Stamp,
    first: PendingName,
    /// Its other names.
    others: Vec<PendingName>,
}

impl ReadAhead {
    /// For a root with this policy, if anything of it is to be read.
    pub(super) fn start(scanner: &Scanner, policy: HashPolicy, rules: HashRules) -> Option<Self> {
        let stage = match policy {
            HashPolicy::All => Stage::Everything,
            HashPolicy::Candidates => Stage::Size,
            HashPolicy::None => return None,
        };
        Some(Self {
            hashing: scanner.start_hashing(),
            written: WriteBack::new(scanner.workers.batch),
            stage,
            policy,
            rules: rules.have_others_than(policy).then_some(rules),
            sizes: HashMap::new(),
            linked: HashMap::new(),
            linked_names: 0,
            put_off: Vec::new(),
            met: Some(0),
            sampled: Sampled::new(),
            leaves_the_rest: false,
            backlog: Batches::default(),
            has_stopped: false,
            progress: Arc::clone(&scanner.progress),
            read_before: scanner.progress.read_bytes.get(),
        })
    }

    /// True if the pool has to catch up before more is listed.
    pub(super) fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// True if the pool was told to stop.
    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Takes on what a directory holds, whose rows have just been written.
    pub(super) fn meet(
        &mut self,
        listing: Listing,
        volume: VolumeId,
        directory: DirectoryId,
        first: Option<FileId>,
    ) {
        if self.goes_by_another_policy(volume, &listing.directory) {
            self.met = None;
            return;
        }
        // Of rows that were there before, something may be known.
        let path = listing.volume.mount.absolute(&listing.directory);
        let Some((FileId(first), path)) = first.zip(path).filter(|_| !self.leaves_the_rest) else {
            if !listing.entries.is_empty() {
                self.met = None;
            }
            return;
        };
        self.met = self.met.map(|met| met + listing.entries.len() as u64);
        let path: Arc<Path> = path.into();
        for (Entry { name, stamp, has_other_names }, id) in listing.entries.into_iter().zip(first..) {
            let key = FileKey { id: FileId(id), directory, name };
            let name = PendingName { key, directory: Arc::clone(&path) };
            if has_other_names {
                self.remember(&listing.volume, stamp, name);
            } else {
                self.consider(Candidate { stamp, first: name, others: Vec::new() });
            }
        }
        if self.put_off.len() >= MOST_PUT_OFF {
            self.queue_put_off();
        }
    }

    fn goes_by_another_policy(&self, volume: VolumeId, directory: &VolumePath) -> bool {
        self.rules.as_ref().is_some_and(|rules| {
            let place = Extent { volume, path: directory.clone() };
            rules.around(&place).is_some_and(|policy| policy != self.policy)
        })
    }

    /// Takes down a name of a file that has several.
    fn remember(&mut self, volume: &Arc<MountedVolume>, stamp: Stamp, name: PendingName) {
        if self.linked_names == MOST_LINKED {
            self.met = None;
            return;
        }
        self.linked_names += 1;
        match self.linked.entry((Arc::clone(volume), stamp)) {
            Occupied(known) => known.into_mut().others.push(name),
            Vacant(free) => {
                free.insert(Candidate { stamp, first: name, others: Vec::new() });
            }
        }
    }

    /// Queues a file, at once or as soon as a second one of its size is met.
    fn consider(&mut self, candidate: Candidate) {
        if self.stage == Stage::Everything {
            self.queue(candidate);
            return;
        }
        let has_room = self.sizes.len() < MOST_SIZES;
        match self.sizes.entry(candidate.stamp.size) {
            Occupied(mut met) => {
                if let Met::Once(first) = met.insert(Met::Often) {
                    self.put_off.push(*first);
                }
                self.queue(candidate);
            }
            Vacant(free) if has_room => {
                free.insert(Met::Once(Box::new(candidate)));
            }
            Vacant(_) => self.met = None,
        }
    }

    /// Queues the files that were put off, in the order in which they were found.
    fn queue_put_off(&mut self) {
        let mut put_off = std::mem::take(&mut self.put_off);
        put_off.sort_unstable_by_key(|candidate| candidate.first.key.id);
        for candidate in put_off {
            self.queue(candidate);
        }
    }

    fn queue(&mut self, candidate: Candidate) {
        let Candidate { stamp, first, others } = candidate;
        let mut names = vec![first];
        names.extend(others);
        let job = Job { stamp, names, stage: self.stage, lease: None, known: None, sample: None };
        if job.is_sampled() {
            self.sampled.expect(&job);
        }
        let names = job.names.len() as u64;
        self.progress.total_files.add(names);
        self.progress.total_bytes.add(job.bytes_to_read() * names);
        self.backlog.push(Task::One(job));
    }

    /// Waits until the pool takes jobs, or has outcomes to be written: these are returned. Nothing is lost
    /// if the wait is broken off.
    pub(super) async fn outcomes(&mut self) -> Vec<Outcome> {
        tokio::select! {
            room = self.hashing.jobs.reserve(), if !self.backlog.is_empty() => {
                if let (Ok(room), Some(batch)) = (room, self.backlog.pop()) {
                    room.send(batch);
                }
                Vec::new()
            }
            outcomes = self.hashing.outcomes.recv() => {
                // It was told to stop.
                if outcomes.is_none() {
                    self.has_stopped = true;
                    self.backlog.clear();
                }
                outcomes.unwrap_or_default()
            }
        }
    }

    /// Takes on no more: others have come to share the work.
    pub(super) fn leave_the_rest(&mut self) {
        self.leaves_the_rest = true;
    }

    pub(super) async fn write(
        &mut self,
        outcomes: Vec<Outcome>,
        writer: &mut dyn Writer,
    ) -> Result<(), ScanError> {
        self.sampled.note(&outcomes);
        self.written.take(outcomes, writer).await
    }

    /// Writes what was read and is waiting for company.
    pub(super) async fn flush(&mut self, writer: &mut dyn Writer) -> Result<(), ScanError> {
        self.written.flush(writer).await
    }

    /// Ends it: everything that was met is read and written, also what shares its sample. What failed is tried again in the
    /// next stage and counts there.
    /// Also returns what is left, if all was read that the stage would choose among the files met.
    pub(super) async fn finish(
        mut self,
        scanner: &Scanner,
        writer: &mut dyn Writer,
    ) -> Result<(ScanCounts, Option<ReadAll>), ScanError> {
        let mut linked: Vec<Candidate> = std::mem::take(&mut self.linked).into_values().collect();
        linked.sort_unstable_by_key(|candidate| candidate.stamp.inode);
        for candidate in linked {
            self.consider(candidate);
        }
        self.queue_put_off();
        if self.is_behind() {
            self.progress.enter(Phase::Processing);
        }
        while self.is_behind() {
            let outcomes = self.outcomes().await;
            self.write(outcomes, writer).await?;
        }
        let Hashing { jobs, mut outcomes, ended, .. } = self.hashing;
        drop(jobs);
        while let Some(received) = self.written.receive(&mut outcomes, writer).await? {
            self.sampled.note(&received);
            self.written.take(received, writer).await?;
        }
        ended.await?;
        let mut is_all = false;
        let shared = self.sampled.into_shared().map(Foreseen);
        if let Some(shared) = shared.filter(|shared| shared.totals().bytes <= MOST_FORESEEN_BYTES)
            && writer.is_alone().await?
        {
            scanner.read_pending(Box::new(shared), &mut self.written, writer).await?;
            is_all = true;
        }
        let counts = self.written.finish(writer).await?;
        let was_stopped = self.has_stopped || scanner.cancel.is_requested();
        let met = self.met.filter(|_| !was_stopped && counts.problems == 0);
        let bytes_read = self.progress.read_bytes.get() - self.read_before;
        let all = met.map(|met| ReadAll { met, is_all });
        Ok((ScanCounts { problems: 0, bytes_read, ..counts }, all))
    }
}

/// Files of which it was found out without the index that they are to be read.
struct Foreseen(Vec<Job>);

#[async_trait(?Send)]
impl PendingReader for Foreseen {
    fn totals(&self) -> PendingTotals {
        self.0.iter().fold(PendingTotals::default(), |totals, job| {
            let names = job.names.len() as u64;
            PendingTotals { files: totals.files + names, bytes: totals.bytes + job.bytes_to_read() * names }
        })
    }

    async fn next(&mut self) -> Result<Vec<Job>, IndexError> {
        Ok(std::mem::take(&mut self.0))
    }
}
