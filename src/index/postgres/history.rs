//! The runs that were, and what the index held after each.

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgRow};

use super::workers::IS_ALIVE;
use crate::index::convert::{self, to_integer};
use crate::index::rows::{Columns as _, read_figures, read_run};
use crate::index::{IndexError, Result};
use crate::model::history::{FiguresAt, HistoryFilter, Run};
use crate::model::scan::ScanStatus;

/// $1: how many; `which`: of which root.
fn runs_query(which: &str) -> String {
    format!(
        "select s.id, s.kind, s.status, s.started_at, s.discovered_at, s.ended_at, s.directories, s.files_seen,
                s.bytes_seen, s.added, s.updated, s.removed, s.hashed, s.bytes_read, s.problems, s.events, s.error,
                s.index_files, s.index_bytes, s.groups, s.redundant_files, s.reclaimable_bytes,
                r.id, r.volume_id, r.path, r.shown_path, s.path,
                s.status = 'running'
                    and not exists (select 1 from workers w where w.id = s.worker_id and {IS_ALIVE})
         from scans s left join roots r on r.id = s.root_id {which} order by s.id desc limit $1"
    )
}

pub(super) async fn history(connection: &mut PgConnection, filter: HistoryFilter) -> Result<Vec<Run>> {
    let limit = to_integer(filter.limit);
    let of_root = if filter.root.is_some() { "where s.root_id = $2" } else { "" };
    let mut query = sqlx::query(AssertSqlSafe(runs_query(of_root))).bind(limit);
    if let Some(root) = filter.root {
        query = query.bind(root.0);
    }
    let rows = query.fetch_all(connection).await.map_err(IndexError::during("read the history"))?;
    rows.iter().map(read).collect()
}

/// A run whose process died is told as what it will be marked as.
fn read(row: &PgRow) -> Result<Run> {
    let run = read_run(row)?;
    let is_dead: bool = row.value(27)?;
    if is_dead {
        return Ok(Run { status: ScanStatus::Interrupted, error: Some(convert::DIED.to_owned()), ..run });
    }
    Ok(run)
}

/// Of the runs that end in the same part of the time, $1 parts in all, the latest.
const DEVELOPMENT: &str = "
    with noted as (
        select coalesce(ended_at, started_at) as at, id, index_files, index_bytes, groups, redundant_files,
               reclaimable_bytes
        from scans where index_files is not null),
    span as (select min(at) as first, greatest(max(at) - min(at), 1) as length from noted),
    parted as (
        select n.*, least(floor((at - first)::float8 / length * $1)::bigint, $1 - 1) as part from noted n, span),
    latest as (select distinct on (part) * from parted order by part, at desc, id desc)
    select at, index_files, index_bytes, groups, redundant_files, reclaimable_bytes from latest order by at";

pub(super) async fn development(connection: &mut PgConnection, points: u32) -> Result<Vec<FiguresAt>> {
    let rows = sqlx::query(DEVELOPMENT).bind(i64::from(points)).fetch_all(connection).await;
    let rows = rows.map_err(IndexError::during("read the history"))?;
    rows.iter().filter_map(|row| read_figures(row).transpose()).collect()
}
