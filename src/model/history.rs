//! Runs that came to an end, or did not, and what the index held then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::path::VolumePath;
use super::scan::{RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use super::stamp::Nanos;
use super::volume::{Extent, Places};

/// Which runs are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryFilter {
    /// Those of one root; `None` is all, also those of no root.
    pub root: Option<RootId>,
    /// At most so many, the newest.
    pub limit: u64,
}

/// A run of any kind: one walk, one rereading, or what a watcher did in an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its row, and the generation of what it listed.
    pub id: ScanId,
    /// What began it.
    pub kind: ScanKind,
    /// How it stands or ended; interrupted as soon as its process is gone, whatever its row says.
    pub status: ScanStatus,
    /// The root it was of; `None` if files were named one by one.
    pub root: Option<RunRoot>,
    /// When it began.
    pub started_at: Nanos,
    /// When its walk reached its end, if it did.
    pub discovered_at: Option<Nanos>,
    /// When it ended; unknown of one whose process died.
    pub ended_at: Option<Nanos>,
    /// What it did; of one that has not ended, nothing is known yet.
    pub counts: ScanCounts,
    /// Why it failed or was interrupted, if somebody said so.
    pub error: Option<String>,
    /// What the whole index held when it ended, if it was counted then.
    pub figures: Option<Figures>,
}

/// The root that a run was of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRoot {
    /// Its row.
    pub id: RootId,
    /// Where it lies.
    pub extent: Extent,
    /// Its absolute path when it was last scanned.
    pub path: PathBuf,
    /// The directory below which the run looked, if not the whole root.
    pub within: Option<VolumePath>,
}

/// A path of this host, or of the one that is named.
pub type HostPath = (Option<Arc<str>>, PathBuf);

impl Run {
    /// How long it took, if it ended.
    pub fn duration(&self) -> Option<Duration> {
        self.ended_at.map(|end| self.started_at.until(end))
    }
}

impl RunRoot {
    /// The root's path; with its host, if that is another one.
    pub fn place(&self, places: &Places) -> HostPath {
        match places.elsewhere(self.extent.volume, &self.extent.path) {
            Some((host, path)) => (Some(host), path),
            None => (None, self.path.clone()),
        }
    }

    /// The path of the directory below which the run looked, in the same form.
    pub fn place_within(&self, places: &Places) -> Option<HostPath> {
        let within = self.within.as_ref()?;
        Some(match places.elsewhere(self.extent.volume, within) {
            Some((host, path)) => (Some(host), path),
            None => (None, places.show(self.extent.volume, within).1),
        })
    }
}

/// What the whole index held at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Names.
    pub files: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Groups of duplicates.
    pub groups: u64,
    /// Physical files that a group could do without.
    pub redundant_files: u64,
    /// What removing those would free.
    pub reclaimable_bytes: u64,
}

/// The figures of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiguresAt {
    /// The moment.
    pub at: Nanos,
    /// What the index held then.
    pub figures: Figures,
}
