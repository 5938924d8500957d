//! What is still to be read, in physical order.
//!
//! The selection goes to a temporary table of the reader's own: it is sorted once, its size is
//! known, and it holds no snapshot of the index while files are read for hours, which would keep
//! the write-ahead log from being emptied.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;

use super::convert::{HexBytes, column, count, read_json, to_json, volume_path};
use super::scope;
use crate::index::convert::{Jobs, PendingRow, stamp, to_integer};
use crate::index::{IndexError, PendingReader, Result};
use crate::model::pending::{Job, PendingTotals, SAMPLE_BYTES, SMALL_FILE, Scope, Stage};
use crate::model::volume::{MountMap, VolumeId};

/// Rows fetched at once: some hundred kilobytes.
const WINDOW: i64 = 2048;

const TEMPORARY_TABLES: &str = "
    create temp table reachable (volume_id integer primary key);
    create temp table pending (
        id integer primary key, volume_id integer, directory_id integer, name blob,
        size integer, mtime_ns integer, ctime_ns integer, inode integer)";

/// Sizes that two physical files share, one of them in the scope, and the files of these sizes that
/// nothing is known of; also files that could not be read before.
/// ?1: 1 to compare all sizes, 0 to compare only those of files without hash, which is faster if
/// these are few.
const SELECT_BY_SIZE: &str = "
    with null_size (size) as materialized (
        select distinct size from files where hash is null and sample is null),
    candidate (size) as materialized (
        select size from files
        where ?1 or size in (select size from null_size)
        group by size
        having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
           and max(directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode from files
    where hash is null and sample is null
      and (size in (select size from candidate)
           or (problem is not null and directory_id in (select directory_id from temp.scope)))
      and volume_id in (select volume_id from temp.reachable)
    order by volume_id, inode, directory_id, name";

const SELECT_BY_SAMPLE: &str = "
    with candidate (size, sample) as materialized (
        select size, sample from files
        where sample is not null
        group by size, sample
        having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
           and max(directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode from files
    where hash is null and sample is not null
      and (size, sample) in (select size, sample from candidate)
      and volume_id in (select volume_id from temp.reachable)
    order by volume_id, inode, directory_id, name";

const SELECT_EVERYTHING: &str = "
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode from files
    where hash is null and directory_id in (select directory_id from temp.scope)
      and volume_id in (select volume_id from temp.reachable)
    order by volume_id, inode, directory_id, name";

/// ?1: files larger than this are sampled; ?2: what a sample reads.
const TOTALS: &str = "
    select count(*), coalesce(sum(size), 0), coalesce(sum(case when size > ?1 then ?2 else size end), 0)
    from temp.pending";

/// A window as one JSON text: sqlx takes 2.5 microseconds for each row it hands over, whatever is in it,
/// so a window is one row. Names are hexadecimal because they are no text.
const NEXT: &str = "
    select json_group_array(json_array(volume_id, directory_id, hex(name), size, mtime_ns, ctime_ns, inode))
    from (select * from temp.pending where id > ?1 and id <= ?2 order by id)";

/// The paths of directories, of a JSON array of their ids.
const PATHS: &str = "
    select d.id, d.volume_id, d.path from json_each(?) j join directories d on d.id = j.value";

const MOST_HAVE_NO_HASH: &str = "
    select count(*) filter (where hash is null and sample is null) * 2 > count(*) from files";

async fn most_have_no_hash(connection: &mut SqliteConnection) -> Result<bool> {
    let most = sqlx::query_scalar(MOST_HAVE_NO_HASH).fetch_one(connection).await;
    most.map_err(IndexError::during("select what is to be read"))
}

/// An element of a window.
#[derive(Deserialize)]
struct Row(i64, i64, HexBytes, i64, i64, i64, i64);

/// Reads the selection of one stage.
pub(super) struct SqlitePending {
    connection: SqliteConnection,
    mounts: MountMap,
    totals: PendingTotals,
    position: i64,
    last: i64,
    jobs: Jobs,
}

impl SqlitePending {
    pub(super) async fn select(
        mut connection: SqliteConnection,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let failed = || IndexError::during("select what is to be read");
        sqlx::raw_sql(TEMPORARY_TABLES).execute(&mut connection).await.map_err(failed())?;
        for volume in &scope.reachable {
            let insert = sqlx::query("insert or ignore into temp.reachable values (?)").bind(volume.0);
            insert.execute(&mut connection).await.map_err(failed())?;
        }
        scope::fill(&mut connection, &scope.extents).await?;
        let select = match stage {
            Stage::Everything => SELECT_EVERYTHING,
            Stage::Size => SELECT_BY_SIZE,
            Stage::Sample => SELECT_BY_SAMPLE,
        };
        let mut select = sqlx::query(select);
        if stage == Stage::Size {
            select = select.bind(most_have_no_hash(&mut connection).await?);
        }
        let last = select.execute(&mut connection).await.map_err(failed())?.rows_affected();
        let row = sqlx::query(TOTALS)
            .bind(to_integer(SMALL_FILE))
            .bind(to_integer(SAMPLE_BYTES))
            .fetch_one(&mut connection)
            .await
            .map_err(failed())?;
        let bytes = count(&row, if stage == Stage::Size { 2 } else { 1 })?;
        let totals = PendingTotals { files: count(&row, 0)?, bytes };
        let mounts = mounts.clone();
        let jobs = Jobs::new(stage, None);
        Ok(Self { connection, mounts, totals, position: 0, last: to_integer(last), jobs })
    }

    async fn window(&mut self) -> Result<Vec<Row>> {
        let until = self.position + WINDOW;
        let window = sqlx::query(NEXT).bind(self.position).bind(until).fetch_one(&mut self.connection).await;
        let window = window.map_err(IndexError::during("read what is pending"))?;
        self.position = until;
        read_json(column(&window, 0)?)
    }

    /// Where the directories of a window are; those without a mount are left out.
    async fn directories(&mut self, rows: &[Row]) -> Result<HashMap<i64, PathBuf>> {
        let ids: HashSet<i64> = rows.iter().map(|row| row.1).collect();
        let found = sqlx::query(PATHS).bind(to_json(&ids)?).fetch_all(&mut self.connection).await;
        let mut paths = HashMap::with_capacity(ids.len());
        for row in found.map_err(IndexError::during("read what is pending"))? {
            if let Some(path) = self.mounts.absolute(VolumeId(column(&row, 1)?), &volume_path(&row, 2)?) {
                paths.insert(column(&row, 0)?, path);
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
                let Row(volume, directory, HexBytes(name), size, mtime, ctime, inode) = row;
                let stamp = stamp(size, mtime, ctime, inode);
                jobs.extend(self.jobs.take(PendingRow { volume, directory, name, stamp }, &directories));
            }
        }
        if self.position >= self.last {
            jobs.extend(self.jobs.finish());
        }
        Ok(jobs)
    }
}
