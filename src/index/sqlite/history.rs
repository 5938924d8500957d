//! The runs that were, and what the index held after each.

use std::collections::HashSet;

use sqlx::sqlite::SqliteConnection;

use super::catalog::is_reading;
use crate::index::convert::{self, to_integer};
use crate::index::rows::{Columns as _, read_figures, read_run};
use crate::index::{IndexError, Result};
use crate::model::history::{FiguresAt, HistoryFilter, Run};
use crate::model::scan::{ScanId, ScanKind, ScanStatus};

/// Runs by their numbers; the macro's parameter: which.
macro_rules! select_runs {
    ($which:literal) => {
        concat!(
            "select s.id, s.kind, s.status, s.started_at, s.discovered_at, s.ended_at, s.directories, s.files_seen,
                    s.bytes_seen, s.added, s.updated, s.removed, s.hashed, s.bytes_read, s.problems, s.events, s.error,
                    s.index_files, s.index_bytes, s.groups, s.redundant_files, s.reclaimable_bytes,
                    r.id, r.volume_id, r.path, r.shown_path, s.path, s.process
             from scans s left join roots r on r.id = s.root_id ",
            $which,
            " order by s.id desc limit ?1"
        )
    };
}

const ALL: &str = select_runs!("");
const OF_ROOT: &str = select_runs!("where s.root_id = ?2");

/// `is_held`: whether a process has the right to write at this moment.
pub(super) async fn history(
    connection: &mut SqliteConnection,
    filter: HistoryFilter,
    is_held: impl Fn() -> bool,
) -> Result<Vec<Run>> {
    let runs = read(connection, filter).await?;
    let is_running = |(run, _): &&(Run, Option<u32>)| run.status == ScanStatus::Running;
    let running: Vec<&(Run, Option<u32>)> = runs.iter().filter(is_running).collect();
    // A verification does not keep the right to write while it reads, so its process is looked for instead.
    let (reading, writing): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|(run, _)| run.kind == ScanKind::Verify);
    let mut dead: HashSet<ScanId> =
        reading.into_iter().filter(|(_, process)| !is_reading(*process)).map(|(run, _)| run.id).collect();
    if !writing.is_empty() && !is_held() {
        dead.extend(writing.into_iter().map(|(run, _)| run.id));
    }
    if dead.is_empty() {
        return Ok(runs.into_iter().map(|(run, _)| run).collect());
    }
    // Whoever ran them is gone, or has no right to write any more. They may just have ended in good order, and others may have
    // begun meanwhile: what ran before that was looked at, and is said to run after it, runs no more.
    let mut runs: Vec<Run> = read(connection, filter).await?.into_iter().map(|(run, _)| run).collect();
    for run in runs.iter_mut().filter(|run| run.status == ScanStatus::Running && dead.contains(&run.id)) {
        run.status = ScanStatus::Interrupted;
        run.error = Some(convert::DIED.to_owned());
    }
    Ok(runs)
}

/// Runs, each with the number of its process.
async fn read(connection: &mut SqliteConnection, filter: HistoryFilter) -> Result<Vec<(Run, Option<u32>)>> {
    let limit = to_integer(filter.limit);
    let query = match filter.root {
        None => sqlx::query(ALL).bind(limit),
        Some(root) => sqlx::query(OF_ROOT).bind(limit).bind(root.0),
    };
    let rows = query.fetch_all(connection).await.map_err(IndexError::during("read the history"))?;
    let process = |process: i64| u32::try_from(process).ok();
    rows.iter().map(|row| Ok((read_run(row)?, row.value::<Option<i64>>(27)?.and_then(process)))).collect()
}

/// Of the runs that end in the same part of the time, ?1 parts in all, the latest. With `max`, SQLite takes the other
/// columns from the row that has it.
const DEVELOPMENT: &str = "
    with noted as (
        select coalesce(ended_at, started_at) as at, id, index_files, index_bytes, groups, redundant_files,
               reclaimable_bytes
        from scans where index_files is not null),
    span as (select min(at) as first, max(max(at) - min(at), 1) as length from noted)
    select at, index_files, index_bytes, groups, redundant_files, reclaimable_bytes, max(at)
    from noted, span
    group by min(cast((at - first) * 1.0 / length * ?1 as integer), ?1 - 1)
    order by at";

pub(super) async fn development(connection: &mut SqliteConnection, points: u32) -> Result<Vec<FiguresAt>> {
    let rows = sqlx::query(DEVELOPMENT).bind(points).fetch_all(connection).await;
    let rows = rows.map_err(IndexError::during("read the history"))?;
    rows.iter().filter_map(|row| read_figures(row).transpose()).collect()
}
