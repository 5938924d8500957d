//! The pool that hashes: jobs in, outcomes out, as many files at once as it has threads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender};

use super::read::FileReader;
use crate::cancel::Cancel;
use crate::concurrency::Concurrency;
use crate::model::pending::{Job, Outcome};
use crate::progress::Progress;

/// Jobs that wait for a thread, in batches: enough that no thread is idle while the index is asked
/// for more, few enough that memory stays flat.
pub const WAITING_BATCHES: usize = 128;

/// Jobs in a batch: a thread takes so many in a row, so that the channel costs little a file and
/// neighbours on the disk are read together.
const JOBS_IN_BATCH: usize = 64;

/// Bytes that a batch asks to be read, unless its only job asks for more: large files are divided among the
/// threads one by one.
const BYTES_IN_BATCH: u64 = 4 * 1024 * 1024;

/// Jobs on their way to the pool.
#[derive(Debug, Default)]
pub struct Batches {
    waiting: VecDeque<Vec<Job>>,
    bytes_in_last: u64,
}

impl Batches {
    /// Adds a job, to the last batch if that has room.
    pub fn push(&mut self, job: Job) {
        let bytes = job.bytes_to_read();
        self.bytes_in_last = self.bytes_in_last.saturating_add(bytes);
        match self.waiting.back_mut() {
            Some(last) if last.len() < JOBS_IN_BATCH && self.bytes_in_last <= BYTES_IN_BATCH => {
                last.push(job);
            }
            _ => {
                self.bytes_in_last = bytes;
                self.waiting.push_back(vec![job]);
            }
        }
    }

    /// Takes the first batch.
    pub fn pop(&mut self) -> Option<Vec<Job>> {
        self.waiting.pop_front()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Processes jobs until their channel ends, on as many threads of `pool` as are worth it; blocks until done.
///
/// With one thread, strictly in order. A closed outcome channel means "stop".
pub fn process_all(
    pool: &rayon::ThreadPool,
    concurrency: &Concurrency,
    jobs: Receiver<Vec<Job>>,
    outcomes: &Sender<Vec<Outcome>>,
    cancel: &Cancel,
    progress: &Progress,
) {
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
    let reader = || FileReader::new(cancel.clone());
    concurrency.divide(pool, next, reader, |batch, reader, meter| {
        let mut done = Vec::with_capacity(batch.len());
        for job in batch {
            let (names, bytes) = (job.names.len() as u64, job.bytes_to_read());
            if reader.process(job, meter, &mut done).is_none() {
                break;
            }
            progress.done_files.add(names);
            // Each name counts, as in the total; what is truly read is counted apart.
            progress.done_bytes.add(bytes * names);
            progress.read_bytes.add(bytes);
        }
        match outcomes.blocking_send(done) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
}
