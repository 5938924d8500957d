//! Between Rust's types and SQLite's signed integers and blobs: the one place for it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::index::{IndexError, Result};
use crate::model::digest::{Digest, Sample};
use crate::model::path::VolumePath;
use crate::model::scan::ScanStatus;

/// A count or a size as SQLite keeps it. No file is larger than `i64::MAX` bytes; a number beyond
/// saturates.
pub(super) fn to_integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count or a size that SQLite kept; never negative.
pub(super) fn to_count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// An inode is 64 bits without meaning: kept as the same bits.
pub(super) fn inode_to_integer(inode: u64) -> i64 {
    inode.cast_signed()
}

/// Reads a column by position.
pub(super) fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite>,
{
    // Unchecked: SQLite's values carry no declared type once they went through an expression.
    row.try_get_unchecked(index).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// Reads a count or a size.
pub(super) fn count(row: &SqliteRow, index: usize) -> Result<u64> {
    Ok(to_count(column(row, index)?))
}

/// Reads a directory's path.
pub(super) fn volume_path(row: &SqliteRow, index: usize) -> Result<VolumePath> {
    Ok(VolumePath::new(column(row, index)?))
}

/// A hash from its bytes.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes = bytes.try_into().map_err(|_| IndexError::Damaged("a hash is not 32 bytes".to_owned()))?;
    Ok(Digest(bytes))
}

/// A sample as a blob.
pub(super) fn sample_bytes(sample: Option<Sample>) -> Option<Vec<u8>> {
    sample.map(|sample| sample.0.to_vec())
}

/// Reads a scan's status.
pub(super) fn status(row: &SqliteRow, index: usize) -> Result<ScanStatus> {
    let word: &str = column(row, index)?;
    let found = ScanStatus::ALL.into_iter().find(|status| status.as_str() == word);
    found.ok_or_else(|| IndexError::Damaged(format!("unknown scan status {word:?}")))
}

/// Writes JSON for `json_each`.
pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| IndexError::Damaged(error.to_string()))
}

/// Reads JSON that SQLite made.
pub(super) fn read_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| IndexError::Damaged(error.to_string()))
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

/// The half-open range of bytes that holds every path below a directory, but not itself: `/` is
/// followed by `0` in ASCII.
pub(super) fn below(path: &VolumePath) -> (Vec<u8>, Vec<u8>) {
    ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat())
}
