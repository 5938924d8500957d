//! What tells that a file has not changed, and when that may be believed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; negative before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

impl Nanos {
    /// The present moment. A clock beyond the year 2262 saturates.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
    }

    /// From whole seconds and the nanoseconds of the second begun.
    pub fn from_parts(seconds: i64, nanos: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// How long it is from this moment to a later one; nothing to an earlier one, as when a clock was set back.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_nanos(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or_default())
    }

    fn is_between(self, from: Self, to: Self) -> bool {
        (from..=to).contains(&self)
    }

    fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// The identity and the version of a file's content, as far as the filesystem tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Last modification.
    pub mtime: Nanos,
    /// Last change of the inode; unlike mtime, programs cannot set it back.
    pub ctime: Nanos,
    /// The physical file within its volume: equal for hard links.
    pub inode: u64,
}

/// How coarse a timestamp may be: FAT keeps two seconds, the coarsest filesystem in use.
const COARSEST_TIMESTAMP: Duration = Duration::from_secs(2);

/// The same where times are known to be fine: the kernel's clock for them ticks every 1 to 10 ms (`CONFIG_HZ`).
const FINE_TIMESTAMP: Duration = Duration::from_millis(100);

/// How exact the times of files are where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Nobody knows, or they are another host's.
    Unknown,
    /// This host's own, and finer than a second if the file system keeps them so.
    Own,
}

/// What the system says of a file or directory, from whichever call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// The device of its filesystem.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// True for a regular file.
    pub is_file: bool,
    /// Length in bytes.
    pub size: u64,
    /// Last modification.
    pub mtime: Nanos,
    /// Last change of the inode.
    pub ctime: Nanos,
    /// How many names it has.
    pub links: u64,
}

impl From<&Metadata> for FileStat {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            is_file: metadata.is_file(),
            size: metadata.len(),
            mtime: Nanos::from_parts(metadata.mtime(), metadata.mtime_nsec()),
            ctime: Nanos::from_parts(metadata.ctime(), metadata.ctime_nsec()),
            links: metadata.nlink(),
        }
    }
}

impl Stamp {
    /// The stamp of a file in a directory on device `directory_device`.
    ///
    /// Where a file reports another device than its directory (overlayfs without `xino` does, for
    /// the layer below), inode numbers of two devices meet in one directory: the device is mixed
    /// into the number, so that two files never pass for one.
    pub fn of(stat: &FileStat, directory_device: u64) -> Self {
        let foreign = stat.device ^ directory_device;
        // Knuth's multiplicative constant (2^64 / golden ratio) spreads the device over all bits.
        let inode = stat.inode ^ foreign.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { size: stat.size, mtime: stat.mtime, ctime: stat.ctime, inode }
    }

    /// True if a change during `from..to` could leave this very stamp behind, because the file was
    /// last touched within one tick of the clock around it (git calls such a file "racily clean").
    /// What was read then is kept but read once more by the next scan.
    pub fn is_racy(&self, from: Nanos, to: Nanos, clock: Clock) -> bool {
        // A time below the millisecond shows that the file system keeps such (ext3 and FAT do not).
        let is_fine = clock == Clock::Own && self.ctime.0 % 1_000_000 != 0;
        let tick = if is_fine { FINE_TIMESTAMP } else { COARSEST_TIMESTAMP };
        let tick = i64::try_from(tick.as_nanos()).unwrap_or(i64::MAX);
        let (from, to) = (from.shifted(-tick), to.shifted(tick));
        self.mtime.is_between(from, to) || self.ctime.is_between(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime: i64, ctime: i64) -> Stamp {
        Stamp { size: 1, mtime: Nanos(mtime), ctime: Nanos(ctime), inode: 1 }
    }

    #[test]
    fn only_a_recent_change_is_racy() {
        let second = 1_000_000_000;
        let (from, to) = (Nanos(100 * second), Nanos(101 * second));
        let is_racy = |stamp: Stamp| stamp.is_racy(from, to, Clock::Unknown);
        assert!(is_racy(stamp(99 * second, 0)));
        assert!(is_racy(stamp(0, 102 * second)));
        assert!(!is_racy(stamp(97 * second, 90 * second)));
        assert!(!is_racy(stamp(900 * second, 0)), "a date in the future is no change");
    }

    #[test]
    fn where_times_are_fine_only_the_moment_itself_is_racy() {
        let second = 1_000_000_000;
        let (from, to) = (Nanos(100 * second), Nanos(101 * second));
        let half_a_second_before = stamp(99 * second + second / 2, 99 * second + second / 2 + 1);
        assert!(!half_a_second_before.is_racy(from, to, Clock::Own));
        assert!(half_a_second_before.is_racy(from, to, Clock::Unknown));
        let whole_milliseconds = stamp(99 * second + second / 2, 99 * second + second / 2);
        assert!(whole_milliseconds.is_racy(from, to, Clock::Own), "it may keep whole seconds");
        assert!(stamp(0, 100 * second - 99_999_999).is_racy(from, to, Clock::Own));
    }
}
