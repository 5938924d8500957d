//! Linux: `/proc/self/mountinfo`, `statfs`, and `/proc/self/fd` for long paths.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, CWD, Mode, OFlags};
use rustix::io::ReadWriteFlags;

use super::MountPoint;

/// The mount table of this process, in the order in which filesystems were mounted.
pub fn mount_points() -> io::Result<Vec<MountPoint>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// One line of mountinfo, see `proc_pid_mountinfo(5)`:
/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse_mount(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = parse_device(fields.nth(2)?)?;
    let root = unescape(fields.next()?);
    let at = unescape(fields.next()?);
    let mut after_dash = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(after_dash.next()?).into_owned();
    let source = unescape(after_dash.next()?);
    Some(MountPoint { device, root, at, kind, source })
}

/// `98:0`
fn parse_device(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes space, tab, newline and backslash as three octal digits: `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let octal = if byte == b'\\' { tail.get(..3) } else { None };
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if value.is_some() {
            rest = &tail[3..];
        }
        plain.push(value.unwrap_or(byte));
    }
    plain
}

/// Types of local file systems, see `statfs(2)` and `linux/magic.h`; the upper layer of overlayfs is one, too.
const LOCAL: [u64; 8] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0x794c_7630, // overlayfs
];

/// True if an open directory lies on a file system whose times this host's clock sets.
pub(super) fn keeps_own_times(directory: &OwnedFd) -> bool {
    let kind = rustix::fs::fstatfs(directory).map(|status| u64::try_from(status.f_type).unwrap_or_default());
    kind.is_ok_and(|kind| LOCAL.contains(&kind))
}

/// Asks for a part of a file to be read into memory; nobody waits until it is.
pub fn expect_to_read(file: &File, offset: u64, length: u64) {
    // It is a hint: without it the same is read later.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::WillNeed);
}

/// Begins to read a file, and waits for nothing: what is not in memory yet is on its way afterwards.
///
/// Other than with [`expect_to_read`], the system takes the reader for one who goes on: it reads further than it was asked
/// to, and marks where whoever comes there, even through another descriptor, finds the next part asked for already.
pub fn begin_to_read(file: &File, buffer: &mut [u8]) {
    // A hint, too: what came at once is read again, and so is what the file system cannot read without waiting.
    let _ = rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], 0, ReadWriteFlags::NOWAIT);
}

/// A limit of inotify, such as `max_user_watches`; see `inotify(7)`.
pub fn inotify_limit(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
}

/// The number `statfs` gives the filesystem that a path lies on (`f_fsid`).
pub fn filesystem_number(path: &Path) -> io::Result<u64> {
    Ok(rustix::fs::statvfs(path)?.f_fsid)
}

/// The largest pages that Linux has anywhere (arm64, ppc64), in bytes.
const LARGEST_PAGE: u64 = 64 * 1024;

/// Asks the system to forget what it remembers of a part of a file, so that the disk is asked when it is read: all pages
/// that the part touches. What waits to be written, or is mapped by somebody, stays.
pub fn forget_cached(file: &File, part: Range<u64>) {
    let first = part.start - part.start % LARGEST_PAGE;
    // None is all that follows.
    let length = (part.end - first).checked_next_multiple_of(LARGEST_PAGE).and_then(NonZeroU64::new);
    // It is a wish: the file is read either way.
    let _ = rustix::fs::fadvise(file, first, length, Advice::DontNeed);
}

/// A file opened with this keeps its time of last access: reading changes nothing, and nothing is written for it.
pub(super) const WITHOUT_ACCESS_TIME: OFlags = OFlags::NOATIME;

/// A directory opened with this need not be readable: its files are found by their names all the same.
pub(super) const TO_LOOK_INTO: OFlags = OFlags::PATH;

/// `PATH_MAX` without room for one more name and its separators (limits.h, `path_resolution(7)`).
const LONGEST_DIRECTORY: usize = 4096 - 256 - 2;

/// A path that a system call takes, for a path of any length.
///
/// A path beyond `PATH_MAX` is opened piece by piece; the last directory opened then stands in for
/// what came before, as `/proc/self/fd/N`, for as long as this value lives.
#[derive(Debug)]
pub(super) struct ShortPath<'a> {
    given: &'a Path,
    replaced: Option<(PathBuf, OwnedFd)>,
}

impl<'a> ShortPath<'a> {
    /// Shortens `path`, if it has to be: only then can it fail.
    pub(super) fn of(path: &'a Path) -> io::Result<Self> {
        let mut rest = path.as_os_str().as_bytes();
        if rest.len() <= LONGEST_DIRECTORY {
            return Ok(Self { given: path, replaced: None });
        }
        let mut anchor: Option<OwnedFd> = None;
        while rest.len() > LONGEST_DIRECTORY {
            let cut = rest[1..LONGEST_DIRECTORY].iter().rposition(|byte| *byte == b'/');
            let cut = cut.ok_or(io::ErrorKind::InvalidFilename)? + 1;
            let piece = Path::new(OsStr::from_bytes(&rest[..cut]));
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = match &anchor {
                None => rustix::fs::openat(CWD, piece, flags, Mode::empty())?,
                Some(directory) => rustix::fs::openat(directory, piece, flags, Mode::empty())?,
            };
            anchor = Some(opened);
            rest = &rest[cut + 1..];
        }
        let replaced = anchor.map(|fd| {
            let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            (short.join(OsStr::from_bytes(rest)), fd)
        });
        Ok(Self { given: path, replaced })
    }

    /// The path to hand to the system.
    pub(super) fn as_path(&self) -> &Path {
        self.replaced.as_ref().map_or(self.given, |(short, _)| short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_read_with_its_escapes() {
        let line = br"36 35 98:0 /sub\040dir /mnt/a\134b rw shared:1 master:2 - ext4 /dev/vda rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.device, rustix::fs::makedev(98, 0));
        assert_eq!(mount.root, b"/sub dir");
        assert_eq!(mount.at, br"/mnt/a\b");
        assert_eq!((mount.kind.as_str(), &mount.source[..]), ("ext4", &b"/dev/vda"[..]));
        assert_eq!(parse_mount(b""), None);
    }

    #[test]
    fn this_system_has_a_root_mount() {
        assert!(mount_points().unwrap().iter().any(|mount| mount.at == b"/"));
    }
}
