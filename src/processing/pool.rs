//! The pool that hashes: tasks in, outcomes out, as many files at once as it has threads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender};

use super::read::FileReader;
use crate::cancel::Cancel;
use crate::concurrency::{Concurrency, Meter};
use crate::model::pending::{Job, Outcome};
use crate::os;
use crate::progress::Progress;

/// Tasks that wait for a thread, in batches: enough that no thread is idle while the index is asked
/// for more, few enough that memory stays flat.
pub const WAITING_BATCHES: usize = 128;

/// Tasks in a batch: a thread takes so many in a row, so that the channel costs little a file and
/// neighbours on the disk are read together. While a disk is waited for, all of them are asked for before the first is
/// read: that takes half as long as asking for one after the other with 32 threads, and 2 of 3 parts of the
/// processor's time.
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
    bytes: u64,
}

impl Amount {
    fn of(jobs: &[Job]) -> Self {
        jobs.iter().fold(Self::default(), |amount, job| {
            let names = job.names.len() as u64;
            let bytes = amount.bytes.saturating_add(job.bytes_to_read().saturating_mul(names));
            Self { names: amount.names + names, bytes }
        })
    }

    fn note_done(&self, reader: &mut FileReader, progress: &Progress) {
        progress.done_files.add(self.names);
        progress.done_bytes.add(self.bytes);
        progress.read_bytes.add(reader.take_read_bytes());
    }
}

impl Task {
    fn jobs(&self) -> &[Job] {
        match self {
            Self::One(job) => std::slice::from_ref(job),
            Self::Twins(jobs) => jobs,
        }
    }

    fn into_jobs(self) -> Vec<Job> {
        match self {
            Self::One(job) => vec![job],
            Self::Twins(jobs) => jobs,
        }
    }
}

impl Batches {
    /// Adds a task, to the last batch if that has room.
    pub fn push(&mut self, task: Task) {
        let bytes = task.jobs().iter().map(Job::bytes_to_read).fold(0, u64::saturating_add);
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

/// Does tasks until their channel ends, on as many threads as are worth it; blocks until done.
///
/// With one thread, strictly in order. A closed outcome channel means "stop".
pub fn process_all(
    concurrency: &Concurrency,
    tasks: Receiver<Vec<Task>>,
    outcomes: &Sender<Vec<Outcome>>,
    cancel: &Cancel,
    progress: &Progress,
) {
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
    let reader = || FileReader::new(cancel.clone());
    let most_ahead = files_ahead(concurrency.threads().most);
    concurrency.divide("hash", next, reader, |batch, reader, meter| {
        let mut done = Vec::with_capacity(batch.len());
        // Cancelled or not: what is done is written.
        let _ = read_batch(batch, most_ahead, reader, meter, &mut done, progress);
        reader.hash_gathered(&mut done);
        match outcomes.blocking_send(done) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
}

/// Reads the files of a batch and adds what became of them; `None` if it was cancelled.
fn read_batch(
    batch: Vec<Task>,
    most_ahead: usize,
    reader: &mut FileReader,
    meter: &mut Meter<'_>,
    done: &mut Vec<Outcome>,
    progress: &Progress,
) -> Option<()> {
    let mut batch = VecDeque::from(batch);
    while let Some(task) = batch.pop_front() {
        let amount = Amount::of(task.jobs());
        match task {
            Task::One(job) => {
                let begun = reader.begin(job);
                reader.finish(begun, meter, done)?;
            }
            Task::Twins(jobs) => reader.process_twins(jobs, meter, done)?,
        }
        amount.note_done(reader, progress);
        // What that took says whether it is worth it to ask for others before they are needed.
        if meter.waits() {
            let next = batch.drain(..most_ahead.min(batch.len())).flat_map(Task::into_jobs);
            let ahead: Vec<_> =
                next.map(|job| (Amount::of(std::slice::from_ref(&job)), reader.expect(job))).collect();
            for (amount, begun) in ahead {
                reader.finish(begun, meter, done)?;
                amount.note_done(reader, progress);
            }
        }
    }
    Some(())
}

/// How many files each of so many threads may have open at once: all of them half of what the system allows.
fn files_ahead(threads: usize) -> usize {
    let wanted = threads.saturating_mul(2 * TASKS_IN_BATCH);
    os::allow_open_files(wanted) / threads.max(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::{Adaptation, Threads};
    use crate::model::pending::{Finding, Stage};
    use crate::model::stamp::Nanos;
    use crate::processing::testing::job;

    /// What is found, without the times at which it was: each name with the finding in words.
    fn read(tasks: Vec<Task>, most_ahead: usize, waits: bool) -> Vec<(Box<[u8]>, String)> {
        let concurrency = Concurrency::after(Threads::exactly(1), Some(Adaptation { allowed: 1, waits }));
        let (mut done, progress) = (Vec::new(), Progress::default());
        let mut reader = FileReader::new(Cancel::default());
        let read = read_batch(tasks, most_ahead, &mut reader, &mut concurrency.meter(), &mut done, &progress);
        reader.hash_gathered(&mut done);
        assert!(read.is_some());
        assert_eq!(progress.done_files.get(), done.len() as u64);
        let in_words = |outcome: Outcome| {
            let found = match outcome.finding {
                Finding::Hashed { digest, sample, .. } => format!("{digest:?} {sample:?}"),
                Finding::Sampled { sample, .. } => format!("{sample:?}"),
                other => format!("{other:?}"),
            };
            (outcome.key.name, found)
        };
        done.into_iter().map(in_words).collect()
    }

    #[test]
    fn the_same_is_found_however_many_files_are_asked_for_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let mut jobs = Vec::new();
        for (number, length) in [1, 0, 4000, 200_000, 5_000_000, 100_000, 300_000].into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, vec![u8::try_from(number).unwrap(); length]).unwrap();
            jobs.extend([Stage::Size, Stage::Sample, Stage::Everything].map(|stage| job(&path, stage)));
        }
        let mut gone = jobs[0].clone();
        gone.names[0].key.name = b"gone".as_slice().into();
        let mut replaced = jobs[0].clone();
        replaced.stamp.size += 1;
        let mut touched = jobs[6].clone();
        touched.stamp.ctime = Nanos(touched.stamp.ctime.0 - 1);
        let twins = vec![jobs[20].clone(), jobs[20].clone()];
        jobs.splice(1..1, [gone, replaced, touched]);
        let tasks = || {
            let single = jobs.iter().cloned().map(Task::One);
            single.chain([Task::Twins(twins.clone())]).collect::<Vec<_>>()
        };
        let plain = read(tasks(), 64, false);
        assert_eq!(plain.len(), jobs.len() + twins.len());
        for most_ahead in [0, 1, 3, 64] {
            assert_eq!(read(tasks(), most_ahead, true), plain, "{most_ahead}");
        }
    }

    #[test]
    fn no_more_files_are_open_than_may_be() {
        assert!((1..=TASKS_IN_BATCH).contains(&files_ahead(1)));
        assert_eq!(files_ahead(usize::MAX / 1000), 0);
    }
}
