//! The pool that hashes: jobs in, outcomes out, as many files at once as it has threads.

use rayon::iter::{ParallelBridge as _, ParallelIterator as _};
use tokio::sync::mpsc::{Receiver, Sender};

use super::read::FileReader;
use crate::cancel::Cancel;
use crate::model::pending::{Job, Outcome, SAMPLE_BYTES, SMALL_FILE, Stage};
use crate::progress::Progress;

/// Jobs that wait for a thread, in batches: enough that no thread is idle while the index is asked
/// for more, few enough that memory stays flat.
pub const WAITING_BATCHES: usize = 128;

/// Jobs in a batch: a thread takes so many in a row, so that the channel costs little a file and
/// neighbours on the disk are read together.
pub const JOBS_IN_BATCH: usize = 64;

/// Processes jobs until their channel ends, on the threads of `pool`; blocks until done.
///
/// With one thread, strictly in order. A closed outcome channel means "stop".
pub fn process_all(
    pool: &rayon::ThreadPool,
    mut jobs: Receiver<Vec<Job>>,
    outcomes: &Sender<Vec<Outcome>>,
    cancel: &Cancel,
    progress: &Progress,
) {
    let batches = std::iter::from_fn(|| jobs.blocking_recv());
    let reader = || FileReader::new(cancel.clone());
    // Ends early with None when the outcomes are not wanted any more.
    let _ = pool.install(|| {
        batches.par_bridge().try_for_each_init(reader, |reader, batch| {
            let mut done = Vec::with_capacity(batch.len());
            for job in &batch {
                let Some(of_job) = reader.process(job) else { break };
                progress.done_files.add(of_job.len() as u64);
                // Each name counts, as in the total; what is truly read is counted apart.
                progress.done_bytes.add(cost(job) * of_job.len() as u64);
                progress.read_bytes.add(cost(job));
                done.extend(of_job);
            }
            outcomes.blocking_send(done).ok()
        })
    });
}

/// The bytes that are read for a job.
fn cost(job: &Job) -> u64 {
    let sampled = job.stage == Stage::Size && job.stamp.size > SMALL_FILE;
    if sampled { SAMPLE_BYTES } else { job.stamp.size }
}
