//! Whether anything changed, and the figures that hold as long as nothing does.
//!
//! Many processes write at once, so nobody can take kept figures away in time. Instead each transaction that
//! changes something counts itself, and figures are kept with the count they were made at.

use sqlx::postgres::PgConnection;

use crate::index::convert::{read_json, to_json};
use crate::index::{IndexError, Result};
use crate::model::group::Summary;
use crate::model::pending::Moment;
use crate::model::worker::WorkerId;

/// Rows that processes count in: with so many, two seldom wait for each other.
const SLOTS: i64 = 256;

const COUNT: &str = "
    insert into changes (slot, number) values ($1, 1)
    on conflict (slot) do update set number = changes.number + 1";

/// To be called in a transaction that changes files, problems, or what is to be read.
pub(super) async fn note(connection: &mut PgConnection, worker: WorkerId) -> Result<()> {
    let noted = sqlx::query(COUNT).bind(worker.0 % SLOTS).execute(connection).await;
    noted.map(drop).map_err(IndexError::during("note a change"))
}

const MOMENT: &str = "select coalesce(sum(number), 0)::bigint from changes";

/// The moment that this transaction sees.
pub(super) async fn moment(connection: &mut PgConnection) -> Result<Moment> {
    let changes = sqlx::query_scalar(MOMENT).fetch_one(connection).await;
    changes.map(Moment).map_err(IndexError::during("look for changes"))
}

const KEPT: &str = "
    select summary from figures where changes = (select coalesce(sum(number), 0) from changes)";

/// The figures of the whole index, if they were kept and nothing changed since: then nothing is left to be read.
pub(super) async fn kept_figures(connection: &mut PgConnection) -> Result<Option<Summary>> {
    let kept: Option<String> = sqlx::query_scalar(KEPT)
        .fetch_optional(connection)
        .await
        .map_err(IndexError::during("read the figures"))?;
    kept.map(|text| read_json(&text)).transpose()
}

const KEEP: &str = "
    with forgotten as (delete from figures)
    insert into figures (changes, summary) select coalesce(sum(number), 0), $1 from changes";

/// Keeps the figures of the moment that this transaction sees, if nothing is left to be read and nothing failed.
pub(super) async fn keep_figures(connection: &mut PgConnection, summary: &Summary) -> Result<()> {
    if summary.is_settled() {
        let kept = sqlx::query(KEEP).bind(to_json(summary)?).execute(connection).await;
        kept.map_err(IndexError::during("keep the figures"))?;
    }
    Ok(())
}
