//! The pool that hashes: tasks in, outcomes out, as many files at once as it has threads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender};

use super::read::FileReader;
use crate::cancel::Cancel;
use crate::concurrency::Concurrency;
use crate::model::pending::{Job, Outcome};
use crate::progress::Progress;

/// Tasks that wait for a thread, in batches: enough that no thread is idle while the index is asked
/// for more, few enough that memory stays flat.
pub const WAITING_BATCHES: usize = 128;

/// Tasks in a batch: a thread takes so many in a row, so that the channel costs little a file and
/// neighbours on the disk are read together.
const TASKS_IN_BATCH: usize = 64;

/// Bytes that a batch asks to be read, unless its only task asks for more: large files are divided among the
/// threads one by one.
const BYTES_IN_BATCH: u64 = 4 * 1024 * 1024;

/// What a thread does at a time.
#[derive(Debug)]
pub enum Task {
    /// Reads a file.
    One(Job),
    /// Reads files side by side; never empty.
    Twins(Vec<Job>),
}

/// Tasks on their way to the pool.
#[derive(Debug, Default)]
pub struct Batches {
    waiting: VecDeque<Vec<Task>>,
    bytes_in_last: u64,
}

/// How much there is to do.
#[derive(Default)]
struct Amount {
    names: u64,
    /// Bytes of all names, as the totals count them.
    named_bytes: u64,
    /// Bytes that are truly read.
    bytes: u64,
}

impl Task {
    fn amount(&self) -> Amount {
        let jobs = match self {
            Self::One(job) => std::slice::from_ref(job),
            Self::Twins(jobs) => jobs,
        };
        jobs.iter().fold(Amount::default(), |amount, job| {
            let (names, bytes) = (job.names.len() as u64, job.bytes_to_read());
            Amount {
                names: amount.names + names,
                named_bytes: amount.named_bytes.saturating_add(bytes.saturating_mul(names)),
                bytes: amount.bytes.saturating_add(bytes),
            }
        })
    }
}

impl Batches {
    /// Adds a task, to the last batch if that has room.
    pub fn push(&mut self, task: Task) {
        let bytes = task.amount().bytes;
        self.bytes_in_last = self.bytes_in_last.saturating_add(bytes);
        match self.waiting.back_mut() {
            Some(last) if last.len() < TASKS_IN_BATCH && self.bytes_in_last <= BYTES_IN_BATCH => {
                last.push(task);
            }
            _ => {
                self.bytes_in_last = bytes;
                self.waiting.push_back(vec![task]);
            }
        }
    }

    /// Takes the first batch.
    pub fn pop(&mut self) -> Option<Vec<Task>> {
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

/// Does tasks until their channel ends, on as many threads of `pool` as are worth it; blocks until done.
///
/// With one thread, strictly in order. A closed outcome channel means "stop".
pub fn process_all(
    pool: &rayon::ThreadPool,
    concurrency: &Concurrency,
    tasks: Receiver<Vec<Task>>,
    outcomes: &Sender<Vec<Outcome>>,
    cancel: &Cancel,
    progress: &Progress,
) {
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
    let reader = || FileReader::new(cancel.clone());
    concurrency.divide(pool, next, reader, |batch, reader, meter| {
        let mut done = Vec::with_capacity(batch.len());
        for task in batch {
            let amount = task.amount();
            let processed = match task {
                Task::One(job) => reader.process(job, meter, &mut done),
                Task::Twins(jobs) => reader.process_twins(jobs, meter, &mut done),
            };
            if processed.is_none() {
                break;
            }
            progress.done_files.add(amount.names);
            progress.done_bytes.add(amount.named_bytes);
            progress.read_bytes.add(amount.bytes);
        }
        match outcomes.blocking_send(done) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
}
