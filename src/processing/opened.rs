//! A file that is open, and how it is asked for its content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use crate::concurrency::Meter;
use crate::model::listing::Problem;
use crate::model::pending::{SAMPLE_PIECE, SMALL_FILE};
use crate::model::stamp::{Clock, Nanos, Stamp};
use crate::os;

/// Of a larger file the system reads ahead by itself, and better: what it is asked for comes in single pages, of which
/// Linux puts no more than 1 MiB into a request, and what it foresees in large folios and requests of 4 MiB.
const MOST_EXPECTED: u64 = 1024 * 1024;

/// A file that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// What it was when it was looked at, or else what it was listed as.
    pub(super) stamp: Stamp,
    /// What its inode is told apart by (see [`Stamp::of`]), if it was looked at.
    pub(super) device: Option<u64>,
    pub(super) clock: Clock,
    pub(super) from: Nanos,
    /// True if the system was asked for its content before it was needed.
    pub(super) is_expected: bool,
}

/// A read that ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Cancelled,
    /// The file is not what the index knows, or changed under the reader; this is what it is now.
    Changed(Stamp),
    Failed(Problem),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(Problem::of(&error))
    }
}

impl Opened {
    /// Its size in bytes, when it was opened.
    pub(super) fn size(&self) -> u64 {
        self.stamp.size
    }

    /// True if it has a sample.
    pub(super) fn is_large(&self) -> bool {
        self.size() > SMALL_FILE
    }

    /// Reads as much as comes at once from an offset on; 0 bytes at the end.
    pub(super) fn read_some(
        &self,
        buffer: &mut [u8],
        offset: u64,
        meter: &mut Meter<'_>,
    ) -> io::Result<usize> {
        let asked = Instant::now();
        let length = self.file.read_at(buffer, offset)?;
        if length > 0 {
            self.note(asked, length, meter);
        }
        Ok(length)
    }

    /// Fills a buffer from an offset on.
    pub(super) fn read_exactly(
        &self,
        buffer: &mut [u8],
        offset: u64,
        meter: &mut Meter<'_>,
    ) -> Result<(), Stop> {
        let asked = Instant::now();
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => {
                self.note(asked, buffer.len(), meter);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.why_it_ended()),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&self, asked: Instant, length: usize, meter: &mut Meter<'_>) {
        if self.is_expected {
            meter.note_expected(length as u64);
        } else {
            meter.note(asked.elapsed(), length as u64);
        }
    }

    /// Asks the system for what will be read.
    pub(super) fn expect(&mut self, is_sampled: bool, buffer: &mut [u8]) {
        if is_sampled {
            let [_, middle, end] = places_of_sample(self.size());
            // As if the rest were to follow: if it is to, the system knows (see `forget_sample`).
            os::begin_to_read(&self.file, &mut buffer[..SAMPLE_PIECE]);
            for offset in [middle, end] {
                os::expect_to_read(&self.file, offset, SAMPLE_PIECE as u64);
            }
        } else if self.size() <= MOST_EXPECTED {
            os::expect_to_read(&self.file, 0, self.size());
        } else {
            return;
        }
        self.is_expected = true;
    }

    /// Makes the system forget what a sample left in memory of the middle and the end: pages that are there already stand
    /// in the way of large ones, and small requests cost a disk a quarter of its time. Where the beginning was read, not asked
    /// for, stands the mark from which reading on is foreseen (Linux 6.18, `page_cache_async_ra`).
    pub(super) fn forget_sample(&self) {
        if !self.is_large() || self.is_expected {
            return;
        }
        let [_, middle, end] = places_of_sample(self.size());
        for offset in [middle, end] {
            os::forget_cached(&self.file, offset..offset + SAMPLE_PIECE as u64);
        }
    }

    /// Looks whether it changed while it was read; returns its ctime, and whether it may have changed without
    /// showing it: see [`Stamp::is_racy`].
    pub(super) fn is_still_the_same(&self) -> Result<(Nanos, bool), Stop> {
        let stat = os::stat_open(&self.file)?;
        let after = Stamp::of(&stat, self.device.unwrap_or(stat.device));
        if after != self.stamp {
            return Err(Stop::Changed(after));
        }
        Ok((after.ctime, after.is_racy(self.from, Nanos::now(), self.clock)))
    }

    /// Why nothing could be read where its size promises something: it was truncated, or never was as long.
    pub(super) fn why_it_ended(&self) -> Stop {
        match self.is_still_the_same() {
            Err(stop) => stop,
            Ok(_) => Stop::Failed(Problem::EndsEarly),
        }
    }
}

/// Where the three places of a file larger than a sample begin.
pub(super) fn places_of_sample(size: u64) -> [u64; 3] {
    let piece = SAMPLE_PIECE as u64;
    [0, (size - piece) / 2, size - piece]
}
