//! Phase two of a run: what is pending is read, and what was found goes back to the index.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::{Processing, Run, ScanError, Scanner, Walked};
use crate::bridge::{ThreadFailed, run_blocking};
use crate::cancel::Cancel;
use crate::concurrency::Concurrency;
use crate::index::{PendingReader, Writer};
use crate::model::pending::{Finding, Outcome, Scope, Stage, Unread};
use crate::model::rules::HashRules;
use crate::model::scan::ScanCounts;
use crate::model::settings::HashPolicy;
use crate::model::volume::{Extent, MountMap};
use crate::processing::pool::{Batches, Task, WAITING_BATCHES, process_all};
use crate::processing::twins;
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
        let (walked, helps) = match processing {
            Processing::PutOff => return Ok(()),
            Processing::Of(walked) => (walked, false),
            Processing::HelpWith(walked) => (walked, true),
        };
        let mounts = self.scanner.reachable_mounts().await?;
        let rules = HashRules::of(&self.scanner.index.roots().await?);
        let scope = |Walked { extents, directories }| Scope {
            extents,
            directories,
            reachable: mounts.volumes(),
            helps,
        };
        let wholly = hashed_wholly(&rules, &walked);
        if !wholly.extents.is_empty() || !wholly.directories.is_empty() {
            self.run_stage(Stage::Everything, &scope(wholly), &mounts).await?;
        }
        let scope = scope(walked);
        if self.unread == Unread::Perhaps {
            self.run_stage(Stage::Size, &scope, &mounts).await?;
        }
        if !matches!(self.unread, Unread::Nothing(_)) {
            self.run_stage(Stage::Sample, &scope, &mounts).await?;
        }
        Ok(())
    }

    async fn run_stage(&mut self, stage: Stage, scope: &Scope, mounts: &MountMap) -> Result<(), ScanError> {
        let scanner = self.scanner;
        if scanner.cancel.is_requested() {
            return Ok(());
        }
        scanner.progress.enter(Phase::Selecting);
        let pending = self.writer.pending(stage, scope, mounts).await?;
        let read_before = scanner.progress.read_bytes.get();
        let mut written = WriteBack::new(scanner.workers.batch);
        scanner.read_pending(pending, &mut written, self.writer.as_mut()).await?;
        let mut counts = written.finish(self.writer.as_mut()).await?;
        if stage == Stage::Everything {
            // What fails here is tried again in the next stage, and counts there.
            counts.problems = 0;
        }
        counts.bytes_read = scanner.progress.read_bytes.get() - read_before;
        self.report.counts += counts;
        Ok(())
    }
}

/// The parts of what was walked in which some directories are hashed wholly.
fn hashed_wholly(rules: &HashRules, walked: &Walked) -> Walked {
    let is_meant = |directory: &&Extent| {
        rules.within(HashPolicy::All, std::slice::from_ref(*directory)).contains(directory)
    };
    Walked {
        extents: rules.within(HashPolicy::All, &walked.extents),
        directories: walked.directories.iter().filter(is_meant).cloned().collect(),
    }
}

impl Scanner {
    /// Reads all that is pending. What waits to be written already is written meanwhile, and what was read last waits for
    /// [`WriteBack::finish`].
    pub(super) async fn read_pending(
        &self,
        pending: Box<dyn PendingReader>,
        written: &mut WriteBack,
        writer: &mut dyn Writer,
    ) -> Result<(), ScanError> {
        let totals = pending.totals();
        if totals.files == 0 {
            return Ok(());
        }
        self.progress.total_files.add(totals.files);
        self.progress.total_bytes.add(totals.bytes);
        self.progress.enter(Phase::Processing);

        let Hashing { jobs, mut outcomes, ended, concurrency } = self.start_hashing();
        // Each ends when the channel before it does. If one fails, no more is fed, and so all three end: the reader
        // may be waiting for answers that do not come any more.
        let no_more = Notify::new();
        let feeding = async {
            tokio::select! {
                fed = feed(pending, jobs, &concurrency, &self.cancel) => fed,
                () = no_more.notified() => Ok(()),
            }
        };
        let writing = async {
            let written = written.take_all(&mut outcomes, writer).await;
            outcomes.close();
            no_more.notify_one();
            written
        };
        let (fed, written, hashed) = tokio::join!(feeding, writing, ended);
        written?;
        fed?;
        Ok(hashed?)
    }

    /// Starts the pool that reads and hashes.
    pub(super) fn start_hashing(&self) -> Hashing {
        let concurrency = Arc::new(Concurrency::after(self.workers.read, self.adaptation.get()));
        let (job_sender, jobs) = mpsc::channel(WAITING_BATCHES);
        let (outcome_sender, outcomes) = mpsc::channel(WAITING_BATCHES);
        let (cancel, progress) = (self.cancel.clone(), Arc::clone(&self.progress));
        let (reading, adaptation) = (Arc::clone(&concurrency), Arc::clone(&self.adaptation));
        let ended = run_blocking("hash", move || {
            process_all(&reading, jobs, &outcome_sender, &cancel, &progress);
            adaptation.set(reading.last_adaptation());
        });
        Hashing { jobs: job_sender, outcomes, ended: Box::pin(ended), concurrency }
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
pub(super) async fn feed(
    mut pending: Box<dyn PendingReader>,
    jobs: mpsc::Sender<Vec<Task>>,
    concurrency: &Concurrency,
    cancel: &Cancel,
) -> Result<(), ScanError> {
    loop {
        let window = pending.next().await?;
        if window.is_empty() || cancel.is_requested() {
            return Ok(());
        }
        let mut batches = Batches::default();
        for task in twins::tasks(window, concurrency) {
            batches.push(task);
        }
        while let Some(batch) = batches.pop() {
            if jobs.send(batch).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The pool that reads, at work: jobs go in, outcomes come out, and it ends when there are no more jobs.
pub(super) struct Hashing {
    pub(super) jobs: mpsc::Sender<Vec<Task>>,
    pub(super) outcomes: mpsc::Receiver<Vec<Outcome>>,
    pub(super) concurrency: Arc<Concurrency>,
    pub(super) ended: Pin<Box<dyn Future<Output = Result<(), ThreadFailed>>>>,
}

/// Outcomes on their way to the index: written many at once, and committed about every second.
pub(super) struct WriteBack {
    batch: usize,
    waiting: Vec<Outcome>,
    counts: ScanCounts,
    committed: Instant,
}

impl WriteBack {
    pub(super) fn new(batch: usize) -> Self {
        Self { batch, waiting: Vec::new(), counts: ScanCounts::default(), committed: Instant::now() }
    }

    /// Takes on outcomes; writes them if they are enough.
    pub(super) async fn take(
        &mut self,
        outcomes: Vec<Outcome>,
        writer: &mut dyn Writer,
    ) -> Result<(), ScanError> {
        for outcome in outcomes {
            let is_content = matches!(outcome.finding, Finding::Hashed { .. } | Finding::Sampled { .. });
            // What was sampled counts already.
            self.counts.hashed += u64::from(is_content && outcome.stage != Stage::Sample);
            self.counts.problems += u64::from(!is_content);
            self.waiting.push(outcome);
        }
        if self.waiting.len() >= self.batch || self.is_due() {
            self.flush(writer).await?;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.committed.elapsed() >= COMMIT_INTERVAL
    }

    /// Writes what is waiting, and commits if it is time to.
    pub(super) async fn flush(&mut self, writer: &mut dyn Writer) -> Result<(), ScanError> {
        writer.write_outcomes(std::mem::take(&mut self.waiting)).await?;
        if self.is_due() {
            writer.commit().await?;
            self.committed = Instant::now();
        }
        Ok(())
    }

    /// Takes on all that is still to come; what is waiting already is written at once.
    async fn take_all(
        &mut self,
        outcomes: &mut mpsc::Receiver<Vec<Outcome>>,
        writer: &mut dyn Writer,
    ) -> Result<(), ScanError> {
        self.flush(writer).await?;
        while let Some(received) = self.receive(outcomes, writer).await? {
            self.take(received, writer).await?;
        }
        Ok(())
    }

    /// Waits for the next outcomes; what is waiting is written if none come for a while. None at the end.
    pub(super) async fn receive(
        &mut self,
        outcomes: &mut mpsc::Receiver<Vec<Outcome>>,
        writer: &mut dyn Writer,
    ) -> Result<Option<Vec<Outcome>>, ScanError> {
        loop {
            match tokio::time::timeout(LONGEST_WAIT, outcomes.recv()).await {
                Ok(received) => return Ok(received),
                Err(_) => self.flush(writer).await?,
            }
        }
    }

    /// Writes what is waiting, and makes all of it last; returns what all was.
    pub(super) async fn finish(mut self, writer: &mut dyn Writer) -> Result<ScanCounts, ScanError> {
        self.flush(writer).await?;
        writer.commit().await?;
        Ok(self.counts)
    }
}
