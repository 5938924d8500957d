//! Figures of the run at this moment, counted by the workers and read by whoever shows them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What the run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing to show yet.
    Starting,
    /// Walking directories.
    Discovery,
    /// Asking the index what is to be read.
    Selecting,
    /// Reading files.
    Processing,
    /// Writing the last results.
    Finishing,
    /// Waiting for work.
    Waiting,
}

const PHASES: [Phase; 6] = [
    Phase::Starting,
    Phase::Discovery,
    Phase::Selecting,
    Phase::Processing,
    Phase::Finishing,
    Phase::Waiting,
];

/// Counters without locks; the order between them is not kept.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    /// Directories listed.
    pub directories: Counter,
    /// Files found.
    pub files: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Links, fifos, sockets and devices passed over.
    pub passed_over: Counter,
    /// Names to be read in this run, as far as known.
    pub total_files: Counter,
    /// Bytes to be read in this run, as far as known.
    pub total_bytes: Counter,
    /// Names done.
    pub done_files: Counter,
    /// Bytes done; a file with several names counts for each, as in the total.
    pub done_bytes: Counter,
    /// Bytes read, of files that could be.
    pub read_bytes: Counter,
}

impl Progress {
    /// What the run is at.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        let index = PHASES.iter().position(|other| *other == phase).unwrap_or_default();
        self.phase.store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
