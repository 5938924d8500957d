//! How roots are kept up to date, and who watches them.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::index::convert::{self, WATCH_PATIENCE, to_integer, to_json};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, Result};
use crate::model::scan::RootId;
use crate::model::stamp::Nanos;
use crate::model::upkeep::{NextReconciliation, Upkeep, Watch, WatchSign};
use crate::os;

pub(super) async fn put_upkeep(
    connection: &mut SqliteConnection,
    root: RootId,
    upkeep: &Upkeep,
) -> Result<()> {
    let put = sqlx::query("update roots set upkeep = ? where id = ?").bind(to_json(upkeep)?).bind(root.0);
    put.execute(connection).await.map(drop).map_err(IndexError::during("remember a root"))
}

/// A root that was removed meanwhile is not watched.
const SIGN: &str = "
    insert into watches (root_id, host, process, mode, reason, since, seen_at, events, next_at, next_reason)
    select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 where exists (select 1 from roots where id = ?1)
    on conflict (root_id, host) do update set process = excluded.process, mode = excluded.mode,
        reason = excluded.reason, since = excluded.since, seen_at = excluded.seen_at, events = excluded.events,
        next_at = excluded.next_at, next_reason = excluded.next_reason";

pub(super) async fn sign(connection: &mut SqliteConnection, host: &str, signs: &[WatchSign]) -> Result<()> {
    for sign in signs {
        let next = sign.next.as_ref();
        sqlx::query(SIGN)
            .bind(sign.root.0)
            .bind(host)
            .bind(std::process::id())
            .bind(sign.mode.as_str())
            .bind(sign.mode.reason())
            .bind(sign.since.0)
            .bind(Nanos::now().0)
            .bind(to_integer(sign.events))
            .bind(next.map(|next| next.at.0))
            .bind(next.map(|next| next.reason.as_str()))
            .execute(&mut *connection)
            .await
            .map_err(IndexError::during("say what is watched"))?;
    }
    Ok(())
}

pub(super) async fn end(connection: &mut SqliteConnection, host: &str, roots: &[RootId]) -> Result<()> {
    let roots: Vec<i64> = roots.iter().map(|root| root.0).collect();
    let ended = sqlx::query(
        "delete from watches where host = ? and process = ? and root_id in (select value from json_each(?))",
    )
    .bind(host)
    .bind(std::process::id())
    .bind(to_json(&roots)?)
    .execute(connection)
    .await;
    ended.map(drop).map_err(IndexError::during("say what is watched"))
}

const WATCHES: &str = "
    select root_id, host, process, mode, reason, since, seen_at, events, next_at, next_reason
    from watches order by root_id, host";

/// An index in a file is used on one host, so whether the process is there is seen at once.
pub(super) async fn watches(connection: &mut SqliteConnection) -> Result<Vec<Watch>> {
    let rows = sqlx::query(WATCHES).fetch_all(connection).await;
    rows.map_err(IndexError::during("read what is watched"))?.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<Watch> {
    let process = row.process(2)?;
    let silence = Nanos::now().0 - row.value::<i64>(6)?;
    let silence = Duration::from_nanos(u64::try_from(silence).unwrap_or_default());
    Ok(Watch {
        root: RootId(row.value(0)?),
        host: row.value(1)?,
        process,
        mode: convert::watch_mode(row.value(3)?, row.value(4)?)?,
        since: Nanos(row.value(5)?),
        silence,
        is_alive: silence < WATCH_PATIENCE && os::is_running(process),
        events: row.count(7)?,
        next: NextReconciliation::from_columns(row.value(8)?, row.value(9)?),
    })
}
