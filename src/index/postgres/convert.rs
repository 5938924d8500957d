//! Reading PostgreSQL's rows.

use sqlx::Row as _;
use sqlx::postgres::{PgRow, Postgres};

use crate::index::{IndexError, Result};

/// Reads a column by position.
pub(super) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(|error| IndexError::Damaged(error.to_string()))
}
