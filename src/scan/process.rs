//! Phase two of a run: what is pending is read, and what was found goes back to the index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Processing, Run, ScanError, Scanner};
use crate::bridge::run_blocking;
use crate::cancel::Cancel;
use crate::index::{PendingReader, Writer};
use crate::model::pending::{Finding, Job, Outcome, Scope, Stage};
use crate::model::scan::ScanCounts;
use crate::model::volume::{Extent, MountMap};
use crate::processing::pool::{JOBS_IN_BATCH, WAITING_BATCHES, process_all};
use crate::progress::Phase;
use crate::volume::Volumes;

/// How long outcomes wait for company before they are written: others may wait for them.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// What a kill may cost: work is committed at least so often.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Reads, stage by stage, what subtrees need to be complete: also files elsewhere that share
    /// their size with one of theirs. Every stage writes back before the next one selects.
    pub(super) async fn process(&mut self, processing: Processing) -> Result<(), ScanError> {
        let (extents, helps) = match processing {
            Processing::PutOff => return Ok(()),
            Processing::Of(extents) => (extents, false),
            Processing::HelpWith(extents) => (extents, true),
        };
        let mounts = self.scanner.reachable_mounts().await?;
        let scope = |extents| Scope { extents, reachable: mounts.volumes(), helps };
        let wholly = self.hashed_wholly(&extents).await?;
        if !wholly.is_empty() {
            self.run_stage(Stage::Everything, &scope(wholly), &mounts).await?;
        }
        let scope = scope(extents);
        self.run_stage(Stage::Size, &scope, &mounts).await?;
        self.run_stage(Stage::Sample, &scope, &mounts).await
    }

    /// The parts of these subtrees in which every file is to be hashed.
    async fn hashed_wholly(&self, within: &[Extent]) -> Result<Vec<Extent>, ScanError> {
        let roots = self.scanner.index.roots().await?;
        let wholly = roots.iter().filter(|root| root.settings.hash_all).flat_map(|root| &root.extents);
        Ok(wholly
            .flat_map(|own| within.iter().filter_map(|other| own.intersection(other)).cloned())
            .collect())
    }

    async fn run_stage(&mut self, stage: Stage, scope: &Scope, mounts: &MountMap) -> Result<(), ScanError> {
        let scanner = self.scanner;
        if scanner.cancel.is_requested() {
            return Ok(());
        }
        scanner.progress.enter(Phase::Selecting);
        let pending = self.writer.pending(stage, scope, mounts).await?;
        let totals = pending.totals();
        if totals.files == 0 {
            return Ok(());
        }
        scanner.progress.total_files.add(totals.files);
        scanner.progress.total_bytes.add(totals.bytes);
        scanner.progress.enter(Phase::Processing);

        let read_before = scanner.progress.read_bytes.get();
        let pool = Scanner::pool("hash", scanner.workers.read)?;
        let (job_sender, jobs) = mpsc::channel(WAITING_BATCHES);
        let (outcome_sender, outcomes) = mpsc::channel(WAITING_BATCHES);
        let (cancel, progress) = (scanner.cancel.clone(), Arc::clone(&scanner.progress));
        let hashing =
            run_blocking("hash", move || process_all(&pool, jobs, &outcome_sender, &cancel, &progress));
        let feeding = feed(pending, job_sender, &scanner.cancel);
        let writing = write_back(self.writer.as_mut(), outcomes, scanner.workers.batch);
        // Each ends when the channel before it does: an error in one ends all three.
        let (fed, written, hashed) = tokio::join!(feeding, writing, hashing);

        let mut counts = written?;
        match stage {
            // What fails here is tried again in the next stage, and counts there.
            Stage::Everything => counts.problems = 0,
            Stage::Size => {}
            // What was sampled counts already.
            Stage::Sample => counts.hashed = 0,
        }
        fed?;
        hashed?;
        counts.bytes_read = scanner.progress.read_bytes.get() - read_before;
        self.report.counts += counts;
        Ok(())
    }
}

impl Scanner {
    /// A pool of named threads; one thread works strictly in order.
    pub(super) fn pool(name: &'static str, threads: usize) -> Result<rayon::ThreadPool, ScanError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        Ok(pool.thread_name(move |index| format!("{name}-{index}")).build()?)
    }

    /// The mounts that lead to a volume of the index at this moment.
    pub(super) async fn reachable_mounts(&self) -> Result<MountMap, ScanError> {
        // What is mounted may have changed since the run began.
        let table = Volumes::read(&self.host).map_err(ScanError::Mounts)?;
        let mounts = self.index.mounts(&self.host.name).await?;
        let volumes = self.index.volumes().await?;
        let reachable = mounts.iter().filter(|(id, mount)| {
            let identity = volumes.iter().find(|(volume, _)| volume == id).map(|(_, identity)| identity);
            identity.is_some_and(|identity| table.is_reachable(identity, mount))
        });
        Ok(MountMap::new(reachable.map(|(id, mount)| (id, mount.clone())).collect()))
    }
}

/// Hands jobs to the pool, batch by batch, until there are no more or the pool stops.
async fn feed(
    mut pending: Box<dyn PendingReader>,
    jobs: mpsc::Sender<Vec<Job>>,
    cancel: &Cancel,
) -> Result<(), ScanError> {
    loop {
        let mut window = pending.next().await?;
        if window.is_empty() || cancel.is_requested() {
            return Ok(());
        }
        while !window.is_empty() {
            let rest = window.split_off(window.len().min(JOBS_IN_BATCH));
            if jobs.send(std::mem::replace(&mut window, rest)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Writes outcomes as they come, many at once, and commits about every second.
async fn write_back(
    writer: &mut dyn Writer,
    mut outcomes: mpsc::Receiver<Vec<Outcome>>,
    batch: usize,
) -> Result<ScanCounts, ScanError> {
    let mut counts = ScanCounts::default();
    let mut committed = Instant::now();
    let mut waiting: Vec<Outcome> = Vec::new();
    loop {
        let (received, is_late) = match tokio::time::timeout(LONGEST_WAIT, outcomes.recv()).await {
            Ok(received) => (received, false),
            Err(_) => (Some(Vec::new()), true),
        };
        let at_end = received.is_none();
        for outcome in received.into_iter().flatten() {
            let is_content = matches!(outcome.finding, Finding::Hashed { .. } | Finding::Sampled { .. });
            counts.hashed += u64::from(is_content);
            counts.problems += u64::from(!is_content);
            waiting.push(outcome);
        }
        let is_due = committed.elapsed() >= COMMIT_INTERVAL;
        if waiting.len() >= batch || is_late || is_due || at_end {
            writer.write_outcomes(&waiting).await?;
            waiting.clear();
        }
        if is_due || at_end {
            writer.commit().await?;
            committed = Instant::now();
        }
        if at_end {
            return Ok(counts);
        }
    }
}
