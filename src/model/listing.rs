//! What the walk hands to the index: directories and what they hold.

use std::sync::Arc;

use super::digest::Fingerprint;
use super::path::VolumePath;
use super::stamp::{FileStat, Stamp};
use super::volume::{Extent, MountedVolume};

/// A directory's row in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub i64);

/// A regular file in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: raw bytes, no slash.
    pub name: Box<[u8]>,
    /// What `lstat` said of it.
    pub stamp: Stamp,
    /// True if the physical file has other names, here or elsewhere.
    pub has_other_names: bool,
}

impl Entry {
    /// A file as the system shows it, in a directory on `directory_device`; see [`Stamp::of`].
    pub fn of(name: &[u8], stat: &FileStat, directory_device: u64) -> Self {
        Self { name: name.into(), stamp: Stamp::of(stat, directory_device), has_other_names: stat.links > 1 }
    }
}

/// How much of a directory a listing holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// All of it, in this one listing: a row that is not in it is gone.
    Whole,
    /// A piece of a directory too large for one listing. With `last`, everything has been listed:
    /// a row that was in no piece is gone.
    Piece {
        /// The first piece of the directory.
        first: bool,
        /// The last piece of the directory.
        last: bool,
    },
    /// Some of its names, looked at one by one: nothing follows about the others.
    Selected(Absent),
    /// It could not be read, or not to its end, for this reason. Nothing in it or below it is gone.
    Unreadable(Problem),
}

/// Something that was renamed on its volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The filesystem.
    pub volume: Arc<MountedVolume>,
    /// Where it was there.
    pub from: VolumePath,
    /// Where it is now.
    pub to: VolumePath,
    /// What it is now, if it is a file whose content nobody can have changed meanwhile. None for a directory: what is
    /// in it is compared when it is listed.
    pub stamp: Option<Stamp>,
}

/// A name of a physical file, as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownName {
    /// Its directory.
    pub directory: Extent,
    /// Its name there.
    pub name: Box<[u8]>,
    /// What it was when it was listed.
    pub stamp: Stamp,
}

/// Of names that were looked at, what they are not (any more).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    /// Names that are no files of interest.
    pub files: Vec<Box<[u8]>>,
    /// Names that are no directories: what was below them is gone.
    pub directories: Vec<Box<[u8]>>,
    /// Files that are too small or too large to be of interest, and have other names.
    pub linked: Vec<Stamp>,
}

/// A directory as the walk found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The filesystem it lies on.
    pub volume: Arc<MountedVolume>,
    /// Where it lies there.
    pub directory: VolumePath,
    /// How much of it this is.
    pub coverage: Coverage,
    /// Its files of interest.
    pub entries: Vec<Entry>,
}

impl Listing {
    /// The fingerprint of all that the directory holds, if this is all.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        (self.coverage == Coverage::Whole).then(|| Fingerprint::of(&self.entries))
    }

    /// What its names are not, if only some were looked at.
    pub fn absent(&self) -> Option<&Absent> {
        match &self.coverage {
            Coverage::Selected(absent) => Some(absent),
            Coverage::Whole | Coverage::Piece { .. } | Coverage::Unreadable(_) => None,
        }
    }

    /// True if it could not be read, or not to its end.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.coverage, Coverage::Unreadable(_))
    }
}

/// Why a file or a directory could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The user who runs dupfind may not read it.
    PermissionDenied,
    /// It was there when its directory was listed and is not any more.
    Vanished,
    /// It was written to while it was read, or since it was listed.
    Changed,
    /// It is no regular file any more: a fifo, a device, a link or a directory took its place.
    NotRegular,
    /// It ended before its size, and its size is still the same, as with the files that a kernel makes up.
    EndsEarly,
    /// The system's own words for anything else.
    Io(String),
}

impl Problem {
    /// What an error of the operating system means.
    pub fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Self::Vanished,
            _ => Self::Io(error.to_string()),
        }
    }

    /// The text that stands in the index and in JSON.
    pub fn to_text(&self) -> String {
        match self {
            Self::PermissionDenied => "permission denied".to_owned(),
            Self::Vanished => "vanished".to_owned(),
            Self::Changed => "changed while read".to_owned(),
            Self::NotRegular => "not a regular file any more".to_owned(),
            Self::EndsEarly => "ends before its size".to_owned(),
            Self::Io(words) => words.clone(),
        }
    }
}
