//! What is still to be read, in physical order.
//!
//! The selection goes to a temporary table of the reader's own: it is sorted once, its size is
//! known, and it holds no snapshot of the index while files are read for hours, which would keep
//! the write-ahead log from being emptied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::convert::{column, count, stamp, to_integer, volume_path};
use super::scope;
use crate::index::{IndexError, PendingReader, Result};
use crate::model::listing::DirectoryId;
use crate::model::pending::{FileKey, Job, PendingName, PendingTotals, SAMPLE_BYTES, SMALL_FILE, Scope, Stage};
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
const SELECT_BY_SIZE: &str = "
    with candidate (size) as materialized (
        select f.size from files f join directories d on d.id = f.directory_id
        group by f.size
        having (min(f.inode) <> max(f.inode) or min(d.volume_id) <> max(d.volume_id))
           and max(f.directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select d.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from files f join directories d on d.id = f.directory_id
    where f.hash is null and f.sample is null
      and (f.size in (select size from candidate)
           or (f.problem is not null and f.directory_id in (select directory_id from temp.scope)))
      and d.volume_id in (select volume_id from temp.reachable)
    order by d.volume_id, f.inode, f.directory_id, f.name";

const SELECT_BY_SAMPLE: &str = "
    with candidate (size, sample) as materialized (
        select f.size, f.sample from files f join directories d on d.id = f.directory_id
        where f.sample is not null
        group by f.size, f.sample
        having (min(f.inode) <> max(f.inode) or min(d.volume_id) <> max(d.volume_id))
           and max(f.directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select d.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from files f join directories d on d.id = f.directory_id
    where f.hash is null and f.sample is not null
      and (f.size, f.sample) in (select size, sample from candidate)
      and d.volume_id in (select volume_id from temp.reachable)
    order by d.volume_id, f.inode, f.directory_id, f.name";

const SELECT_EVERYTHING: &str = "
    insert into temp.pending (volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select d.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from files f join directories d on d.id = f.directory_id
    where f.hash is null and f.directory_id in (select directory_id from temp.scope)
      and d.volume_id in (select volume_id from temp.reachable)
    order by d.volume_id, f.inode, f.directory_id, f.name";

/// Names, and the sizes of physical files: hard links stand next to each other.
const TOTALS: &str = "
    select count(*), coalesce(sum(case when is_link then 0 else size end), 0),
           coalesce(sum(case when is_link then 0 when size > ?1 then ?2 else size end), 0)
    from (select size, (inode, volume_id) is (lag(inode) over w, lag(volume_id) over w) is_link
          from temp.pending window w as (order by id))";

const NEXT: &str = "
    select p.id, p.volume_id, p.directory_id, d.path, p.name, p.size, p.mtime_ns, p.ctime_ns, p.inode
    from temp.pending p join directories d on d.id = p.directory_id
    where p.id > ?1 and p.id <= ?2
    order by p.id";

/// Reads the selection of one stage.
pub(super) struct SqlitePending {
    connection: SqliteConnection,
    stage: Stage,
    mounts: MountMap,
    totals: PendingTotals,
    position: i64,
    last: i64,
    /// The job that the next row may be another name of, with its volume.
    open: Option<(VolumeId, Job)>,
    /// The directory of the last row: neighbours mostly share it.
    directory: Option<(DirectoryId, PathBuf)>,
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
        let last = sqlx::query(select).execute(&mut connection).await.map_err(failed())?.rows_affected();
        let row = sqlx::query(TOTALS)
            .bind(to_integer(SMALL_FILE))
            .bind(to_integer(SAMPLE_BYTES))
            .fetch_one(&mut connection)
            .await
            .map_err(failed())?;
        let bytes = count(&row, if stage == Stage::Size { 2 } else { 1 })?;
        Ok(Self {
            connection,
            stage,
            mounts: mounts.clone(),
            totals: PendingTotals { files: count(&row, 0)?, bytes },
            position: 0,
            last: to_integer(last),
            open: None,
            directory: None,
        })
    }

    /// Adds a row to the open job if it is another name of the same file; else begins a job and
    /// returns the one before. Names with different stamps were listed at different times: each is
    /// checked by itself.
    fn take(&mut self, row: &SqliteRow) -> Result<Option<Job>> {
        let volume = VolumeId(column(row, 1)?);
        let directory = DirectoryId(column(row, 2)?);
        let name: &[u8] = column(row, 4)?;
        let stamp = stamp(row, 5)?;
        let Some(path) = self.path(volume, directory, row, name)? else { return Ok(None) };
        let name = PendingName { key: FileKey { directory, name: name.into() }, path };
        match &mut self.open {
            Some((open_volume, job)) if *open_volume == volume && job.stamp == stamp => {
                job.names.push(name);
                Ok(None)
            }
            _ => {
                let job = Job { stamp, names: vec![name], stage: self.stage };
                Ok(self.open.replace((volume, job)).map(|(_, job)| job))
            }
        }
    }

    fn path(
        &mut self,
        volume: VolumeId,
        directory: DirectoryId,
        row: &SqliteRow,
        name: &[u8],
    ) -> Result<Option<PathBuf>> {
        if self.directory.as_ref().is_none_or(|(id, _)| *id != directory) {
            let absolute = self.mounts.absolute(volume, &volume_path(row, 3)?);
            self.directory = absolute.map(|path| (directory, path));
        }
        Ok(self.directory.as_ref().map(|(_, path)| path.join(OsStr::from_bytes(name))))
    }
}

#[async_trait]
impl PendingReader for SqlitePending {
    fn totals(&self) -> PendingTotals {
        self.totals
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && self.position < self.last {
            let until = self.position + WINDOW;
            let rows = sqlx::query(NEXT).bind(self.position).bind(until).fetch_all(&mut self.connection).await;
            for row in rows.map_err(IndexError::during("read what is pending"))? {
                jobs.extend(self.take(&row)?);
            }
            self.position = until;
        }
        if self.position >= self.last {
            jobs.extend(self.open.take().map(|(_, job)| job));
        }
        Ok(jobs)
    }
}
