//! Figures: how many files, groups, pending, problems.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use sqlx::sqlite::SqliteConnection;

use super::convert::{column, count, volume_path};
use super::{catalog, scope};
use crate::index::convert::{to_count, to_integer};
use crate::index::{IndexError, Result};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::pending::ExtentTotals;
use crate::model::volume::{Extent, Places, VolumeId};

const CREATE_GROUPS: &str = "
    create temp table groups (id integer primary key, size integer, hash blob, files integer)";

/// ?1: the smallest size; ?2: 1 for all directories, 0 for those in the scope. ?3: the number
/// of volumes; an inode alone is a physical file if there is but one.
const SELECT_GROUPS: &str = "
    insert into temp.groups (size, hash, files)
    select size, hash, files from (
        select size, hash,
               count(distinct case ?3 when 1 then inode else volume_id || ' ' || inode end) files
        from files
        where hash is not null and size >= ?1
          and (?2 or directory_id in (select directory_id from temp.scope))
        group by hash, size having count(*) > 1)
    where files > 1";

const GROUP_FIGURES: &str = "
    select count(*), coalesce(sum(files - 1), 0), coalesce(sum(size * (files - 1)), 0) from temp.groups";

const FILE_FIGURES: &str = "
    select count(*), coalesce(sum(f.size), 0), count(f.problem) from files f
    where ?1 or f.directory_id in (select directory_id from temp.scope)";

const DIRECTORY_PROBLEMS: &str = "
    select count(d.problem) from directories d
    where d.problem is not null and (?1 or d.id in (select directory_id from temp.scope))";

/// Only the sizes of files without hash are compared: few, once most is done.
/// What a next run would read, but for what it could not read before.
const PENDING_FIGURES: &str = "
    with null_size (size) as materialized (
        select distinct size from files where hash is null and sample is null),
    by_size (size) as materialized (
        select size from files where size in (select size from null_size)
        group by size
        having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
    by_sample (size, sample) as materialized (
        select size, sample from files where sample is not null
        group by size, sample
        having min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
    select count(*), coalesce(sum(size), 0) from files
    where hash is null and problem is null
      and (?1 or directory_id in (select directory_id from temp.scope))
      and (directory_id in (select directory_id from temp.hashed_wholly)
           or case when sample is null then size in (select size from by_size)
                   else (size, sample) in (select size, sample from by_sample) end)";

/// The figures of a filter. Two connections share the work: the sorts take as long as everything else
/// together. While another process writes, the two may see moments a commit apart.
pub(super) async fn summary(
    first: &mut SqliteConnection,
    second: &mut SqliteConnection,
    filter: &ReportFilter,
) -> Result<Summary> {
    let (groups, counted) = tokio::join!(find_groups(first, filter), count_all(second, filter));
    Ok(with_groups(counted?, groups?))
}

/// The figures of a filter, all of the moment that this connection sees; leaves its groups in
/// `temp.groups`, in no certain order.
pub(super) async fn select_groups(
    connection: &mut SqliteConnection,
    filter: &ReportFilter,
) -> Result<Summary> {
    let groups = find_groups(connection, filter).await?;
    Ok(with_groups(count_all(connection, filter).await?, groups))
}

fn with_groups(counted: Summary, (groups, redundant_files, reclaimable_bytes): (u64, u64, u64)) -> Summary {
    Summary { groups, redundant_files, reclaimable_bytes, ..counted }
}

async fn find_groups(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<(u64, u64, u64)> {
    let failed = || IndexError::during("find the groups");
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let volumes = sqlx::query_scalar("select count(*) from volumes").fetch_one(&mut *connection).await;
    let volumes: i64 = volumes.map_err(failed())?;
    sqlx::query(CREATE_GROUPS).execute(&mut *connection).await.map_err(failed())?;
    sqlx::query(SELECT_GROUPS)
        .bind(to_integer(filter.min_size))
        .bind(filter.under.is_none())
        .bind(volumes)
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    let figures = sqlx::query(GROUP_FIGURES).fetch_one(connection).await.map_err(failed())?;
    Ok((count(&figures, 0)?, count(&figures, 1)?, count(&figures, 2)?))
}

/// All figures but those of groups.
async fn count_all(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<Summary> {
    let failed = || IndexError::during("count files");
    mark_hashed_wholly(connection).await?;
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let everywhere = filter.under.is_none();
    let files =
        sqlx::query(FILE_FIGURES).bind(everywhere).fetch_one(&mut *connection).await.map_err(failed())?;
    let directories =
        sqlx::query_scalar(DIRECTORY_PROBLEMS).bind(everywhere).fetch_one(&mut *connection).await;
    let directories: i64 = directories.map_err(failed())?;
    let pending =
        sqlx::query(PENDING_FIGURES).bind(everywhere).fetch_one(connection).await.map_err(failed())?;
    Ok(Summary {
        files: count(&files, 0)?,
        bytes: count(&files, 1)?,
        problems: count(&files, 2)? + to_count(directories),
        pending_files: count(&pending, 0)?,
        pending_bytes: count(&pending, 1)?,
        ..Summary::default()
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
    places: &Places,
    limit: u64,
) -> Result<Vec<ProblemRow>> {
    let rows = sqlx::query(PROBLEMS).bind(to_integer(limit)).fetch_all(connection).await;
    let mut problems = Vec::new();
    for row in rows.map_err(IndexError::during("read the problems"))? {
        let (host, mut path) = places.show(VolumeId(column(&row, 0)?), &volume_path(&row, 1)?);
        if let Some(name) = column::<Option<&[u8]>>(&row, 2)? {
            path.push(OsStr::from_bytes(name));
        }
        problems.push(ProblemRow { host, path, problem: column(&row, 3)? });
    }
    Ok(problems)
}

const EXTENT_TOTALS: &str = "
    select count(*), coalesce(sum(size), 0), count(problem) from files
    where directory_id in (select directory_id from temp.scope)";

const EXTENT_DIRECTORIES: &str = "
    select count(*), count(problem) from directories where id in (select directory_id from temp.scope)";

pub(super) async fn extent_totals(
    connection: &mut SqliteConnection,
    extents: &[Extent],
) -> Result<ExtentTotals> {
    let failed = || IndexError::during("count files");
    scope::fill(connection, extents).await?;
    let files = sqlx::query(EXTENT_TOTALS).fetch_one(&mut *connection).await.map_err(failed())?;
    let directories = sqlx::query(EXTENT_DIRECTORIES).fetch_one(connection).await.map_err(failed())?;
    Ok(ExtentTotals {
        directories: count(&directories, 0)?,
        files: count(&files, 0)?,
        bytes: count(&files, 1)?,
        problems: count(&files, 2)? + count(&directories, 1)?,
        unreadable_directories: count(&directories, 1)?,
    })
}
