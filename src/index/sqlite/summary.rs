//! Figures: how many files, groups, pending, problems.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{SqliteIndex, catalog, scope};
use crate::index::convert::{read_json, to_count, to_integer, to_json};
use crate::index::rows::{Columns as _, read_problem};
use crate::index::{IndexError, Result};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::pending::{ExtentTotals, Unread};
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::volume::{Extent, Places};

const CREATE_GROUPS: &str = "
    create temp table groups (id integer primary key, size integer, hash blob, files integer, names integer)";

/// ?1: the smallest size. Without a scope, the index over hashes holds all that is asked for, in order.
fn select_groups_text(everywhere: bool, volumes: i64) -> String {
    // An inode alone is a physical file if there is but one volume.
    let physical = if volumes == 1 { "c.inode" } else { "c.volume_id || ' ' || c.inode" };
    let in_scope = if everywhere { "" } else { IN_SCOPE };
    format!(
        "insert into temp.groups (size, hash, files, names)
        select size, hash, files, names from (
            select c.size, c.hash, count(distinct {physical}) files, count(*) names from contents c
            where c.hash is not null and c.size >= ?1 {in_scope}
            group by c.hash, c.size having count(*) > 1)
        where files > 1"
    )
}

const IN_SCOPE: &str = "
    and c.file_id in (select id from files where directory_id in (select directory_id from temp.scope))";

const GROUP_FIGURES: &str = "
    select count(*), coalesce(sum(files - 1), 0), coalesce(sum(size * (files - 1)), 0) from temp.groups";

const FILE_FIGURES: &str = "
    select count(*), coalesce(sum(size), 0), (
        select count(*) from problems p join files f on f.id = p.file_id
        where ?1 or f.directory_id in (select directory_id from temp.scope))
    from files where ?1 or directory_id in (select directory_id from temp.scope)";

const DIRECTORY_PROBLEMS: &str = "
    select count(d.problem) from directories d
    where d.problem is not null and (?1 or d.id in (select directory_id from temp.scope))";

/// What a next run would read, but for what it could not read before. Only the sizes of files without hash are
/// compared, and samples only if one of them waits for its hash: few, once most is done.
/// `$file`: a condition on the `directory_id` of a file; `$content`: the same on the directory of a content's file.
macro_rules! pending_figures {
    ($file:literal, $content:literal) => {
        concat!(
            "
    with unread (id, size) as materialized (
        select f.id, f.size from files f left join contents c on c.file_id = f.id
        where c.file_id is null ",
            $file,
            "),
    by_size (size) as materialized (
        select size from files where size in (select size from unread) ",
            $file,
            "
        group by size
        having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
    by_sample (size, sample) as materialized (
        select size, sample from contents where sample is not null ",
            $content,
            "
        group by size, sample
        having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
    pending (id, is_wanted) as (
        select id, size in (select size from by_size) from unread
        union all
        select c.file_id, exists (select 1 from by_sample b where b.size = c.size and b.sample = c.sample)
        from contents c where c.hash is null)
    select count(*), coalesce(sum(f.size), 0) from pending p cross join files f on f.id = p.id
    where (p.is_wanted or f.directory_id in (select directory_id from temp.hashed_wholly))
      and (?1 or f.directory_id in (select directory_id from temp.scope))
      and not exists (select 1 from problems where file_id = p.id) ",
            $file
        )
    };
}

const PENDING_FIGURES: &str = pending_figures!("", "");

/// The same where some directories are never read.
const READ_PENDING_FIGURES: &str = pending_figures!(
    "and directory_id not in (select directory_id from temp.never_read)",
    "and (select directory_id from files where id = file_id) not in (select directory_id from temp.never_read)"
);

const KEPT: &str = "select id, summary from figures";

const KEEP_FIGURES: &str = "insert into figures (summary) values (?)";

/// In the usual order of a report: what gains most comes first.
pub(super) const SELECT_BY_RECLAIMABLE: &str =
    "select size, hash, files, names from temp.groups order by size * (files - 1) desc, size desc, hash";

const FORGET_FIGURES: &str = "delete from figures";

/// The figures of the whole index if they were kept: then nothing is left to be read. The number is another each time
/// they are kept, so two connections that see the same see the same moment.
pub(super) async fn kept(connection: &mut SqliteConnection) -> Result<Option<(i64, Summary)>> {
    let kept: Option<(i64, String)> = sqlx::query_as(KEPT)
        .fetch_optional(connection)
        .await
        .map_err(IndexError::during("read the figures"))?;
    kept.map(|(number, text)| Ok((number, read_json(&text)?))).transpose()
}

/// Counts the whole index, whose figures are not kept. Keeps them and the groups, if nothing is left to be read and nothing
/// failed. Nobody else may be writing.
pub(super) async fn keep(index: &SqliteIndex, unread: Unread) -> Result<Summary> {
    let failed = || IndexError::during("keep the figures");
    let mut connection = index.connect().await?;
    sqlx::query("begin immediate").execute(&mut connection).await.map_err(failed())?;
    let mut second = index.connect().await?;
    let summary = summary(&mut connection, &mut second, &ReportFilter::default(), unread).await?;
    if summary.is_settled() {
        let figures = sqlx::query(KEEP_FIGURES).bind(to_json(&summary)?).execute(&mut connection).await;
        figures.map_err(failed())?;
        let groups = format!("insert into main.groups (size, hash, files, names) {SELECT_BY_RECLAIMABLE}");
        sqlx::query(AssertSqlSafe(groups)).execute(&mut connection).await.map_err(failed())?;
    }
    sqlx::query("commit").execute(&mut connection).await.map_err(failed())?;
    for connection in [connection, second] {
        connection.close().await.map_err(failed())?;
    }
    Ok(summary)
}

/// To be called in the transaction that changes any of them.
pub(super) async fn forget_figures(connection: &mut SqliteConnection) -> Result<()> {
    let forgotten = sqlx::query(FORGET_FIGURES).execute(connection).await;
    forgotten.map(drop).map_err(IndexError::during("forget the figures"))
}

/// The figures of a filter. Two connections share the work; while another process writes, they may see moments
/// a commit apart.
pub(super) async fn summary(
    first: &mut SqliteConnection,
    second: &mut SqliteConnection,
    filter: &ReportFilter,
    unread: Unread,
) -> Result<Summary> {
    let counted = async {
        let files = count_files(second, filter).await?;
        if matches!(unread, Unread::Nothing(_)) {
            debug_assert_eq!(count_pending(second, filter).await?, (0, 0));
            return Ok((files, (0, 0)));
        }
        Ok((files, count_pending(second, filter).await?))
    };
    let (groups, counted) = tokio::join!(find_groups(first, filter), counted);
    let (files, pending) = counted?;
    Ok(put_together(groups?, files, pending))
}

/// The figures of a filter, all of the moment that this connection sees; leaves its groups in
/// `temp.groups`, in no certain order.
pub(super) async fn select_groups(
    connection: &mut SqliteConnection,
    filter: &ReportFilter,
) -> Result<Summary> {
    let groups = find_groups(connection, filter).await?;
    if filter.is_everything()
        && let Some((_, kept)) = kept(connection).await?
    {
        return Ok(kept);
    }
    let files = count_files(connection, filter).await?;
    Ok(put_together(groups, files, count_pending(connection, filter).await?))
}

/// Three figures each, as they are counted.
fn put_together(
    (groups, redundant_files, reclaimable_bytes): (u64, u64, u64),
    (files, bytes, problems): (u64, u64, u64),
    (pending_files, pending_bytes): (u64, u64),
) -> Summary {
    Summary {
        files,
        bytes,
        groups,
        redundant_files,
        reclaimable_bytes,
        pending_files,
        pending_bytes,
        problems,
    }
}

async fn find_groups(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<(u64, u64, u64)> {
    let failed = || IndexError::during("find the groups");
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let volumes = sqlx::query_scalar("select count(*) from volumes").fetch_one(&mut *connection).await;
    let text = select_groups_text(filter.under.is_none(), volumes.map_err(failed())?);
    sqlx::query(CREATE_GROUPS).execute(&mut *connection).await.map_err(failed())?;
    let select = sqlx::query(AssertSqlSafe(text)).bind(to_integer(filter.min_size));
    select.execute(&mut *connection).await.map_err(failed())?;
    let figures = sqlx::query(GROUP_FIGURES).fetch_one(connection).await.map_err(failed())?;
    Ok((figures.count(0)?, figures.count(1)?, figures.count(2)?))
}

/// Files, their bytes, and problems with them and with directories.
async fn count_files(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<(u64, u64, u64)> {
    let failed = || IndexError::during("count files");
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let everywhere = filter.under.is_none();
    let files =
        sqlx::query(FILE_FIGURES).bind(everywhere).fetch_one(&mut *connection).await.map_err(failed())?;
    let directories = sqlx::query_scalar(DIRECTORY_PROBLEMS).bind(everywhere).fetch_one(connection).await;
    let directories: i64 = directories.map_err(failed())?;
    Ok((files.count(0)?, files.count(1)?, files.count(2)? + to_count(directories)))
}

/// Files that a next run would read, and their bytes.
async fn count_pending(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<(u64, u64)> {
    let rules = HashRules::of(&catalog::roots(connection).await?);
    scope::HASHED_WHOLLY.fill(connection, &rules).await?;
    let mut pending = PENDING_FIGURES;
    if rules.have(HashPolicy::None) {
        scope::NEVER_READ.fill(connection, &rules).await?;
        pending = READ_PENDING_FIGURES;
    }
    scope::fill(connection, filter.under.as_deref().unwrap_or_default()).await?;
    let pending = sqlx::query(pending).bind(filter.under.is_none()).fetch_one(connection).await;
    let pending = pending.map_err(IndexError::during("count files"))?;
    Ok((pending.count(0)?, pending.count(1)?))
}

const FORGET_PROBLEMS: &str = "
    delete from problems as p
    where exists (
        select 1 from files f
        where f.id = p.file_id and f.directory_id in (select directory_id from temp.never_read)
          and not exists (select 1 from rot r where r.directory_id = f.directory_id and r.name = f.name))
      and not exists (select 1 from contents c where c.file_id = p.file_id and c.hash is not null)";

/// Forgets what went wrong with files that are not read any more: nobody would ever try again. What has a hash, or
/// should have one, is verified all the same.
pub(super) async fn forget_problems_of_unread(connection: &mut SqliteConnection) -> Result<()> {
    let rules = HashRules::of(&catalog::roots(connection).await?);
    if rules.have(HashPolicy::None) {
        scope::NEVER_READ.fill(connection, &rules).await?;
        let forgotten = sqlx::query(FORGET_PROBLEMS).execute(connection).await;
        forgotten.map_err(IndexError::during("remember a root"))?;
    }
    Ok(())
}

const PROBLEMS: &str = "
    select d.volume_id, d.path, null, d.problem from directories d where d.problem is not null
    union all
    select d.volume_id, d.path, f.name, p.problem
    from problems p join files f on f.id = p.file_id join directories d on d.id = f.directory_id
    order by 1, 2, 3
    limit ?";

pub(super) async fn problems(
    connection: &mut SqliteConnection,
    places: &Places,
    limit: u64,
) -> Result<Vec<ProblemRow>> {
    let rows = sqlx::query(PROBLEMS).bind(to_integer(limit)).fetch_all(connection).await;
    let rows = rows.map_err(IndexError::during("read the problems"))?;
    rows.iter().map(|row| read_problem(row, places)).collect()
}

const EXTENT_TOTALS: &str = "
    select count(*), coalesce(sum(f.size), 0), count(p.file_id) from files f left join problems p on p.file_id = f.id
    where f.directory_id in (select directory_id from temp.scope)";

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
        directories: directories.count(0)?,
        files: files.count(0)?,
        bytes: files.count(1)?,
        problems: files.count(2)? + directories.count(1)?,
        unreadable_directories: directories.count(1)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::index::lock::OnBusy;
    use crate::index::sqlite::SqliteIndex;

    /// The steps of SQLite's virtual machine that it takes to count so many files, in hundreds.
    async fn steps(files: i64) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        for number in 1..=files {
            let file = "insert into files values (?1, 1, cast(?1 as blob), 1, 1000000, 0, 0, ?1)";
            sqlx::query(file).bind(number).execute(&mut connection).await.unwrap();
        }
        // Of four files, two share a sample and were read whole, two are alone with theirs.
        let contents = "
            insert into contents (file_id, sample, hash, size, inode, volume_id)
            select id, cast(case when id & 2 then 'of pair ' || (id >> 2) else 'of ' || id end as blob),
                   cast(case when id & 2 then 'hash of ' || id end as blob), size, inode, volume_id
            from files";
        sqlx::query(contents).execute(&mut connection).await.unwrap();
        let steps = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&steps);
        let count = move || counter.fetch_add(1, Ordering::Relaxed) < usize::MAX;
        connection.lock_handle().await.unwrap().set_progress_handler(100, count);
        assert_eq!(count_pending(&mut connection, &ReportFilter::default()).await.unwrap(), (0, 0));
        steps.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn many_sampled_files_of_one_size_are_not_compared_with_each_other() {
        let (few, many) = (steps(200).await, steps(800).await);
        assert!(many < few * 6, "{few} hundred steps for 200, {many} for 800");
    }
}
