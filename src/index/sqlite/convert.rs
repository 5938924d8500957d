//! Reading SQLite's rows, and what travels through it as JSON.

use serde::{Deserialize, Deserializer};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::index::{IndexError, Result};

/// Reads a column by position.
pub(super) fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite>,
{
    // Unchecked: SQLite's values carry no declared type once they went through an expression.
    row.try_get_unchecked(index).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// Bytes that travel through JSON as SQLite's `hex` writes them.
pub(super) struct HexBytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let digits = <&str>::deserialize(deserializer)?.as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit - b'A' + 10) & 0xf,
        };
        Ok(Self(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()))
    }
}
