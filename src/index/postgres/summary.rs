//! Figures: how many files, groups, pending, problems.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use super::scope::{RuleArrays, ScopeArrays, governed, read_files, with_scope};
use super::session::{Session, expect_whole_tables};
use super::{catalog, changes};
use crate::index::convert::{to_count, to_integer};
use crate::index::rows::{Columns as _, read_problem};
use crate::index::{IndexError, Result};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::pending::{ExtentTotals, Unread};
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::volume::{Extent, Places};

/// What is being done, for errors.
const OPERATION: &str = "count files";

/// $5: true for all directories; $6: the smallest size; $7: true for the lower half of all hashes, false for the upper, null
/// for both. `$physical`: what tells physical files apart.
macro_rules! group_figures {
    ($physical:literal) => {
        with_scope!(
            ", counted as (
                select size, count(distinct ",
            $physical,
            ") as files from files
                where hash is not null and size >= $6::bigint
                  and coalesce((hash < '\\x80'::bytea) = $7::bool, true)
                  and ($5::bool or directory_id in (select id from scope))
                group by hash, size having count(*) > 1),
            grouped as (select size, files from counted where files > 1)
            select count(*), coalesce(sum(files - 1), 0)::bigint,
                   least(coalesce(sum(size::numeric * (files - 1)), 0), 9223372036854775807)::bigint
            from grouped"
        )
    };
}

const GROUP_FIGURES: &str = group_figures!("(volume_id, inode)");

/// If there is but one volume: numbers are compared in less time than rows are, all groups are found in four fifths of it.
const GROUP_FIGURES_OF_ONE_VOLUME: &str = group_figures!("inode");

const HAVE_ONE_VOLUME: &str = "select count(*) <= 1 from volumes";

const FILE_FIGURES: &str = with_scope!(
    " select count(*), least(coalesce(sum(size), 0), 9223372036854775807)::bigint, count(problem),
             (select count(*) from directories d
              where d.problem is not null and ($5::bool or d.id in (select id from scope)))
      from files where $5::bool or directory_id in (select id from scope)"
);

/// What a next run would read, but for what it could not read before. $5: true for all directories, else those of the
/// scope; $6 to $10: rules about hashing. `$files`: where the files are that are read.
macro_rules! pending_figures {
    ($files:expr) => {
        with_scope!(
            ", ",
            governed!(6, 7, 8, 9, 10),
            ", null_size (size) as materialized (
                select distinct size from ", $files, " f where hash is null and sample is null),
            by_size (size) as materialized (
                select size from ", $files, " f where size in (select size from null_size)
                group by size
                having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)),
            by_sample (size, sample) as materialized (
                select size, sample from ", $files, " f where sample is not null
                group by size, sample
                having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id)) and bool_or(hash is null))
            select count(*), least(coalesce(sum(size), 0), 9223372036854775807)::bigint from ", $files, " f
            where hash is null and problem is null
              and ($5::bool or directory_id in (select id from scope))
              and (directory_id in (select id from governed where policy = 'all')
                   or case when sample is null then size in (select size from by_size)
                           else (size, sample) in (select size, sample from by_sample) end)"
        )
    };
}

const PENDING_FIGURES: &str = pending_figures!("files");

/// The same where some directories are never read.
const READ_PENDING_FIGURES: &str = pending_figures!(read_files!());

/// The figures of a filter.
pub(super) async fn summary(session: &Session, filter: &ReportFilter) -> Result<Summary> {
    let count = async |connection: &mut PgConnection| {
        see_one_moment(connection).await?;
        if let Some(kept) = kept_figures(connection, filter).await? {
            return Ok(kept);
        }
        share(session, connection, filter, false).await
    };
    session.transaction(OPERATION, count).await
}

/// The figures of the whole index, kept for as long as nothing changes.
pub(super) async fn keep(session: &Session, unread: Unread) -> Result<Summary> {
    let everything = ReportFilter::default();
    let keep = async |connection: &mut PgConnection| {
        see_one_moment(connection).await?;
        if let Some(kept) = kept_figures(connection, &everything).await? {
            return Ok(kept);
        }
        let is_all_read = unread == Unread::Nothing(changes::moment(connection).await?);
        let summary = share(session, connection, &everything, is_all_read).await?;
        changes::keep_figures(connection, &summary).await?;
        Ok(summary)
    };
    session.transaction("keep the figures", keep).await
}

/// What comes first in a transaction of several statements that belong together.
pub(super) async fn see_one_moment(connection: &mut PgConnection) -> Result<()> {
    let isolated = sqlx::query("set transaction isolation level repeatable read").execute(connection).await;
    isolated.map(drop).map_err(IndexError::during(OPERATION))
}

/// Three connections that see the same moment, that of the first, share the work: to find the groups takes longer than all the
/// rest, so each of the others finds half of them.
async fn share(
    session: &Session,
    first: &mut PgConnection,
    filter: &ReportFilter,
    is_all_read: bool,
) -> Result<Summary> {
    let failed = || IndexError::during(OPERATION);
    // It may wait for the others longer than any transaction that keeps somebody waiting.
    first.execute("set local idle_in_transaction_session_timeout = 0").await.map_err(failed())?;
    let moment: String =
        sqlx::query_scalar("select pg_export_snapshot()").fetch_one(&mut *first).await.map_err(failed())?;
    let find = |half: bool| {
        let see = format!("set transaction snapshot '{moment}'");
        session.transaction(OPERATION, async move |other: &mut PgConnection| {
            see_one_moment(other).await?;
            other.execute(AssertSqlSafe(see.as_str())).await.map_err(failed())?;
            expect_whole_tables(other, OPERATION).await?;
            find_groups(other, filter, Some(half)).await
        })
    };
    expect_whole_tables(first, OPERATION).await?;
    let (counted, lower, upper) = tokio::join!(count(first, filter, is_all_read), find(true), find(false));
    let (lower, upper) = (lower?, upper?);
    let groups = (lower.0 + upper.0, lower.1 + upper.1, lower.2.saturating_add(upper.2));
    Ok(with_groups(counted?, groups))
}

/// The same, by one connection, of the moment that its transaction sees.
pub(super) async fn summary_of_this_moment(
    connection: &mut PgConnection,
    filter: &ReportFilter,
) -> Result<Summary> {
    if let Some(kept) = kept_figures(connection, filter).await? {
        return Ok(kept);
    }
    let groups = find_groups(connection, filter, None).await?;
    Ok(with_groups(count(connection, filter, false).await?, groups))
}

async fn kept_figures(connection: &mut PgConnection, filter: &ReportFilter) -> Result<Option<Summary>> {
    if filter.is_everything() { changes::kept_figures(connection).await } else { Ok(None) }
}

fn with_groups(counted: Summary, (groups, redundant_files, reclaimable_bytes): (u64, u64, u64)) -> Summary {
    Summary { groups, redundant_files, reclaimable_bytes, ..counted }
}

/// How many groups there are, their redundant files and reclaimable bytes; of one half of all hashes, or of both.
async fn find_groups(
    connection: &mut PgConnection,
    filter: &ReportFilter,
    half: Option<bool>,
) -> Result<(u64, u64, u64)> {
    let failed = || IndexError::during(OPERATION);
    let have_one = sqlx::query_scalar(HAVE_ONE_VOLUME).fetch_one(&mut *connection).await.map_err(failed())?;
    let text = if have_one { GROUP_FIGURES_OF_ONE_VOLUME } else { GROUP_FIGURES };
    let under = ScopeArrays::new(filter.under.as_deref().unwrap_or_default());
    let groups = under.query(text).bind(filter.under.is_none()).bind(to_integer(filter.min_size)).bind(half);
    let figures = groups.fetch_one(connection).await.map_err(failed())?;
    Ok((figures.count(0)?, figures.count(1)?, figures.count(2)?))
}

/// All figures but those of groups.
async fn count(connection: &mut PgConnection, filter: &ReportFilter, is_all_read: bool) -> Result<Summary> {
    let everywhere = filter.under.is_none();
    let under = ScopeArrays::new(filter.under.as_deref().unwrap_or_default());
    let files = under.query(FILE_FIGURES).bind(everywhere).fetch_one(&mut *connection).await;
    let files = files.map_err(IndexError::during(OPERATION))?;
    let (pending_files, pending_bytes) = if is_all_read {
        debug_assert_eq!(count_pending(connection, filter).await?, (0, 0));
        (0, 0)
    } else {
        count_pending(connection, filter).await?
    };
    Ok(Summary {
        files: files.count(0)?,
        bytes: files.count(1)?,
        problems: files.count(2)? + files.count(3)?,
        pending_files,
        pending_bytes,
        ..Summary::default()
    })
}

/// Files that a next run would read, and their bytes.
async fn count_pending(connection: &mut PgConnection, filter: &ReportFilter) -> Result<(u64, u64)> {
    let under = ScopeArrays::new(filter.under.as_deref().unwrap_or_default());
    let rules = HashRules::of(&catalog::roots(connection).await?);
    let text = if rules.have(HashPolicy::None) { READ_PENDING_FIGURES } else { PENDING_FIGURES };
    let rules = RuleArrays::new(&rules, &[HashPolicy::All, HashPolicy::None]);
    let pending = rules.bind_to(under.query(text).bind(filter.under.is_none()));
    let pending = pending.fetch_one(connection).await.map_err(IndexError::during(OPERATION))?;
    Ok((pending.count(0)?, pending.count(1)?))
}

const FORGET_PROBLEMS: &str = concat!(
    "with ",
    governed!(1, 2, 3, 4, 5),
    " update files f set problem = null
      from governed g
      where g.id = f.directory_id and g.policy = 'none' and f.problem is not null and f.hash is null
        and (f.directory_id, f.name) not in (select directory_id, name from rot)"
);

/// Forgets what went wrong with files that are not read any more: nobody would ever try again. What has a hash, or
/// should have one, is verified all the same.
pub(super) async fn forget_problems_of_unread(connection: &mut PgConnection) -> Result<()> {
    let rules = HashRules::of(&catalog::roots(connection).await?);
    if rules.have(HashPolicy::None) {
        let operation = "remember a root";
        expect_whole_tables(connection, operation).await?;
        let rules = RuleArrays::new(&rules, &[HashPolicy::None]);
        let forgotten =
            rules.bind_to(sqlx::query(FORGET_PROBLEMS).persistent(false)).execute(connection).await;
        forgotten.map_err(IndexError::during(operation))?;
    }
    Ok(())
}

const PROBLEMS: &str = "
    select d.volume_id, d.path, null::bytea as name, d.problem from directories d where d.problem is not null
    union all
    select d.volume_id, d.path, f.name, f.problem from files f join directories d on d.id = f.directory_id
    where f.problem is not null
    order by 1, 2, 3 nulls first
    limit $1";

pub(super) async fn problems(
    connection: &mut PgConnection,
    places: &Places,
    limit: u64,
) -> Result<Vec<ProblemRow>> {
    let rows = sqlx::query(PROBLEMS).bind(to_integer(limit)).fetch_all(connection).await;
    let rows = rows.map_err(IndexError::during("read the problems"))?;
    rows.iter().map(|row| read_problem(row, places)).collect()
}

const EXTENT_TOTALS: &str = with_scope!(
    " select count(f.name), least(coalesce(sum(f.size), 0), 9223372036854775807)::bigint, count(f.problem),
             (select count(*) from scope),
             (select count(d.problem) from directories d where d.id in (select id from scope))
      from scope s join files f on f.directory_id = s.id"
);

pub(super) async fn extent_totals(connection: &mut PgConnection, extents: &[Extent]) -> Result<ExtentTotals> {
    let operation = "count files";
    expect_whole_tables(connection, operation).await?;
    let scope = ScopeArrays::new(extents);
    let row = scope.query(EXTENT_TOTALS).fetch_one(connection).await;
    let row = row.map_err(IndexError::during(operation))?;
    Ok(ExtentTotals {
        directories: row.count(3)?,
        files: row.count(0)?,
        bytes: row.count(1)?,
        problems: row.count(2)? + row.count(4)?,
        unreadable_directories: row.count(4)?,
    })
}

/// Tables with their indexes, of the schema that holds this index.
const SIZE: &str = "
    select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint from pg_class
    where relnamespace = current_schema()::regnamespace and relkind = 'r'
      and relname in ('files', 'directories', 'roots', 'extents', 'scans', 'volumes', 'mounts', 'workers', 'leases', 'listed', 'changes', 'figures', 'watches', 'rot', 'sampled', 'rereading')";

pub(super) async fn size(connection: &mut PgConnection) -> Result<u64> {
    let size = sqlx::query_scalar(SIZE).fetch_one(connection).await;
    Ok(to_count(size.map_err(IndexError::during("measure the index"))?))
}
