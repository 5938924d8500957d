//! The runs that were, and what the index held after each.

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgRow};

use super::convert::{column, count, volume_path};
use super::workers::IS_ALIVE;
use crate::index::convert::{self, to_integer};
use crate::index::{IndexError, Result};
use crate::model::history::{FiguresAt, HistoryFilter, Run, RunRoot};
use crate::model::path::{VolumePath, to_path};
use crate::model::scan::{RootId, ScanCounts, ScanId, ScanStatus};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, VolumeId};

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
    rows.iter().map(read_run).collect()
}

fn read_run(row: &PgRow) -> Result<Run> {
    let is_dead: bool = column(row, 27)?;
    let moment = |index| Ok::<_, IndexError>(column::<Option<i64>>(row, index)?.map(Nanos));
    let figure = |index| column::<Option<i64>>(row, index);
    Ok(Run {
        id: ScanId(column(row, 0)?),
        kind: convert::kind(column(row, 1)?)?,
        status: if is_dead { ScanStatus::Interrupted } else { convert::status(column(row, 2)?)? },
        root: read_root(row)?,
        started_at: Nanos(column(row, 3)?),
        discovered_at: moment(4)?,
        ended_at: moment(5)?,
        counts: ScanCounts {
            directories: count(row, 6)?,
            files_seen: count(row, 7)?,
            bytes_seen: count(row, 8)?,
            added: count(row, 9)?,
            updated: count(row, 10)?,
            removed: count(row, 11)?,
            hashed: count(row, 12)?,
            bytes_read: count(row, 13)?,
            problems: count(row, 14)?,
            events: count(row, 15)?,
        },
        error: if is_dead { Some(convert::DIED.to_owned()) } else { column(row, 16)? },
        figures: convert::figures([figure(17)?, figure(18)?, figure(19)?, figure(20)?, figure(21)?]),
    })
}

fn read_root(row: &PgRow) -> Result<Option<RunRoot>> {
    let Some(id) = column::<Option<i64>>(row, 22)? else { return Ok(None) };
    Ok(Some(RunRoot {
        id: RootId(id),
        extent: Extent { volume: VolumeId(column(row, 23)?), path: volume_path(row, 24)? },
        path: to_path(column(row, 25)?),
        within: column::<Option<&[u8]>>(row, 26)?.map(VolumePath::new),
    }))
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
    let mut moments = Vec::new();
    for row in rows.map_err(IndexError::during("read the history"))? {
        let figure = |index| column::<Option<i64>>(&row, index);
        let figures = convert::figures([figure(1)?, figure(2)?, figure(3)?, figure(4)?, figure(5)?]);
        if let Some(figures) = figures {
            moments.push(FiguresAt { at: Nanos(column(&row, 0)?), figures });
        }
    }
    Ok(moments)
}
