//! Processes that joined, and their signs of life.
//!
//! A worker lives as long as it was heard of within its patience, by the server's clock. Everything it
//! holds (walks, leases) names its row; nothing has to be given back by one that dies.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use sqlx::postgres::types::PgInterval;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::session::Session;
use crate::index::convert::{DIED, to_integer};
use crate::index::rows::read_worker;
use crate::index::{IndexError, Result};
use crate::model::worker::{Pace, Participant, SignOfLife, Worker, WorkerId};

/// True of a row `w` of `workers` that was heard of in time.
pub(super) const IS_ALIVE: &str = "w.seen_at + w.patience > clock_timestamp()";

/// Signs of life within one patience: several may be lost.
const SIGNS: u32 = 6;

/// No worker says more often that it lives, nor less often.
const FASTEST: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(5);

const JOIN: &str = "
    insert into workers (host, process, task, patience) values ($1, $2, $3, $4) returning id";

/// The dead stay to be seen for a while; their leases are free at once.
const FORGET_DEAD: &str =
    "delete from workers w where w.seen_at + w.patience + interval '1 hour' < clock_timestamp()";

fn mark_dead_scans() -> String {
    format!(
        "update scans s set status = 'interrupted', error = $1
         where s.status = 'running'
           and not exists (select 1 from workers w where w.id = s.worker_id and {IS_ALIVE})"
    )
}

/// What was listed in pieces by walks that did not reach their end.
const FORGET_LISTED: &str = "
    delete from listed where scan_id not in (select id from scans where status = 'running')";

/// Joins, and cleans up after the dead.
pub(super) async fn join(
    connection: &mut PgConnection,
    participant: &Participant,
    patience: Duration,
) -> Result<WorkerId> {
    let failed = || IndexError::during("join the index");
    sqlx::query(FORGET_DEAD).execute(&mut *connection).await.map_err(failed())?;
    let mark = sqlx::query(AssertSqlSafe(mark_dead_scans())).bind(DIED);
    mark.execute(&mut *connection).await.map_err(failed())?;
    sqlx::query(FORGET_LISTED).execute(&mut *connection).await.map_err(failed())?;
    let id: i64 = sqlx::query_scalar(JOIN)
        .bind(&*participant.host)
        .bind(i64::from(std::process::id()))
        .bind(participant.task)
        .bind(interval(patience))
        .fetch_one(connection)
        .await
        .map_err(failed())?;
    Ok(WorkerId(id))
}

fn is_alone_query() -> String {
    format!("select not exists (select 1 from workers w where w.id <> $1 and {IS_ALIVE})")
}

/// True if nobody else is alive.
pub(super) async fn is_alone(connection: &mut PgConnection, worker: WorkerId) -> Result<bool> {
    let alone =
        sqlx::query_scalar(AssertSqlSafe(is_alone_query())).bind(worker.0).fetch_one(connection).await;
    alone.map_err(IndexError::during("look for other workers"))
}

/// Leaves: the row goes, and with it the hold on everything.
pub(super) async fn leave(connection: &mut PgConnection, worker: WorkerId) -> Result<()> {
    let left = sqlx::query("delete from workers where id = $1").bind(worker.0).execute(connection).await;
    left.map_err(IndexError::during("leave the index"))?;
    Ok(())
}

/// One that slept so long that its row was forgotten joins again under its old number.
const SIGN: &str = "
    insert into workers as w (id, host, process, task, patience, files, bytes, files_per_second, bytes_per_second)
    overriding system value values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    on conflict (id) do update set seen_at = clock_timestamp(), files = excluded.files, bytes = excluded.bytes,
        files_per_second = excluded.files_per_second, bytes_per_second = excluded.bytes_per_second";

/// Says that a worker lives until it is ended or dropped, on a connection of its own.
#[derive(Debug)]
pub(super) struct Heartbeat {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Heartbeat {
    pub(super) fn start(session: Session, worker: WorkerId, participant: Participant) -> Self {
        let patience = session.options().patience;
        let rhythm = (patience / SIGNS).clamp(FASTEST, SLOWEST);
        let mut pace = Pace::start(&participant.progress);
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let beat = async move {
            while tokio::time::timeout(rhythm, stopped.notified()).await.is_err() {
                let sign = pace.take(&participant.progress);
                if say(&session, worker, &participant, &sign).await.is_err() {
                    session.give_up_waiting();
                }
            }
        };
        Self { task: tokio::spawn(beat), stop }
    }

    /// Ends once a sign that is on its way has been answered: one that came later would write the row of a worker that left.
    pub(super) async fn end(mut self) {
        self.stop.notify_one();
        // It returns nothing, and if it panicked, nothing is on its way.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn say(
    session: &Session,
    worker: WorkerId,
    participant: &Participant,
    sign: &SignOfLife,
) -> Result<()> {
    let mut connection = session.acquire("give a sign of life").await?;
    let host = Arc::clone(&participant.host);
    let sign = sqlx::query(SIGN)
        .bind(worker.0)
        .bind(&*host)
        .bind(i64::from(std::process::id()))
        .bind(participant.task)
        .bind(interval(session.options().patience))
        .bind(to_integer(sign.files))
        .bind(to_integer(sign.bytes))
        .bind(sign.files_per_second)
        .bind(sign.bytes_per_second)
        .execute(&mut *connection);
    let answer = tokio::time::timeout(session.options().patience / 2, sign).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            drop(connection.detach());
            Err(IndexError::during("give a sign of life")(error))
        }
        Err(_) => {
            drop(connection.detach());
            Err(IndexError::CutOff)
        }
    }
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

fn workers_query() -> String {
    format!(
        "select w.id, w.host, w.process, w.task,
                extract(epoch from clock_timestamp() - w.started_at)::float8,
                extract(epoch from clock_timestamp() - w.seen_at)::float8, {IS_ALIVE},
                (select count(*) from leases l where l.worker_id = w.id),
                (select coalesce(sum(l.files), 0)::bigint from leases l where l.worker_id = w.id),
                w.files, w.bytes, w.files_per_second, w.bytes_per_second
         from workers w order by w.id"
    )
}

pub(super) async fn workers(connection: &mut PgConnection) -> Result<Vec<Worker>> {
    let rows = sqlx::query(AssertSqlSafe(workers_query())).fetch_all(connection).await;
    rows.map_err(IndexError::during("read the workers"))?.iter().map(read_worker).collect()
}
