//! The process that writes: one at a time, so this is only for others to see.

use sqlx::sqlite::SqliteConnection;

use crate::index::convert::to_integer;
use crate::index::rows::{Columns as _, read_worker};
use crate::index::{IndexError, Result, WorkMark};
use crate::model::stamp::Nanos;
use crate::model::worker::{Participant, SignOfLife, Worker, WorkerId};

/// Whoever else has a row died before it could take it away.
const FORGET_DEAD: &str = "delete from workers";

const JOIN: &str = "
    insert into workers (host, process, task, started_at, seen_at) values (?1, ?2, ?3, ?4, ?4) returning id";

pub(super) async fn join(connection: &mut SqliteConnection, participant: &Participant) -> Result<WorkerId> {
    let failed = || IndexError::during("join the index");
    sqlx::query(FORGET_DEAD).execute(&mut *connection).await.map_err(failed())?;
    let id: i64 = sqlx::query_scalar(JOIN)
        .bind(&*participant.host)
        .bind(std::process::id())
        .bind(participant.task)
        .bind(Nanos::now().0)
        .fetch_one(connection)
        .await
        .map_err(failed())?;
    Ok(WorkerId(id))
}

const SIGN: &str = "
    update workers set seen_at = ?, files = ?, bytes = ?, files_per_second = ?, bytes_per_second = ?
    where id = ?";

pub(super) async fn sign(
    connection: &mut SqliteConnection,
    worker: WorkerId,
    sign: &SignOfLife,
) -> Result<()> {
    let signed = sqlx::query(SIGN)
        .bind(Nanos::now().0)
        .bind(to_integer(sign.files))
        .bind(to_integer(sign.bytes))
        .bind(sign.files_per_second)
        .bind(sign.bytes_per_second)
        .bind(worker.0);
    signed.execute(connection).await.map_err(IndexError::during("give a sign of life"))?;
    Ok(())
}

pub(super) async fn leave(connection: &mut SqliteConnection, worker: WorkerId) -> Result<()> {
    let left = sqlx::query("delete from workers where id = ?").bind(worker.0).execute(connection).await;
    left.map_err(IndexError::during("leave the index"))?;
    Ok(())
}

const WORKERS: &str = "
    select id, host, process, task, (?1 - started_at) / 1e9, (?1 - seen_at) / 1e9, ?2, 0, 0,
           files, bytes, files_per_second, bytes_per_second
    from workers";

/// It lives if the writers' lock is held.
pub(super) async fn workers(connection: &mut SqliteConnection, is_alive: bool) -> Result<Vec<Worker>> {
    let rows = sqlx::query(WORKERS).bind(Nanos::now().0).bind(is_alive).fetch_all(connection).await;
    rows.map_err(IndexError::during("read the workers"))?.iter().map(read_worker).collect()
}

pub(super) async fn work_mark(connection: &mut SqliteConnection) -> Result<WorkMark> {
    let discoveries = "select count(*) from scans where discovered_at is not null";
    let row = sqlx::query(discoveries).fetch_one(connection).await;
    Ok(WorkMark { discoveries: row.map_err(IndexError::during("look for work"))?.count(0)?, waiting: 0 })
}
