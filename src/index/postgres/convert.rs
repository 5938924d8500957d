//! Reading PostgreSQL's rows.

use sqlx::Row as _;
use sqlx::postgres::{PgRow, Postgres};

use crate::index::convert::to_count;
use crate::index::{IndexError, Result};
use crate::model::path::VolumePath;

/// Reads a column by position.
pub(super) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// Reads a count or a size.
pub(super) fn count(row: &PgRow, index: usize) -> Result<u64> {
    Ok(to_count(column(row, index)?))
}

/// Reads a directory's path.
pub(super) fn volume_path(row: &PgRow, index: usize) -> Result<VolumePath> {
    Ok(VolumePath::new(column(row, index)?))
}
