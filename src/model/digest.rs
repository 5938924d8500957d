//! What is known of a file's content: the hash of all of it, and the hash of three places.

use std::fmt;

use super::listing::Entry;

/// BLAKE3 of a file's whole content (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The first half of BLAKE3 over a file's first, middle and last bytes (16 bytes).
///
/// It only ever rules files out: equal samples lead to reading the whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sample(pub [u8; 16]);

/// What a directory held when it was listed: the first half of BLAKE3 over names and stamps (16 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of files in the order of their names.
    pub fn of(entries: &[Entry]) -> Self {
        let mut bytes = Vec::with_capacity(entries.len() * 64);
        for Entry { name, stamp, .. } in entries {
            // A name holds no NUL, so the next file cannot begin inside it.
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(&stamp.size.to_le_bytes());
            bytes.extend_from_slice(&stamp.mtime.0.to_le_bytes());
            bytes.extend_from_slice(&stamp.ctime.0.to_le_bytes());
            bytes.extend_from_slice(&stamp.inode.to_le_bytes());
        }
        Self(first_half(&blake3::hash(&bytes)))
    }
}

/// Half of BLAKE3's output: still a hash of that many bits.
pub(crate) fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
