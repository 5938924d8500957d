//! What is known of single files.
//!
//! There is no index on sizes or hashes, so that copies are found by reading the table once. The server keeps the result
//! in a held cursor; from there it is read by the window, and no transaction is open meanwhile.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Connection as _};

use super::scope::{ScopeArrays, with_scope};
use super::session::expect_whole_tables;
use super::summary::see_one_moment;
use super::{catalog, changes};
use crate::index::convert::{digest, stamp, to_integer};
use crate::index::rows::Columns as _;
use crate::index::{FilesReader, IndexError, Result};
use crate::model::file::{FileItem, FilesFilter, KnownFile, WantedFiles};
use crate::model::group::Member;
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::volume::{Extent, Places, VolumeId};

/// What is being done, for errors.
const OPERATION: &str = "read what is known of files";

/// The files asked for, and how often their contents are there; the macro's parameter: what is joined to that.
/// $5: one name, or null for all; $6: how many; $7: true if nothing at all is pending.
macro_rules! declare_files {
    ($rest:literal) => {
        concat!(
            "declare known no scroll cursor with hold for ",
            with_scope!(
                ", listed as materialized (
                    select row_number() over (order by d.volume_id, d.path, f.name) as place, d.volume_id, d.path,
                           f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, f.hash, f.sample, f.problem
                    from scope s join directories d on d.id = s.id join files f on f.directory_id = s.id
                    where $5::bytea is null or f.name = $5
                    order by place limit $6::bigint),
                waiting as materialized (
                    select distinct size, sample from listed
                    where not $7::bool and hash is null and problem is null),
                by_size (size) as materialized (
                    select size from files where size in (select size from waiting where sample is null)
                    group by size having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
                by_sample (size, sample) as materialized (
                    select size, sample from files
                    where (size, sample) in (select size, sample from waiting where sample is not null)
                    group by size, sample having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
                hashes as materialized (select distinct hash, size from listed where hash is not null)",
                $rest
            )
        )
    };
}

/// The columns of a file.
const FILES: &str = declare_files!(
    ", counted as (
        select f.hash, f.size, count(distinct (f.volume_id, f.inode)) as files
        from hashes h join files f on f.hash = h.hash and f.size = h.size
        group by f.hash, f.size)
    select l.place, l.volume_id, l.path, l.name, l.size, l.mtime_ns, l.ctime_ns, l.inode, l.hash,
           l.sample is not null, l.problem,
           case when l.sample is null then l.size in (select size from by_size)
                else (l.size, l.sample) in (select size, sample from by_sample) end,
           coalesce(c.files, 1)
    from listed l left join counted c on c.hash = l.hash and c.size = l.size
    order by l.place"
);

/// The same, and those of a copy or nulls: a row for each copy. Other names of the file itself come first.
const WITH_COPIES: &str = declare_files!(
    ", same as materialized (
        select f.hash, f.size, f.volume_id, f.inode, f.directory_id, f.name, f.mtime_ns, f.ctime_ns
        from hashes h join files f on f.hash = h.hash and f.size = h.size),
    counted as (
        select hash, size, count(distinct (volume_id, inode)) as files from same group by hash, size),
    named as (
        select s.*, d.path, d.path || '/'::bytea || s.name as full_name from same s
        join directories d on d.id = s.directory_id),
    copies as (
        select n.*, first_value(full_name) over (
            partition by hash, size, volume_id, inode order by full_name) as first_name
        from named n)
    select l.place, l.volume_id, l.path, l.name, l.size, l.mtime_ns, l.ctime_ns, l.inode, l.hash,
           l.sample is not null, l.problem,
           case when l.sample is null then l.size in (select size from by_size)
                else (l.size, l.sample) in (select size, sample from by_sample) end,
           coalesce(c.files, 1),
           m.volume_id, m.path, m.name, m.mtime_ns, m.ctime_ns, m.inode
    from listed l
    left join counted c on c.hash = l.hash and c.size = l.size
    left join copies m on m.hash = l.hash and m.size = l.size
        and (m.directory_id <> l.directory_id or m.name <> l.name)
    order by l.place, (m.volume_id, m.inode) <> (l.volume_id, l.inode), m.first_name, m.volume_id, m.inode, m.full_name"
);

/// A window.
const NEXT: &str = "fetch 2048 from known";

/// Reads files.
pub(super) struct PostgresFiles {
    /// Its own, because the cursor lives as long as it does.
    connection: PgConnection,
    places: Places,
    with_copies: bool,
    /// Which files are hashed.
    rules: HashRules,
    is_settled: bool,
    /// The file that came last, and the physical file of the copy that did.
    place: i64,
    physical: Option<(i64, i64)>,
}

impl PostgresFiles {
    pub(super) async fn select(
        mut connection: PoolConnection<Postgres>,
        filter: &FilesFilter,
        places: &Places,
    ) -> Result<Self> {
        let failed = || IndexError::during(OPERATION);
        let mut moment = connection.begin().await.map_err(failed())?;
        see_one_moment(&mut moment).await?;
        let rules = HashRules::of(&catalog::roots(&mut moment).await?);
        let is_settled = changes::kept_figures(&mut moment).await?.is_some();
        declare(&mut moment, filter, is_settled).await?;
        moment.commit().await.map_err(failed())?;
        Ok(Self {
            connection: connection.detach(),
            places: places.clone(),
            with_copies: filter.with_copies,
            rules,
            is_settled,
            place: 0,
            physical: None,
        })
    }

    fn read_file(&self, row: &PgRow) -> Result<KnownFile> {
        let volume = VolumeId(row.value(1)?);
        let directory = row.volume_path(2)?;
        let (host, mut path) = self.places.show(volume, &directory);
        path.push(OsStr::from_bytes(row.value(3)?));
        let digest = row.value::<Option<&[u8]>>(8)?.map(digest).transpose()?;
        let problem: Option<String> = row.value(10)?;
        let is_shared = row.value(11)?;
        let directory = Extent { volume, path: directory };
        let is_wanted = match self.rules.around(&directory) {
            Some(HashPolicy::All) => true,
            Some(HashPolicy::Candidates) | None => is_shared,
            Some(HashPolicy::None) => false,
        };
        Ok(KnownFile {
            host,
            path,
            stamp: stamp(row.value(4)?, row.value(5)?, row.value(6)?, row.value(7)?),
            digest,
            is_sampled: row.value(9)?,
            is_pending: digest.is_none() && problem.is_none() && !self.is_settled && is_wanted,
            problem,
            copies: row.count(12)?.saturating_sub(1),
        })
    }

    fn read_copy(&mut self, row: &PgRow) -> Result<Option<Member>> {
        let Some(volume) = row.value::<Option<i64>>(13)? else { return Ok(None) };
        let (host, mut path) = self.places.show(VolumeId(volume), &row.volume_path(14)?);
        path.push(OsStr::from_bytes(row.value(15)?));
        let inode: i64 = row.value(18)?;
        let first_name = self.physical != Some((volume, inode));
        self.physical = Some((volume, inode));
        let stamp = stamp(row.value(4)?, row.value(16)?, row.value(17)?, inode);
        Ok(Some(Member { first_name, host, path, stamp }))
    }
}

async fn declare(connection: &mut PgConnection, filter: &FilesFilter, is_settled: bool) -> Result<()> {
    let (scope, name) = match &filter.wanted {
        WantedFiles::Named { directory, name } => {
            (ScopeArrays::with_directories(&[], std::slice::from_ref(directory)), Some(&name[..]))
        }
        WantedFiles::Below(extents) => {
            // One file is looked up by its key.
            expect_whole_tables(connection, OPERATION).await?;
            (ScopeArrays::new(extents), None)
        }
    };
    let declared = scope
        .query(if filter.with_copies { WITH_COPIES } else { FILES })
        .bind(name)
        .bind(filter.limit.map(to_integer))
        .bind(is_settled)
        .execute(connection)
        .await;
    declared.map(drop).map_err(IndexError::during(OPERATION))
}

#[async_trait(?Send)]
impl FilesReader for PostgresFiles {
    async fn next(&mut self) -> Result<Vec<FileItem>> {
        let rows = sqlx::query(AssertSqlSafe(NEXT)).fetch_all(&mut self.connection).await;
        let mut items = Vec::new();
        for row in &rows.map_err(IndexError::during(OPERATION))? {
            let place = row.value(0)?;
            if place != self.place {
                self.place = place;
                self.physical = Some((row.value(1)?, row.value(7)?));
                items.push(FileItem::File(self.read_file(row)?));
            }
            if self.with_copies {
                items.extend(self.read_copy(row)?.map(FileItem::Copy));
            }
        }
        Ok(items)
    }
}
