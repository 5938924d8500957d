//! Groups of duplicates, in order.
//!
//! The server sorts the groups and their members, spilling to its disk what does not fit in memory, and
//! keeps the result in a held cursor; from there it is read by the window. No transaction is open
//! while a report waits for its reader.

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{AssertSqlSafe, Connection as _};

use super::scope::{ScopeArrays, with_scope};
use super::session::expect_whole_tables;
use super::summary::{see_one_moment, summary_of_this_moment};
use crate::index::convert::{stamp, to_integer};
use crate::index::members::{MemberRow, Members};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, ReportReader, Result};
use crate::model::group::{ReportFilter, ReportItem, SortBy, Summary};
use crate::model::volume::Places;

/// The groups ranked, then their members: in a group, physical files by their first name, and the names
/// of each together. $5: true for all directories; $6: the smallest size; $7: how many groups, or null.
/// The macro's parameters: what the order of the groups needs to know, and that order.
macro_rules! select_members {
    ($known:literal, $order:literal) => {
        with_scope!(
            ", counted as (
                select hash, size from files
                where hash is not null and size >= $6::bigint and ($5::bool or directory_id in (select id from scope))
                group by hash, size having count(*) > 1),
            named as materialized (
                select f.hash, f.size, f.volume_id, f.inode, f.mtime_ns, f.ctime_ns, f.name, d.path,
                       d.path || '/'::bytea || f.name as full_name
                from counted g join files f on f.hash = g.hash and f.size = g.size
                join directories d on d.id = f.directory_id
                where $5::bool or f.directory_id in (select id from scope)),
            grouped as (
                select hash, size, count(*) as files
                from (select distinct hash, size, volume_id, inode from named) physical
                group by hash, size having count(*) > 1),
            ranked as (
                select hash, size, files, row_number() over (order by ", $order, ") as rank
                from grouped", $known, " order by rank limit $7::bigint)
            select r.rank, m.volume_id, m.path, m.name, m.size, m.mtime_ns, m.ctime_ns, m.inode, r.hash, r.files
            from ranked r join (
                select n.*, first_value(full_name) over (
                    partition by hash, size, volume_id, inode order by full_name) as first_name
                from named n) m on m.hash = r.hash and m.size = r.size
            order by r.rank, m.first_name, m.volume_id, m.inode, m.full_name"
        )
    };
}

macro_rules! declare_report {
    ($known:literal, $order:literal) => {
        concat!("declare report no scroll cursor with hold for ", select_members!($known, $order))
    };
}

const BY_RECLAIMABLE: &str = declare_report!("", "size::numeric * (files - 1) desc, size desc, hash");
const BY_SIZE: &str = declare_report!("", "size desc, files desc, hash");
const BY_COUNT: &str = declare_report!("", "files desc, size desc, hash");
const BY_PATH: &str = declare_report!(
    " join (select distinct on (hash, size) hash, size, full_name, volume_id from named
            order by hash, size, full_name, volume_id) firsts using (hash, size)",
    "full_name, volume_id, hash"
);

/// A window; small enough that ten million rows need no more memory than ten thousand.
const NEXT: &str = "fetch 2048 from report";

/// Reads a report.
pub(super) struct PostgresReport {
    /// Its own, because the cursor lives as long as it does.
    connection: PgConnection,
    members: Members,
    summary: Summary,
}

impl PostgresReport {
    pub(super) async fn select(
        mut connection: PoolConnection<Postgres>,
        filter: &ReportFilter,
        places: &Places,
    ) -> Result<Self> {
        let operation = "collect the report";
        let failed = || IndexError::during(operation);
        let mut moment = connection.begin().await.map_err(failed())?;
        see_one_moment(&mut moment).await?;
        expect_whole_tables(&mut moment, operation).await?;
        let summary = summary_of_this_moment(&mut moment, filter).await?;
        declare(&mut moment, filter).await?;
        moment.commit().await.map_err(failed())?;
        Ok(Self { connection: connection.detach(), members: Members::new(places), summary })
    }
}

async fn declare(connection: &mut PgConnection, filter: &ReportFilter) -> Result<()> {
    let text = match filter.sort {
        SortBy::Reclaimable => BY_RECLAIMABLE,
        SortBy::Size => BY_SIZE,
        SortBy::Count => BY_COUNT,
        SortBy::Path => BY_PATH,
    };
    let scope = ScopeArrays::new(filter.under.as_deref().unwrap_or_default());
    let declared = scope
        .query(text)
        .bind(filter.under.is_none())
        .bind(to_integer(filter.min_size))
        .bind(filter.limit.map(to_integer))
        .execute(connection)
        .await;
    declared.map(drop).map_err(IndexError::during("collect the report"))
}

#[async_trait(?Send)]
impl ReportReader for PostgresReport {
    fn summary(&self) -> Summary {
        self.summary
    }

    async fn next(&mut self) -> Result<Vec<ReportItem>> {
        let rows = sqlx::query(AssertSqlSafe(NEXT)).fetch_all(&mut self.connection).await;
        let mut items = Vec::new();
        for row in &rows.map_err(IndexError::during("read the report"))? {
            let row = MemberRow {
                group: row.value(0)?,
                volume: row.value(1)?,
                directory: row.value(2)?,
                name: row.value(3)?,
                stamp: stamp(row.value(4)?, row.value(5)?, row.value(6)?, row.value(7)?),
                hash: row.value(8)?,
                files: row.count(9)?,
            };
            self.members.take(&row, &mut items)?;
        }
        Ok(items)
    }
}
