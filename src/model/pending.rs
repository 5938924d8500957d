//! What processing is asked to read, and what it answers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::{Digest, Sample};
use super::listing::{DirectoryId, Problem};
use super::stamp::{Nanos, Stamp};
use super::volume::{Extent, VolumeId};
use super::worker::LeaseId;

/// Files of at most this many bytes are read whole at once; larger ones are sampled first.
///
/// A sample costs three requests, about what reading 128 KiB costs a disk.
pub const SMALL_FILE: u64 = 128 * 1024;

/// Bytes read at each of the three places of a sample: with less, headers that media files share
/// would pass for content; more costs a disk more than the seek.
pub const SAMPLE_PIECE: usize = 16 * 1024;

/// Bytes read for a sample.
pub const SAMPLE_BYTES: u64 = 3 * SAMPLE_PIECE as u64;

/// A file's row in the index, as long as the file does not change: then it gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub i64);

/// A file's row in the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Its number, where the index numbers files: a file that changed gets another.
    pub id: FileId,
    /// Its directory.
    pub directory: DirectoryId,
    /// Its name there.
    pub name: Box<[u8]>,
}

/// Which files processing takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Every file that has no hash, below roots with hash all, read whole.
    Everything,
    /// Files that share their size with another physical file and have neither sample nor hash:
    /// small ones are read whole, large ones at three places.
    Size,
    /// Files that share size and sample with another physical file and have no hash: read whole.
    Sample,
}

/// A moment of an index: another one if somebody else may have changed what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub i64);

/// What the index may still hold to be read when all was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Nobody knows: the index has to be asked.
    Perhaps,
    /// Files of which a sample was read.
    Sampled,
    /// Nothing at this moment: all whose size is shared was read while it was found.
    Nothing(Moment),
}

/// Which part of the index is to be completed.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The subtrees whose files are to be compared, with each other and with all others.
    pub extents: Vec<Extent>,
    /// Directories, without what lies below them, of which the same holds.
    pub directories: Vec<Extent>,
    /// Volumes that can be reached now; files elsewhere wait.
    pub reachable: Vec<VolumeId>,
    /// True for one that only helps: what others have chosen already is as good as a choice of its own.
    pub helps: bool,
}

/// A physical file to be read, under every name that waits for it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What the index knows of it; the same for all names.
    pub stamp: Stamp,
    /// Its names; never empty.
    pub names: Vec<PendingName>,
    /// What is to be computed.
    pub stage: Stage,
    /// The piece of work it belongs to, where several workers share the index.
    pub lease: Option<LeaseId>,
    /// The hash it should have, if it is read to see whether it still has it: only with the very stamp, then.
    pub known: Option<Digest>,
    /// Its sample, if that is known: another file of its size with the same one is probably its twin.
    pub sample: Option<Sample>,
}

impl Job {
    /// What became of a name of it.
    pub fn outcome(&self, name: PendingName, finding: Finding) -> Outcome {
        let Self { stamp, stage, lease, known, .. } = *self;
        Outcome { key: name.key, expected: stamp, finding, stage, lease, known }
    }

    /// What became of it, for each of its names.
    pub fn outcomes(&self, finding: &Finding) -> impl Iterator<Item = Outcome> {
        self.names.iter().map(|name| self.outcome(name.clone(), finding.clone()))
    }

    /// The bytes that are read for it.
    pub fn bytes_to_read(&self) -> u64 {
        if self.is_sampled() { SAMPLE_BYTES } else { self.stamp.size }
    }

    /// True if only three places of it are read.
    pub fn is_sampled(&self) -> bool {
        self.stage == Stage::Size && self.stamp.size > SMALL_FILE
    }
}

/// One name of a file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingName {
    /// Its row.
    pub key: FileKey,
    /// Where its directory is.
    pub directory: Arc<Path>,
}

impl PendingName {
    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.directory.join(OsStr::from_bytes(&self.key.name))
    }
}

/// What became of one name, to be written back.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its row.
    pub key: FileKey,
    /// The stamp the row had when it was taken on: if it has another by now, nothing is written.
    pub expected: Stamp,
    /// The finding.
    pub finding: Finding,
    /// What it was read for.
    pub stage: Stage,
    /// The piece of work it answers.
    pub lease: Option<LeaseId>,
    /// The hash it should have, if it was read to see whether it still has it.
    pub known: Option<Digest>,
}

impl Outcome {
    /// True if the file has to be read once more by the next scan.
    pub fn is_racy(&self) -> bool {
        matches!(self.finding, Finding::Hashed { racy: true, .. } | Finding::Sampled { racy: true, .. })
    }

    /// Of a file that is verified: true if it has another hash, or cannot be read any more, though nothing was changed.
    pub fn differs(&self) -> bool {
        match self.finding {
            Finding::Hashed { digest, .. } => self.known != Some(digest),
            Finding::Failed(Problem::Io(_) | Problem::EndsEarly) => true,
            Finding::Failed(_) | Finding::Changed(_) | Finding::Sampled { .. } => false,
        }
    }
}

/// What reading a file found.
#[derive(Debug, Clone)]
pub enum Finding {
    /// The whole content was read.
    Hashed {
        /// Its hash.
        digest: Digest,
        /// Its sample, for a file larger than [`SMALL_FILE`].
        sample: Option<Sample>,
        /// The ctime it has now; only that may differ from what was expected.
        ctime: Nanos,
        /// See [`Stamp::is_racy`].
        racy: bool,
    },
    /// Three places were read.
    Sampled {
        /// Their hash.
        sample: Sample,
        /// The ctime it has now; only that may differ from what was expected.
        ctime: Nanos,
        /// See [`Stamp::is_racy`].
        racy: bool,
    },
    /// The file is no longer what the index knows; this is what it is now.
    Changed(Stamp),
    /// It could not be read.
    Failed(Problem),
}

/// What the index holds in some subtrees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtentTotals {
    /// Directories.
    pub directories: u64,
    /// Names.
    pub files: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Files and directories that could not be read.
    pub problems: u64,
    /// Directories of these.
    pub unreadable_directories: u64,
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingTotals {
    /// Names.
    pub files: u64,
    /// Their bytes: a sample counts what it reads; a file with several names counts for each.
    pub bytes: u64,
}
