//! What is still to be read, in physical order.
//!
//! The selection goes to a temporary table of the reader's own: it is sorted once, its size is
//! known, and it holds no snapshot of the index while files are read for hours, which would keep
//! the write-ahead log from being emptied.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;

use super::convert::HexBytes;
use super::selection;
use crate::index::convert::{Jobs, PendingRow, digest, read_json, sample, stamp, to_integer, to_json};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, PendingReader, Result};
use crate::model::pending::{Job, PendingTotals, SAMPLE_BYTES, SMALL_FILE, Scope, Stage};
use crate::model::rot::Rereading;
use crate::model::volume::{MountMap, VolumeId};

/// Rows fetched at once: some hundred kilobytes.
const WINDOW: i64 = 2048;

/// ?1: files larger than this are sampled; ?2: what a sample reads.
const TOTALS: &str = "
    select count(*), coalesce(sum(size), 0), coalesce(sum(case when size > ?1 then ?2 else size end), 0)
    from temp.pending";

/// A window as one JSON text: sqlx takes 2.5 microseconds for each row it hands over, whatever is in it,
/// so a window is one row. Names are hexadecimal because they are no text.
const NEXT: &str = "
    select json_group_array(json_array(file_id, volume_id, directory_id, hex(name), size, mtime_ns, ctime_ns, inode))
    from (select * from temp.pending where id > ?1 and id <= ?2 order by id)";

/// The same of files of which something is known: see `temp.pending`.
const NEXT_KNOWN: &str = "
    select json_group_array(json_array(
        file_id, volume_id, directory_id, hex(name), size, mtime_ns, ctime_ns, inode, hex(known)))
    from (select * from temp.pending where id > ?1 and id <= ?2 order by id)";

/// The paths of directories, of a JSON array of their ids.
const PATHS: &str = "
    select d.id, d.volume_id, d.path from json_each(?) j join directories d on d.id = j.value";

async fn count_pending(connection: &mut SqliteConnection, stage: Stage) -> Result<PendingTotals> {
    let row = sqlx::query(TOTALS)
        .bind(to_integer(SMALL_FILE))
        .bind(to_integer(SAMPLE_BYTES))
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("select what is to be read"))?;
    let bytes = row.count(if stage == Stage::Size { 2 } else { 1 })?;
    Ok(PendingTotals { files: row.count(0)?, bytes })
}

/// An element of a window.
#[derive(Deserialize)]
struct Row(i64, i64, i64, HexBytes, i64, i64, i64, i64, #[serde(default)] Option<HexBytes>);

/// What the last element of a [`Row`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    Sample,
    Hash,
}

/// Nothing is pending.
pub(super) struct NothingPending;

#[async_trait(?Send)]
impl PendingReader for NothingPending {
    fn totals(&self) -> PendingTotals {
        PendingTotals::default()
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        Ok(Vec::new())
    }
}

/// Reads the selection of one stage.
pub(super) struct SqlitePending {
    connection: SqliteConnection,
    mounts: MountMap,
    totals: PendingTotals,
    position: i64,
    last: i64,
    jobs: Jobs,
    known: Known,
}

impl SqlitePending {
    pub(super) async fn select(
        mut connection: SqliteConnection,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let last = to_integer(selection::fill(&mut connection, stage, scope).await?);
        let totals = count_pending(&mut connection, stage).await?;
        let (mounts, jobs) = (mounts.clone(), Jobs::new(stage, None));
        let known = if stage == Stage::Sample { Known::Sample } else { Known::Nothing };
        Ok(Self { connection, mounts, totals, position: 0, last, jobs, known })
    }

    /// Files to be read again.
    pub(super) async fn reread(
        mut connection: SqliteConnection,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let last = to_integer(selection::fill_again(&mut connection, what, scope).await?);
        let totals = count_pending(&mut connection, Stage::Everything).await?;
        let (mounts, jobs) = (mounts.clone(), Jobs::new(Stage::Everything, None));
        Ok(Self { connection, mounts, totals, position: 0, last, jobs, known: Known::Hash })
    }

    async fn window(&mut self) -> Result<Vec<Row>> {
        let until = self.position + WINDOW;
        let next = if self.known == Known::Nothing { NEXT } else { NEXT_KNOWN };
        let window = sqlx::query(next).bind(self.position).bind(until).fetch_one(&mut self.connection).await;
        let window = window.map_err(IndexError::during("read what is pending"))?;
        self.position = until;
        read_json(window.value(0)?)
    }

    /// Where the directories of a window are; those without a mount are left out.
    async fn directories(&mut self, rows: &[Row]) -> Result<HashMap<i64, Arc<Path>>> {
        let ids: HashSet<i64> = rows.iter().map(|row| row.2).collect();
        let found = sqlx::query(PATHS).bind(to_json(&ids)?).fetch_all(&mut self.connection).await;
        let mut paths = HashMap::with_capacity(ids.len());
        for row in found.map_err(IndexError::during("read what is pending"))? {
            if let Some(path) = self.mounts.absolute(VolumeId(row.value(1)?), &row.volume_path(2)?) {
                paths.insert(row.value(0)?, path.into());
            }
        }
        Ok(paths)
    }
}

#[async_trait(?Send)]
impl PendingReader for SqlitePending {
    fn totals(&self) -> PendingTotals {
        self.totals
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && self.position < self.last {
            let rows = self.window().await?;
            let directories = self.directories(&rows).await?;
            for row in rows {
                let Row(id, volume, directory, HexBytes(name), size, mtime, ctime, inode, known) = row;
                let stamp = stamp(size, mtime, ctime, inode);
                let mut row = PendingRow { id, volume, directory, name, stamp, known: None, sample: None };
                match (self.known, known) {
                    (Known::Hash, Some(HexBytes(hash))) => row.known = Some(digest(&hash)?),
                    (Known::Sample, Some(HexBytes(shared))) => row.sample = Some(sample(&shared)?),
                    _ => {}
                }
                jobs.extend(self.jobs.take(row, &directories));
            }
        }
        if self.position >= self.last {
            jobs.extend(self.jobs.finish());
        }
        Ok(jobs)
    }
}
