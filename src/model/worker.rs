//! Processes that write to an index, and the pieces of work they share.

use std::sync::Arc;
use std::time::Duration;

use crate::progress::Progress;

/// A worker's row in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub i64);

/// A piece of work that one worker holds until its files are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A process that is about to join.
#[derive(Debug, Clone)]
pub struct Participant {
    /// The host it runs on.
    pub host: Arc<str>,
    /// What it was asked to do: the subcommand.
    pub task: &'static str,
    /// Its figures; the index looks at them now and then.
    pub progress: Arc<Progress>,
}

/// A process that joined, as the others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its row.
    pub id: WorkerId,
    /// The host it runs on.
    pub host: String,
    /// Its process number there.
    pub process: u32,
    /// What it was asked to do: the subcommand.
    pub task: String,
    /// How long it has been there.
    pub age: Duration,
    /// How long ago it gave its last sign of life.
    pub silence: Duration,
    /// False once it has been silent for so long that what it held is free.
    pub is_alive: bool,
    /// Pieces of work it holds.
    pub leases: u64,
    /// Names in them.
    pub leased_files: u64,
    /// Files it has read.
    pub files: u64,
    /// Bytes it has read.
    pub bytes: u64,
    /// Files it read in a second, of late.
    pub files_per_second: f64,
    /// Bytes it read in a second, of late.
    pub bytes_per_second: f64,
}

/// How fast a worker is, from one sign of life to the next.
#[derive(Debug)]
pub struct Pace {
    files: u64,
    bytes: u64,
    at: std::time::Instant,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignOfLife {
    /// Files it has read.
    pub files: u64,
    /// Bytes it has read.
    pub bytes: u64,
    /// Files it read in a second since the last one.
    pub files_per_second: f64,
    /// Bytes it read in a second since the last one.
    pub bytes_per_second: f64,
}

impl Pace {
    /// Begins to measure.
    pub fn start(progress: &Progress) -> Self {
        let (files, bytes) = (progress.done_files.get(), progress.read_bytes.get());
        Self { files, bytes, at: std::time::Instant::now() }
    }

    /// How long ago the last sign of life was.
    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// The next sign of life.
    pub fn take(&mut self, progress: &Progress) -> SignOfLife {
        let now = Self::start(progress);
        let seconds = now.at.duration_since(self.at).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with two digits")]
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let sign = SignOfLife {
            files: now.files,
            bytes: now.bytes,
            files_per_second: rate(now.files, self.files),
            bytes_per_second: rate(now.bytes, self.bytes),
        };
        *self = now;
        sign
    }
}
