//! Everything that only one operating system offers, each with a portable fallback beside it.
//!
//! Owns the mount table, the number a filesystem goes by, open directories, and paths longer than a system
//! call takes. Refuses to know what they are used for.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::stamp::{FileStat, Nanos};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

// Compiled for the tests of every system, so that the fallback cannot rot.
#[cfg(any(not(target_os = "linux"), test))]
mod portable;
#[cfg(not(target_os = "linux"))]
use portable as system;

use system::ShortPath;
pub use system::{
    begin_to_read, expect_to_read, filesystem_number, forget_cached, inotify_limit, mount_points,
};

/// Allows this process to have so many files open, or as many as it may; returns how many that are.
pub fn allow_open_files(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return wanted };
    let wanted_limit = u64::try_from(wanted).unwrap_or(u64::MAX);
    if current >= wanted_limit {
        return wanted;
    }
    let raised = limit.maximum.map_or(wanted_limit, |most| most.min(wanted_limit)).max(current);
    let is_raised = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok();
    usize::try_from(if is_raised { raised } else { current }).unwrap_or(wanted)
}

/// A line of the system's mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The device number of the filesystem, as `stat` gives it (but for btrfs, which has one for each
    /// subvolume there).
    pub device: u64,
    /// The directory of the filesystem that is mounted; `/` for all of it.
    pub root: Vec<u8>,
    /// Where it is mounted.
    pub at: Vec<u8>,
    /// The filesystem's type, such as `ext4` or `nfs4`.
    pub kind: String,
    /// The device or the export it comes from.
    pub source: Vec<u8>,
}

/// True if [`Directory::open_to_read`] met a symbolic link.
pub fn is_link_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// An open directory: its files are opened by their names alone, without walking the whole path again for
/// each.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens a directory whose path may be of any length. On Linux it need not be one that this user may list.
    pub fn open(path: &Path) -> io::Result<Self> {
        open_directory(path, system::TO_LOOK_INTO).map(Self)
    }

    /// The device of its filesystem.
    pub fn device(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.0)?.st_dev)
    }

    /// True if the times of its files are set by this host's clock, as far as the type of the file system tells.
    pub fn keeps_own_times(&self) -> bool {
        system::keeps_own_times(&self.0)
    }

    /// Opens a file to read its content.
    ///
    /// A symbolic link is not followed (see [`is_link_refused`]), and a fifo that took the file's place does
    /// not block: the caller finds out by `fstat` that it is no regular file.
    pub fn open_to_read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| rustix::fs::openat(&self.0, name, flags, Mode::empty());
        // Only its owner may read a file without leaving a trace of it.
        let opened = match open(flags | system::WITHOUT_ACCESS_TIME) {
            Err(rustix::io::Errno::PERM) => open(flags),
            opened => opened,
        };
        Ok(File::from(opened?))
    }
}

fn open_directory(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let short = ShortPath::of(path)?;
    Ok(rustix::fs::open(short.as_path(), access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a fifo or a socket.
    Other,
}

/// An entry of a directory that is being listed.
#[derive(Debug)]
pub struct DirectoryEntry {
    name: EntryName,
    /// What it is.
    pub kind: EntryKind,
}

/// Whose name this is.
#[derive(Debug)]
enum EntryName {
    /// The system's, as it was listed.
    Listed(rustix::fs::DirEntry),
    /// The caller's, who asked for it.
    Asked(CString),
}

impl DirectoryEntry {
    /// Its name: raw bytes, no slash.
    pub fn name(&self) -> &[u8] {
        self.c_name().to_bytes()
    }

    fn c_name(&self) -> &CStr {
        match &self.name {
            EntryName::Listed(entry) => entry.file_name(),
            EntryName::Asked(name) => name,
        }
    }
}

/// A directory that is being listed: entries come in the system's order, and are looked at by their names.
#[derive(Debug)]
pub struct OpenDirectory(Dir);

impl OpenDirectory {
    /// Opens a directory whose path may be of any length.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Dir::new(open_directory(path, OFlags::RDONLY)?)?))
    }

    /// The next entry but itself and its parent; none at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<DirectoryEntry>> {
        while let Some(entry) = self.0.read().transpose()? {
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let told = match entry.file_type() {
                // Not every filesystem tells.
                FileType::Unknown => self.look_at(entry.file_name())?.map(|stat| kind_of(&stat)),
                told => Some(kind(told)),
            };
            if let Some(kind) = told {
                return Ok(Some(DirectoryEntry { kind, name: EntryName::Listed(entry) }));
            }
        }
        Ok(None)
    }

    /// The entry of this name; none if there is none.
    pub fn entry(&self, name: &[u8]) -> io::Result<Option<DirectoryEntry>> {
        let name = CString::new(name)?;
        let kind = self.look_at(&name)?.map(|stat| kind_of(&stat));
        Ok(kind.map(|kind| DirectoryEntry { kind, name: EntryName::Asked(name) }))
    }

    /// What the system says of an entry, of a symbolic link itself; none if it is gone since it was listed.
    pub fn stat(&self, entry: &DirectoryEntry) -> io::Result<Option<FileStat>> {
        Ok(self.look_at(entry.c_name())?.as_ref().map(file_stat))
    }

    fn look_at(&self, name: &CStr) -> io::Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(self.0.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn kind_of(stat: &rustix::fs::Stat) -> EntryKind {
    kind(FileType::from_raw_mode(stat.st_mode))
}

fn kind(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

/// Looks at an open file.
pub fn stat_open(file: &File) -> io::Result<FileStat> {
    Ok(file_stat(&rustix::fs::fstat(file)?))
}

fn file_stat(stat: &rustix::fs::Stat) -> FileStat {
    let nanos = |part| i64::try_from(part).unwrap_or_default();
    FileStat {
        device: stat.st_dev,
        inode: stat.st_ino,
        is_file: FileType::from_raw_mode(stat.st_mode).is_file(),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: Nanos::from_parts(stat.st_mtime, nanos(stat.st_mtime_nsec)),
        ctime: Nanos::from_parts(stat.st_ctime, nanos(stat.st_ctime_nsec)),
        links: stat.st_nlink,
    }
}

/// True if this host has a process of this number.
pub fn is_running(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // One that belongs to somebody else is there, too.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The name this machine goes by in the index.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
