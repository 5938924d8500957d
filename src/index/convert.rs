//! Between Rust's types and what databases keep: signed integers, bytes, words.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{IndexError, Result};
use crate::model::digest::{Digest, Sample};
use crate::model::group::Summary;
use crate::model::history::Figures;
use crate::model::listing::DirectoryId;
use crate::model::path::VolumePath;
use crate::model::pending::{FileId, FileKey, Job, PendingName, Stage};
use crate::model::rot::{Ending, RingPosition};
use crate::model::scan::{Root, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::stamp::{Nanos, Stamp};
use crate::model::upkeep::WatchMode;
use crate::model::volume::{Extent, Mount, Places, VolumeId, VolumeIdentity};
use crate::model::worker::LeaseId;

/// A watcher that was silent for so long is taken for dead; it says that it lives three times meanwhile.
pub(super) const WATCH_PATIENCE: Duration = Duration::from_mins(1);

/// What is known of a directory's rows before they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    /// There are none.
    New,
    /// They are what was listed.
    Same,
    /// They have to be compared.
    Unknown,
}

impl RowState {
    /// Of a directory whose own row was just made, or had this listing's fingerprint.
    pub(super) fn of(is_new: bool, has_fingerprint: bool) -> Self {
        match (is_new, has_fingerprint) {
            (true, _) => Self::New,
            (false, true) => Self::Same,
            (false, false) => Self::Unknown,
        }
    }
}

/// True if there is such a root, with these options.
pub(super) fn is_known(roots: &[Root], extent: &Extent, settings: &ScanSettings) -> bool {
    roots.iter().any(|root| root.extent == *extent && root.settings == *settings)
}

/// Those of some subtrees that do not lie in known ones.
pub(super) fn uncovered(extents: &[Extent], known: &[Extent]) -> Vec<Extent> {
    let is_new = |extent: &&Extent| !known.iter().any(|known| known.covers(extent));
    extents.iter().filter(is_new).cloned().collect()
}

/// What the end of a walk changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Finished {
    /// Files that were removed.
    pub(super) removed: u64,
    /// True if the root covers other subtrees than before: its options hold for other files.
    pub(super) has_other_extents: bool,
}

impl Finished {
    /// True if figures may have changed.
    pub(super) fn has_changes(self) -> bool {
        self.removed > 0 || self.has_other_extents
    }
}

/// A count or a size as a database keeps it. No file is larger than `i64::MAX` bytes; a number beyond
/// saturates.
pub(super) fn to_integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count or a size that a database kept; never negative.
pub(super) fn to_count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// What the history keeps of an index's figures: files, bytes, groups, redundant files, reclaimable bytes.
pub(super) fn history_figures(figures: &Summary) -> [i64; 5] {
    let Summary { files, bytes, groups, redundant_files, reclaimable_bytes, .. } = *figures;
    [files, bytes, groups, redundant_files, reclaimable_bytes].map(to_integer)
}

/// An inode is 64 bits without meaning: kept as the same bits.
pub(super) fn inode_to_integer(inode: u64) -> i64 {
    inode.cast_signed()
}

/// A stamp from the columns size, mtime, ctime and inode.
pub(super) fn stamp(size: i64, mtime: i64, ctime: i64, inode: i64) -> Stamp {
    Stamp { size: to_count(size), mtime: Nanos(mtime), ctime: Nanos(ctime), inode: inode.cast_unsigned() }
}

/// A hash from its bytes.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes = bytes.try_into().map_err(|_| IndexError::Damaged("a hash is not 32 bytes".to_owned()))?;
    Ok(Digest(bytes))
}

/// A sample from its bytes.
pub(super) fn sample(bytes: &[u8]) -> Result<Sample> {
    let bytes = bytes.try_into().map_err(|_| IndexError::Damaged("a sample is not 16 bytes".to_owned()))?;
    Ok(Sample(bytes))
}

/// How a finding ended, from its word.
pub(super) fn ending(word: &str) -> Result<Ending> {
    let all = [Ending::Withdrawn, Ending::Restored, Ending::Replaced, Ending::Gone];
    let found = all.into_iter().find(|ending| ending.as_str() == word);
    found.ok_or_else(|| IndexError::Damaged(format!("unknown end of a finding {word:?}")))
}

/// Up to where samples have come, if there were any.
pub(super) fn ring_position(millionths: Option<i64>) -> RingPosition {
    RingPosition::from_millionths(u32::try_from(millionths.unwrap_or_default()).unwrap_or_default())
}

/// A sample as bytes.
pub(super) fn sample_bytes(sample: Option<Sample>) -> Option<Vec<u8>> {
    sample.map(|sample| sample.0.to_vec())
}

/// A scan's status from its word.
pub(super) fn status(word: &str) -> Result<ScanStatus> {
    let found = ScanStatus::ALL.into_iter().find(|status| status.as_str() == word);
    found.ok_or_else(|| IndexError::Damaged(format!("unknown scan status {word:?}")))
}

/// What began a run, from its word.
pub(super) fn kind(word: &str) -> Result<ScanKind> {
    let found = ScanKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    found.ok_or_else(|| IndexError::Damaged(format!("unknown kind of run {word:?}")))
}

/// The figures of a run, if they were noted: see [`history_figures`].
pub(super) fn figures(columns: [Option<i64>; 5]) -> Option<Figures> {
    let [files, bytes, groups, redundant_files, reclaimable_bytes] =
        columns.map(|column| column.map(to_count));
    Some(Figures {
        files: files?,
        bytes: bytes?,
        groups: groups?,
        redundant_files: redundant_files?,
        reclaimable_bytes: reclaimable_bytes?,
    })
}

/// What is said of a run whose process died.
pub(super) const DIED: &str = "the process that ran it died";

/// How a root is watched, from its columns.
pub(super) fn watch_mode(word: &str, reason: Option<String>) -> Result<WatchMode> {
    let mode = WatchMode::parse(word, reason);
    mode.ok_or_else(|| IndexError::Damaged(format!("unknown way of watching {word:?}")))
}

/// The half-open range of bytes that holds every path below a directory, but not itself: `/` is
/// followed by `0` in ASCII.
pub(super) fn below(path: &VolumePath) -> (Vec<u8>, Vec<u8>) {
    ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat())
}

/// A row of `mounts`, as its columns come.
pub(super) fn mount((volume, root, at): (i64, Vec<u8>, Vec<u8>)) -> (VolumeId, Mount) {
    (VolumeId(volume), Mount { root: VolumePath::new(&root), at: at.into() })
}

/// Rows of `volumes`.
pub(super) fn volumes(rows: Vec<(i64, String)>) -> Vec<(VolumeId, VolumeIdentity)> {
    rows.into_iter().map(|(id, identity)| (VolumeId(id), VolumeIdentity(identity.into()))).collect()
}

/// Rows of `mounts`, each with its host in front.
pub(super) fn places(
    here: &str,
    rows: Vec<(String, i64, Vec<u8>, Vec<u8>)>,
    identities: Vec<(VolumeId, VolumeIdentity)>,
) -> Places {
    let with_host = |(host, volume, root, at)| {
        let (volume, mount) = mount((volume, root, at));
        (host, volume, mount)
    };
    Places::new(here, rows.into_iter().map(with_host).collect(), identities)
}

/// Writes JSON for a database to read or to keep.
pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// Reads JSON that a database made or kept.
pub(super) fn read_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// A file that is to be read, as a row.
pub(super) struct PendingRow {
    pub(super) id: i64,
    pub(super) volume: i64,
    pub(super) directory: i64,
    pub(super) name: Vec<u8>,
    pub(super) stamp: Stamp,
    /// The hash it should have, if it is read again.
    pub(super) known: Option<Digest>,
    /// Its sample, if that was looked up.
    pub(super) sample: Option<Sample>,
}

/// Makes jobs of rows that come in physical order: names of one file stand together.
#[derive(Debug)]
pub(super) struct Jobs {
    stage: Stage,
    lease: Option<LeaseId>,
    /// The job that the next row may be another name of, with its volume.
    open: Option<(i64, Job)>,
}

impl Jobs {
    pub(super) fn new(stage: Stage, lease: Option<LeaseId>) -> Self {
        Self { stage, lease, open: None }
    }

    /// Adds a row to the open job if it is another name of the same file; else begins a job and
    /// returns the one before. Names with different stamps were listed at different times: each is
    /// checked by itself. A row whose directory is not among those given is left out.
    pub(super) fn take(&mut self, row: PendingRow, directories: &HashMap<i64, Arc<Path>>) -> Option<Job> {
        let PendingRow { id, volume, directory, name, stamp, known, sample } = row;
        let path = Arc::clone(directories.get(&directory)?);
        let key = FileKey { id: FileId(id), directory: DirectoryId(directory), name: name.into() };
        let name = PendingName { key, directory: path };
        match &mut self.open {
            Some((open_volume, job))
                if *open_volume == volume && job.stamp == stamp && job.known == known =>
            {
                job.names.push(name);
                None
            }
            _ => {
                let Self { stage, lease, .. } = *self;
                let job = Job { stamp, names: vec![name], stage, lease, known, sample };
                self.open.replace((volume, job)).map(|(_, job)| job)
            }
        }
    }

    /// The last job.
    pub(super) fn finish(&mut self) -> Option<Job> {
        self.open.take().map(|(_, job)| job)
    }
}

/// A scope is looked up size by size if the index holds so many times its files; else the tables are read as they lie.
pub(super) const NEAR_SHARE: i64 = 16;

/// How the files of a size are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// All sizes are compared: most have to be.
    All,
    /// Those of files without hash are: these are few.
    Unread,
    /// Those of files without hash in the scope are looked up: it is a small part of the index.
    Near,
}
