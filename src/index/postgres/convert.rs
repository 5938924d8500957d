//! Reading what only PostgreSQL's rows have.

use sqlx::Row as _;
use sqlx::postgres::{PgRow, Postgres};

use crate::index::{IndexError, Result};

/// Reads an array by position.
pub(super) fn array<'r, T>(row: &'r PgRow, index: usize) -> Result<Vec<T>>
where
    Vec<T>: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(|error| IndexError::Damaged(error.to_string()))
}
