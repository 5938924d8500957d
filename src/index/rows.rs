//! What rows say: the same for both databases, whose statements give the same columns.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use sqlx::postgres::{PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row as _, Type};

use super::convert::{digest, figures, kind, stamp, status, to_count};
use super::{IndexError, Result};
use crate::model::group::ProblemRow;
use crate::model::history::{FiguresAt, Run, RunRoot};
use crate::model::listing::KnownName;
use crate::model::path::{VolumePath, to_path};
use crate::model::rot::{Rot, RotCopy, ShownPath};
use crate::model::scan::{LastScan, Root, RootId, ScanCounts, ScanId};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Worker, WorkerId};

/// What both databases have values of.
pub(super) trait Common<'r>: Decode<'r, Sqlite> + Decode<'r, Postgres> + Type<Postgres> {}

impl<'r, T: Decode<'r, Sqlite> + Decode<'r, Postgres> + Type<Postgres>> Common<'r> for T {}

/// A row of either database, whose columns are read by position.
pub(super) trait Columns {
    /// Reads a column.
    fn value<'r, T: Common<'r>>(&'r self, index: usize) -> Result<T>;

    /// Reads a count or a size.
    fn count(&self, index: usize) -> Result<u64> {
        Ok(to_count(self.value(index)?))
    }

    /// Reads the number of a process; 0, which is none, if it is no such number.
    fn process(&self, index: usize) -> Result<u32> {
        Ok(u32::try_from(self.value::<i64>(index)?).unwrap_or_default())
    }

    /// Reads a directory's path on its volume.
    fn volume_path(&self, index: usize) -> Result<VolumePath> {
        Ok(VolumePath::new(self.value(index)?))
    }

    /// Reads a volume, and a path on it from the next column.
    fn extent(&self, index: usize) -> Result<Extent> {
        Ok(Extent { volume: VolumeId(self.value(index)?), path: self.volume_path(index + 1)? })
    }

    /// Reads a time that may not have come.
    fn moment(&self, index: usize) -> Result<Option<Nanos>> {
        Ok(self.value::<Option<i64>>(index)?.map(Nanos))
    }
}

impl Columns for SqliteRow {
    fn value<'r, T: Common<'r>>(&'r self, index: usize) -> Result<T> {
        // Unchecked: SQLite's values carry no declared type once they went through an expression.
        self.try_get_unchecked(index).map_err(|error| IndexError::Damaged(error.to_string()))
    }
}

impl Columns for PgRow {
    fn value<'r, T: Common<'r>>(&'r self, index: usize) -> Result<T> {
        self.try_get(index).map_err(|error| IndexError::Damaged(error.to_string()))
    }
}

/// Subtrees by their roots, each with whether only links lead to it.
pub(super) type RootExtents = HashMap<i64, Vec<(Extent, bool)>>;

/// Reads a root; takes its subtrees.
pub(super) fn read_root(row: &impl Columns, extents: &mut RootExtents) -> Result<Root> {
    let id: i64 = row.value(0)?;
    let (settings, upkeep): (&str, &str) = (row.value(4)?, row.value(11)?);
    let damaged = |error| IndexError::Damaged(format!("the options of root {id}: {error}"));
    let settings = serde_json::from_str(settings).map_err(damaged)?;
    let upkeep = serde_json::from_str(upkeep).map_err(damaged)?;
    let extents = extents.remove(&id).unwrap_or_default();
    let scan: Option<i64> = row.value(5)?;
    let last_scan = match scan {
        None => None,
        Some(scan) => Some(LastScan {
            id: ScanId(scan),
            status: status(row.value(6)?)?,
            started_at: Nanos(row.value(7)?),
            ended_at: row.moment(8)?,
            discovered: row.moment(9)?.is_some(),
        }),
    };
    Ok(Root {
        id: RootId(id),
        extent: row.extent(1)?,
        identity: VolumeIdentity(row.value::<&str>(10)?.into()),
        path: to_path(row.value(3)?),
        settings,
        upkeep,
        linked: extents.iter().filter(|(_, linked)| *linked).map(|(extent, _)| extent.clone()).collect(),
        extents: extents.into_iter().map(|(extent, _)| extent).collect(),
        last_scan,
    })
}

/// Reads a run of the history, as it stands there.
pub(super) fn read_run(row: &impl Columns) -> Result<Run> {
    let figure = |index| row.value::<Option<i64>>(index);
    Ok(Run {
        id: ScanId(row.value(0)?),
        kind: kind(row.value(1)?)?,
        status: status(row.value(2)?)?,
        root: read_run_root(row)?,
        started_at: Nanos(row.value(3)?),
        discovered_at: row.moment(4)?,
        ended_at: row.moment(5)?,
        counts: ScanCounts {
            directories: row.count(6)?,
            files_seen: row.count(7)?,
            bytes_seen: row.count(8)?,
            added: row.count(9)?,
            updated: row.count(10)?,
            removed: row.count(11)?,
            hashed: row.count(12)?,
            bytes_read: row.count(13)?,
            problems: row.count(14)?,
            events: row.count(15)?,
        },
        error: row.value(16)?,
        figures: figures([figure(17)?, figure(18)?, figure(19)?, figure(20)?, figure(21)?]),
    })
}

fn read_run_root(row: &impl Columns) -> Result<Option<RunRoot>> {
    let Some(id) = row.value::<Option<i64>>(22)? else { return Ok(None) };
    Ok(Some(RunRoot {
        id: RootId(id),
        extent: row.extent(23)?,
        path: to_path(row.value(25)?),
        within: row.value::<Option<&[u8]>>(26)?.map(VolumePath::new),
    }))
}

/// Reads the figures of a moment, if all were noted.
pub(super) fn read_figures(row: &impl Columns) -> Result<Option<FiguresAt>> {
    let figure = |index| row.value::<Option<i64>>(index);
    let figures = figures([figure(1)?, figure(2)?, figure(3)?, figure(4)?, figure(5)?]);
    let at = Nanos(row.value(0)?);
    Ok(figures.map(|figures| FiguresAt { at, figures }))
}

/// A row of `workers`: id, host, process, task, its age and silence in seconds, whether it lives, the leases it holds and
/// the files in them, what it did, and how fast.
pub(super) fn read_worker(row: &impl Columns) -> Result<Worker> {
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(Worker {
        id: WorkerId(row.value(0)?),
        host: row.value(1)?,
        process: row.process(2)?,
        task: row.value(3)?,
        age: duration(row.value(4)?),
        silence: duration(row.value(5)?),
        is_alive: row.value(6)?,
        leases: row.count(7)?,
        leased_files: row.count(8)?,
        files: row.count(9)?,
        bytes: row.count(10)?,
        files_per_second: row.value(11)?,
        bytes_per_second: row.value(12)?,
    })
}

/// Reads what went wrong with a directory, or with a file in it.
pub(super) fn read_problem(row: &impl Columns, places: &Places) -> Result<ProblemRow> {
    let ShownPath { host, path } = match row.value::<Option<&[u8]>>(2)? {
        Some(name) => shown(places, &row.extent(0)?, name),
        None => shown_directory(places, &row.extent(0)?),
    };
    Ok(ProblemRow { host, path, problem: row.value(3)? })
}

/// Good copies of rotten files, by their directories and names.
#[derive(Default)]
pub(super) struct RotCopies(HashMap<(i64, Vec<u8>), Vec<RotCopy>>);

impl RotCopies {
    /// Reads one more.
    pub(super) fn add(&mut self, row: &impl Columns, places: &Places) -> Result<()> {
        let copies = self.0.entry((row.value(0)?, row.value(1)?)).or_default();
        copies.push(RotCopy {
            place: shown_directory(places, &row.extent(2)?),
            modified: Nanos(row.value(4)?),
        });
        Ok(())
    }
}

/// Reads a finding; takes its copies.
pub(super) fn read_rot(row: &impl Columns, places: &Places, copies: &mut RotCopies) -> Result<Rot> {
    let name: Vec<u8> = row.value(1)?;
    Ok(Rot {
        place: shown(places, &row.extent(2)?, &name),
        size: row.count(4)?,
        expected: digest(row.value(5)?)?,
        found: row.value::<Option<&[u8]>>(6)?.map(digest).transpose()?,
        problem: row.value::<Option<String>>(8)?.unwrap_or_default(),
        since: Nanos(row.value(7)?),
        copies: copies.0.remove(&(row.value(0)?, name)).unwrap_or_default(),
    })
}

/// Where a name in a directory is, for people.
pub(super) fn shown(places: &Places, directory: &Extent, name: &[u8]) -> ShownPath {
    let ShownPath { host, mut path } = shown_directory(places, directory);
    path.push(OsStr::from_bytes(name));
    ShownPath { host, path }
}

fn shown_directory(places: &Places, directory: &Extent) -> ShownPath {
    let (host, path) = places.show(directory.volume, &directory.path);
    ShownPath { host, path }
}

/// Reads a name with its stamp.
pub(super) fn read_known_name(row: &impl Columns) -> Result<KnownName> {
    Ok(KnownName {
        directory: row.extent(0)?,
        name: row.value::<&[u8]>(2)?.into(),
        stamp: stamp(row.value(3)?, row.value(4)?, row.value(5)?, row.value(6)?),
    })
}
