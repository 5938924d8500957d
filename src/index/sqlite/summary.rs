//! Figures: how many files, groups, pending, problems.

use std::os::unix::ffi::OsStrExt as _;
use std::ffi::OsStr;

use sqlx::sqlite::SqliteConnection;

use super::convert::{column, count, to_count, to_integer, volume_path};
use super::{catalog, scope};
use crate::index::{IndexError, Result};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::path::to_path;
use crate::model::pending::ExtentTotals;
use crate::model::volume::{Extent, MountMap, VolumeId};

const CREATE_GROUPS: &str = "
    create temp table groups (id integer primary key, size integer, hash blob, files integer)";

/// ?1: the smallest size; ?2: 1 for all directories, 0 for those in the scope.
const SELECT_GROUPS: &str = "
    insert into temp.groups (size, hash, files)
    select size, hash, count(*) from (
        select f.size, f.hash from files f join directories d on d.id = f.directory_id
        where f.hash is not null and f.size >= ?1
          and (?2 or f.directory_id in (select directory_id from temp.scope))
        group by f.size, f.hash, d.volume_id, f.inode)
    group by size, hash having count(*) > 1";

const GROUP_FIGURES: &str = "
    select count(*), coalesce(sum(files - 1), 0), coalesce(sum(size * (files - 1)), 0) from temp.groups";

const FILE_FIGURES: &str = "
    select count(*), coalesce(sum(f.size), 0), count(f.problem) from files f
    where ?1 or f.directory_id in (select directory_id from temp.scope)";

const DIRECTORY_PROBLEMS: &str = "
    select count(d.problem) from directories d
    where d.problem is not null and (?1 or d.id in (select directory_id from temp.scope))";

/// What a next run would read, but for what it could not read before.
const PENDING_FIGURES: &str = "
    with by_size (size) as materialized (
        select f.size from files f join directories d on d.id = f.directory_id
        group by f.size
        having min(f.inode) <> max(f.inode) or min(d.volume_id) <> max(d.volume_id)),
    by_sample (size, sample) as materialized (
        select f.size, f.sample from files f join directories d on d.id = f.directory_id
        where f.sample is not null
        group by f.size, f.sample
        having min(f.inode) <> max(f.inode) or min(d.volume_id) <> max(d.volume_id))
    select count(*), coalesce(sum(f.size), 0) from files f
    where f.hash is null and f.problem is null
      and (?1 or f.directory_id in (select directory_id from temp.scope))
      and (f.directory_id in (select directory_id from temp.hashed_wholly)
           or case when f.sample is null then f.size in (select size from by_size)
                   else (f.size, f.sample) in (select size, sample from by_sample) end)";

/// Fills `temp.groups` with the groups of a filter, in no certain order, and returns the figures.
pub(super) async fn select_groups(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<Summary> {
    let failed = || IndexError::during("find the groups");
    mark_hashed_wholly(connection).await?;
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let everywhere = filter.under.is_none();
    sqlx::query(CREATE_GROUPS).execute(&mut *connection).await.map_err(failed())?;
    sqlx::query(SELECT_GROUPS)
        .bind(to_integer(filter.min_size))
        .bind(everywhere)
        .execute(&mut *connection)
        .await
        .map_err(failed())?;

    let groups = sqlx::query(GROUP_FIGURES).fetch_one(&mut *connection).await.map_err(failed())?;
    let files = sqlx::query(FILE_FIGURES).bind(everywhere).fetch_one(&mut *connection).await.map_err(failed())?;
    let directories: i64 = sqlx::query_scalar(DIRECTORY_PROBLEMS)
        .bind(everywhere)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    let pending = sqlx::query(PENDING_FIGURES).bind(everywhere).fetch_one(connection).await.map_err(failed())?;
    Ok(Summary {
        files: count(&files, 0)?,
        bytes: count(&files, 1)?,
        groups: count(&groups, 0)?,
        redundant_files: count(&groups, 1)?,
        reclaimable_bytes: count(&groups, 2)?,
        pending_files: count(&pending, 0)?,
        pending_bytes: count(&pending, 1)?,
        problems: count(&files, 2)? + to_count(directories),
    })
}

/// Fills `temp.hashed_wholly` with the directories of roots whose every file is to be hashed.
async fn mark_hashed_wholly(connection: &mut SqliteConnection) -> Result<()> {
    let failed = || IndexError::during("select directories");
    let roots = catalog::roots(connection).await?;
    let wholly = roots.into_iter().filter(|root| root.settings.hash_all);
    let extents: Vec<Extent> = wholly.flat_map(|root| root.extents).collect();
    scope::fill(connection, &extents).await?;
    let mark = "create temp table hashed_wholly as select directory_id from temp.scope";
    sqlx::query(mark).execute(connection).await.map_err(failed())?;
    Ok(())
}

const PROBLEMS: &str = "
    select d.volume_id, d.path, null, d.problem from directories d where d.problem is not null
    union all
    select d.volume_id, d.path, f.name, f.problem from files f join directories d on d.id = f.directory_id
    where f.problem is not null
    order by 1, 2, 3
    limit ?";

pub(super) async fn problems(
    connection: &mut SqliteConnection,
    mounts: &MountMap,
    limit: u64,
) -> Result<Vec<ProblemRow>> {
    let rows = sqlx::query(PROBLEMS).bind(to_integer(limit)).fetch_all(connection).await;
    let mut problems = Vec::new();
    for row in rows.map_err(IndexError::during("read the problems"))? {
        let directory = volume_path(&row, 1)?;
        let known = mounts.absolute(VolumeId(column(&row, 0)?), &directory);
        let mut path = known.unwrap_or_else(|| to_path(directory.as_bytes()));
        if let Some(name) = column::<Option<&[u8]>>(&row, 2)? {
            path.push(OsStr::from_bytes(name));
        }
        problems.push(ProblemRow { path, problem: column(&row, 3)? });
    }
    Ok(problems)
}

const EXTENT_TOTALS: &str = "
    select count(*), coalesce(sum(size), 0), count(problem) from files
    where directory_id in (select directory_id from temp.scope)";

const EXTENT_DIRECTORIES: &str = "
    select count(*), count(problem) from directories where id in (select directory_id from temp.scope)";

pub(super) async fn extent_totals(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<ExtentTotals> {
    let failed = || IndexError::during("count files");
    scope::fill(connection, extents).await?;
    let files = sqlx::query(EXTENT_TOTALS).fetch_one(&mut *connection).await.map_err(failed())?;
    let directories = sqlx::query(EXTENT_DIRECTORIES).fetch_one(connection).await.map_err(failed())?;
    Ok(ExtentTotals {
        directories: count(&directories, 0)?,
        files: count(&files, 0)?,
        bytes: count(&files, 1)?,
        problems: count(&files, 2)? + count(&directories, 1)?,
    })
}
