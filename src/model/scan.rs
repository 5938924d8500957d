//! Roots, and the history of what was done to them.

use std::path::PathBuf;

use super::settings::ScanSettings;
use super::stamp::Nanos;
use super::upkeep::Upkeep;
use super::volume::{Extent, Location, VolumeIdentity};

/// A root's row in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(pub i64);

/// A scan's row in the index, which is also its generation: each scan's is larger than any before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanId(pub i64);

/// A directory that the user asked to keep scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its row.
    pub id: RootId,
    /// Where it lies.
    pub extent: Extent,
    /// The identity of its volume.
    pub identity: VolumeIdentity,
    /// Its absolute path when it was added or last scanned.
    pub path: PathBuf,
    /// The options it is scanned with.
    pub settings: ScanSettings,
    /// How it is kept up to date.
    pub upkeep: Upkeep,
    /// The places its walks entered: itself, filesystems mounted below it, and `linked`.
    pub extents: Vec<Extent>,
    /// Those of them that only links lead to.
    pub linked: Vec<Extent>,
    /// Its latest walk from its top, if there was one.
    pub last_scan: Option<LastScan>,
}

impl Root {
    /// Where it lies, whatever the index.
    pub fn location(&self) -> Location {
        Location { identity: self.identity.clone(), path: self.extent.path.clone() }
    }

    /// True if some of what it covers lies in these subtrees.
    pub fn overlaps(&self, extents: &[Extent]) -> bool {
        self.extents.iter().any(|own| extents.iter().any(|other| own.intersection(other).is_some()))
    }

    /// True if the latest walk did not reach its end, so that the index may lack files.
    pub fn needs_discovery(&self) -> bool {
        self.last_scan.as_ref().is_none_or(|scan| !scan.discovered)
    }
}

/// How a root's latest scan went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastScan {
    /// Its generation.
    pub id: ScanId,
    /// How it ended.
    pub status: ScanStatus,
    /// When it began.
    pub started_at: Nanos,
    /// When it ended, if it did.
    pub ended_at: Option<Nanos>,
    /// True if the walk reached its end.
    pub discovered: bool,
}

/// What began a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanKind {
    /// `dupfind scan DIR`
    Scan,
    /// `dupfind scan --files-from`
    FilesFrom,
    /// `dupfind resume`
    Resume,
    /// A watcher that began to watch.
    Startup,
    /// `dupfind reconcile`, or a watcher's schedule.
    Reconcile,
    /// What a watcher was told of, in an interval.
    Watch,
    /// `dupfind verify`
    Verify,
}

impl ScanKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Scan,
        Self::FilesFrom,
        Self::Resume,
        Self::Startup,
        Self::Reconcile,
        Self::Watch,
        Self::Verify,
    ];

    /// The word for it in the index and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::FilesFrom => "files-from",
            Self::Resume => "resume",
            Self::Startup => "startup",
            Self::Reconcile => "reconcile",
            Self::Watch => "watch",
            Self::Verify => "verify",
        }
    }
}

/// How a scan stands or ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScanStatus {
    /// It is at work.
    Running,
    /// Both phases reached their end.
    #[default]
    Completed,
    /// Discovery reached its end; processing was put off by `--discover-only`.
    Discovered,
    /// It was stopped, or its process died.
    Interrupted,
    /// It could not go on.
    Failed,
}

impl ScanStatus {
    /// Every status.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Completed, Self::Discovered, Self::Interrupted, Self::Failed];

    /// The word for it in the index and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Discovered => "discovered",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// What a scan did, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Directories listed.
    pub directories: u64,
    /// Files listed that are of interest.
    pub files_seen: u64,
    /// Their sizes added up, in bytes.
    pub bytes_seen: u64,
    /// Rows that were new.
    pub added: u64,
    /// Rows whose file had changed.
    pub updated: u64,
    /// Rows whose file was gone.
    pub removed: u64,
    /// Names whose content was hashed, wholly or at three places.
    pub hashed: u64,
    /// Bytes read for it.
    pub bytes_read: u64,
    /// Files and directories that could not be read.
    pub problems: u64,
    /// Changes that a watcher was told of.
    pub events: u64,
}

impl ScanCounts {
    /// Rows that are not what they were.
    pub fn changes(&self) -> u64 {
        self.added + self.updated + self.removed
    }

    /// True if a row is not what it was.
    pub fn have_changes(&self) -> bool {
        self.changes() > 0
    }
}

impl std::ops::Add for ScanCounts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::AddAssign for ScanCounts {
    fn add_assign(&mut self, other: Self) {
        self.directories += other.directories;
        self.files_seen += other.files_seen;
        self.bytes_seen += other.bytes_seen;
        self.added += other.added;
        self.updated += other.updated;
        self.removed += other.removed;
        self.hashed += other.hashed;
        self.bytes_read += other.bytes_read;
        self.problems += other.problems;
        self.events += other.events;
    }
}
