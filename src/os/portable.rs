//! Any Unix: no mount table, so that mount points are found by their device number alone; no way
//! round `PATH_MAX`.

#![cfg_attr(target_os = "linux", expect(unreachable_pub, reason = "only its own tests see it there"))]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::fs::OFlags;

use super::MountPoint;

/// No table: the caller climbs to where the device number changes.
#[expect(clippy::unnecessary_wraps, reason = "the other systems can fail")]
pub fn mount_points() -> io::Result<Vec<MountPoint>> {
    Ok(Vec::new())
}

/// There is no such wish.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "only its own tests compile it there"))]
pub const WITHOUT_ACCESS_TIME: OFlags = OFlags::empty();

/// Only what may be listed is looked into.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "only its own tests compile it there"))]
pub const TO_LOOK_INTO: OFlags = OFlags::RDONLY;

/// Nobody is asked: a file that was read of late may be read from memory.
pub fn forget_cached(_file: &File, _part: Range<u64>) {}

/// Nobody is asked: it is read when it is needed.
pub fn expect_to_read(_file: &File, _offset: u64, _length: u64) {}

/// Nobody reads without waiting.
pub fn begin_to_read(_file: &File, _buffer: &mut [u8]) {}

/// Nobody tells.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "only its own tests compile it there"))]
pub(super) fn keeps_own_times(_directory: &std::os::fd::OwnedFd) -> bool {
    false
}

/// There is none.
pub fn inotify_limit(_name: &str) -> Option<u64> {
    None
}

/// No number that is known to be stable.
pub fn filesystem_number(_path: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A path as it was given: one that is too long fails when it is used, and is reported then.
#[derive(Debug)]
pub(super) struct ShortPath<'a>(&'a Path);

impl<'a> ShortPath<'a> {
    /// Takes the path as it is.
    #[expect(clippy::unnecessary_wraps, reason = "the other systems can fail")]
    pub(super) fn of(path: &'a Path) -> io::Result<Self> {
        Ok(Self(path))
    }

    /// The path to hand to the system.
    pub(super) fn as_path(&self) -> &Path {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_as_it_is() {
        assert_eq!(ShortPath::of(Path::new("/a")).unwrap().as_path(), Path::new("/a"));
        assert!(mount_points().unwrap().is_empty());
        assert!(filesystem_number(Path::new("/")).is_err());
        forget_cached(&tempfile::tempfile().unwrap(), 0..1);
        begin_to_read(&tempfile::tempfile().unwrap(), &mut []);
        expect_to_read(&tempfile::tempfile().unwrap(), 0, 1);
        assert_eq!(inotify_limit("max_user_watches"), None);
    }
}
