//! What travels through SQLite as JSON.

use serde::{Deserialize, Deserializer};

/// Bytes that travel through JSON as SQLite's `hex` writes them.
pub(super) struct HexBytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = <&str>::deserialize(deserializer)?.as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit - b'A' + 10) & 0xf,
        };
        Ok(Self(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()))
    }
}
