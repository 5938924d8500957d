//! Subtrees as a set of directories, for statements to look rows up in.

use sqlx::sqlite::SqliteConnection;

use crate::index::convert::below;
use crate::index::{IndexError, Result};
use crate::model::volume::Extent;

const CREATE: &str = "create temp table if not exists scope (directory_id integer primary key)";

const ADD: &str = "
    insert or ignore into temp.scope
    select id from directories where volume_id = ?1 and (path = ?2 or (path >= ?3 and path < ?4))";

/// Fills `temp.scope (directory_id)` with the directories of these subtrees, and no others.
pub(super) async fn fill(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<()> {
    let failed = || IndexError::during("select directories");
    for statement in [CREATE, "delete from temp.scope"] {
        sqlx::query(statement).execute(&mut *connection).await.map_err(failed())?;
    }
    for extent in extents {
        let (low, high) = below(&extent.path);
        let add = sqlx::query(ADD).bind(extent.volume.0).bind(extent.path.as_bytes()).bind(low).bind(high);
        add.execute(&mut *connection).await.map_err(failed())?;
    }
    Ok(())
}
