//! Subtrees as a set of directories, for statements to look rows up in.

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

use super::convert::column;
use crate::index::convert::below;
use crate::index::{IndexError, Result};
use crate::model::volume::Extent;

const CREATE: &str = "create temp table if not exists scope (directory_id integer primary key)";

const ADD: &str = "
    insert or ignore into temp.scope
    select id from directories where volume_id = ?1 and (path = ?2 or (path >= ?3 and path < ?4))";

const KNOWS: &str = "
    select exists (
        select 1 from directories where volume_id = ?1 and (path = ?2 or (path >= ?3 and path < ?4)))";

const ADD_ITSELF: &str = "
    insert or ignore into temp.scope select id from directories where volume_id = ? and path = ?";

/// Adds directories, without what lies below them, to `temp.scope`.
pub(super) async fn add(connection: &mut SqliteConnection, directories: &[Extent]) -> Result<()> {
    for Extent { volume, path } in directories {
        let add = sqlx::query(ADD_ITSELF).bind(volume.0).bind(path.as_bytes());
        add.execute(&mut *connection).await.map_err(IndexError::during("select directories"))?;
    }
    Ok(())
}

/// Fills `temp.scope (directory_id)` with the directories of these subtrees, and no others.
pub(super) async fn fill(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<()> {
    let failed = || IndexError::during("select directories");
    for statement in [CREATE, "delete from temp.scope"] {
        sqlx::query(statement).execute(&mut *connection).await.map_err(failed())?;
    }
    for extent in extents {
        of_subtree(ADD, extent).execute(&mut *connection).await.map_err(failed())?;
    }
    Ok(())
}

/// True if there is a directory in one of these subtrees.
pub(super) async fn knows(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<bool> {
    for extent in extents {
        let known = of_subtree(KNOWS, extent).fetch_one(&mut *connection).await;
        if column(&known.map_err(IndexError::during("look for a directory"))?, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A statement over the directories of a subtree.
fn of_subtree(text: &'static str, extent: &Extent) -> Query<'static, Sqlite, SqliteArguments> {
    let (low, high) = below(&extent.path);
    sqlx::query(text).bind(extent.volume.0).bind(extent.path.as_bytes().to_vec()).bind(low).bind(high)
}
