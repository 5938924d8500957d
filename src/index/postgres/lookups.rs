//! The index over sizes: by it a watcher finds the partners of a file.
//!
//! It is made when somebody watches, while others go on writing, and stays. Who only scans does without: what shares a
//! size is then found by reading the table once, which costs less than to keep the index.

use sqlx::postgres::PgConnection;

use super::session::Session;
use crate::index::{IndexError, Result};

/// What is being done, for errors.
const OPERATION: &str = "make the index over sizes";

/// With physical file and directory beside the size, sizes that files share are found in the index alone.
const MAKE: &str = "
    create index concurrently if not exists files_by_size on files (size, inode, volume_id, directory_id)";

const DROP: &str = "drop index concurrently if exists files_by_size";

/// One makes it at a time. The lock is that of the connection, since no transaction may be open meanwhile.
const LOCK: &str =
    "select pg_try_advisory_lock(hashtext('dupfind index over sizes'), hashtext(current_schema()))";

const UNLOCK: &str =
    "select pg_advisory_unlock(hashtext('dupfind index over sizes'), hashtext(current_schema()))";

/// Nothing if there is none; false if it is being made, or nobody finished it.
const IS_VALID: &str = "
    select indisvalid from pg_index
    where indexrelid = to_regclass(quote_ident(current_schema()) || '.files_by_size')";

/// As of the last time the server counted them.
const FILES: &str = "
    select reltuples::bigint from pg_class
    where oid = to_regclass(quote_ident(current_schema()) || '.files')";

/// About how many files there are, if the index over sizes is there.
pub(super) async fn files_by_size(connection: &mut PgConnection) -> Result<Option<i64>> {
    let failed = || IndexError::during("look for the index over sizes");
    let is_valid: Option<bool> =
        sqlx::query_scalar(IS_VALID).fetch_optional(&mut *connection).await.map_err(failed())?;
    if is_valid != Some(true) {
        return Ok(None);
    }
    sqlx::query_scalar(FILES).fetch_one(connection).await.map(Some).map_err(failed())
}

/// Makes the index over sizes, unless it is there or somebody else is at it.
pub(super) async fn make(session: &Session) -> Result<()> {
    let failed = || IndexError::during(OPERATION);
    let make = async || {
        let mut connection = session.acquire(OPERATION).await?;
        let is_valid: Option<bool> =
            sqlx::query_scalar(IS_VALID).fetch_optional(&mut *connection).await.map_err(failed())?;
        if is_valid == Some(true) {
            return Ok(());
        }
        let is_ours: bool = sqlx::query_scalar(LOCK).fetch_one(&mut *connection).await.map_err(failed())?;
        if !is_ours {
            return Ok(());
        }
        // One that nobody finished would stay as it is.
        let mut made = sqlx::query(DROP).execute(&mut *connection).await;
        if made.is_ok() {
            made = sqlx::query(MAKE).execute(&mut *connection).await;
        }
        let unlocked = sqlx::query(UNLOCK).execute(&mut *connection).await;
        if unlocked.is_err() {
            // The connection ends, and the lock with it.
            drop(connection.detach());
        }
        made.map(drop).map_err(failed())
    };
    session.patiently(make).await
}
