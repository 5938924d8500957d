//! Bit rot: content that is not what it was, though the file's stamp is.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::Digest;
use super::stamp::Nanos;

/// What is said of a rotten file where problems are listed.
pub const ROTTEN: &str = "content is not what it was, though nobody changed the file (bit rot)";

/// How many parts the ring of all hashes is cut into.
const PARTS: u32 = 1_000_000;

/// A sample is read in so many slices: what one that is stopped has finished is not read again.
const SLICES: u32 = 8;

/// A part of all files, in millionths; never none.
///
/// Files are chosen by the first bits of their hashes, which spread evenly whatever the files are. A sample is an arc
/// of the ring of all hashes, and the next one begins where it ended: so each file is reached within one round,
/// whatever comes and goes meanwhile, and nothing has to be remembered of any file. Copies of one content stand at one
/// place of the ring, so what a rotten file could be restored from is read in the same sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl FromStr for Share {
    type Err = String;

    /// Reads `5%` or `0.5%`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "expected a percentage such as 5% or 0.5%, at least 0.0001%".to_owned();
        let percent: f64 = text.strip_suffix('%').unwrap_or(text).trim().parse().map_err(|_| wrong())?;
        let parts = (percent / 100.0 * f64::from(PARTS)).round();
        if !(1.0..=f64::from(PARTS)).contains(&parts) {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let parts = parts as u32;
        Ok(Self(parts))
    }
}

impl Share {
    /// How many samples in a row reach every file.
    pub fn samples_in_a_round(self) -> u32 {
        PARTS.div_ceil(self.0)
    }

    /// Of 1, how much it is.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(PARTS)
    }

    /// The sample that follows a position, slice by slice.
    pub fn slices_from(self, position: RingPosition) -> Vec<HashRange> {
        let mut slices = Vec::new();
        let (mut from, mut left) = (position.0 % PARTS, self.0);
        while left > 0 {
            let length = self.0.div_ceil(SLICES).min(left).min(PARTS - from);
            slices.push(HashRange { from, to: from + length });
            from = (from + length) % PARTS;
            left -= length;
        }
        slices
    }
}

/// Up to where samples have come on the ring of all hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingPosition(u32);

impl RingPosition {
    /// In millionths of the ring.
    pub fn in_millionths(self) -> u32 {
        self.0
    }

    /// From what [`in_millionths`](Self::in_millionths) said.
    pub fn from_millionths(parts: u32) -> Self {
        Self(parts % PARTS)
    }
}

/// An arc of the ring of all hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    from: u32,
    /// At most `PARTS`.
    to: u32,
}

impl HashRange {
    /// Where it begins.
    pub fn start(self) -> RingPosition {
        RingPosition(self.from)
    }

    /// Where the next one begins.
    pub fn end(self) -> RingPosition {
        RingPosition(self.to % PARTS)
    }

    /// The hashes in it, from the first bytes on and below the second: texts of bytes that are compared one by one.
    pub fn bounds(self) -> (Vec<u8>, Vec<u8>) {
        let bound = |parts: u32| match u64::try_from((u128::from(parts) << 64) / u128::from(PARTS)) {
            Ok(bits) => bits.to_be_bytes().to_vec(),
            // Longer than any hash, and not less in any byte.
            Err(_) => vec![0xff; size_of::<Digest>() + 1],
        };
        (bound(self.from), bound(self.to))
    }
}

/// Which files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rereading {
    /// Those of which something is on record: rot, or that they could not be read.
    OnRecord,
    /// All others that have a hash, or those whose hash lies in this part of the ring.
    Hashed(Option<HashRange>),
}

/// A file whose content is not what it was, or that could not be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rot {
    /// Where it is.
    pub place: ShownPath,
    /// Its size in bytes.
    pub size: u64,
    /// The hash it had.
    pub expected: Digest,
    /// The hash of what was read; none if it could not be read.
    pub found: Option<Digest>,
    /// What stands where problems are listed.
    pub problem: String,
    /// When it was found.
    pub since: Nanos,
    /// Files that have the content it should have: a name of each, at most [`MOST_COPIES`].
    pub copies: Vec<RotCopy>,
}

/// Copies that are named of a rotten file.
pub const MOST_COPIES: u32 = 5;

/// A file that held, when it was last read, what a rotten one should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotCopy {
    /// Where it is.
    pub place: ShownPath,
    /// Its mtime then.
    pub modified: Nanos,
}

/// A path, and the host it is of, where the index knows several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPath {
    /// The host, or the volume that no host mounts.
    pub host: Option<Arc<str>>,
    /// The absolute path.
    pub path: PathBuf,
}

/// How a finding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The file, untouched, reads as it should: the disk, the cable or the memory erred.
    Withdrawn,
    /// Another file is in its place, with the content that it should have.
    Restored,
    /// Another file is in its place, with other content.
    Replaced,
    /// There is no file any more.
    Gone,
}

impl Ending {
    /// The word for it in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Restored => "restored",
            Self::Replaced => "replaced",
            Self::Gone => "gone",
        }
    }
}

/// A finding that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Where the file is, or was.
    pub place: ShownPath,
    /// How.
    pub ending: Ending,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!("5%".parse(), Ok(Share(50_000)));
        assert_eq!("0.5".parse(), Ok(Share(5_000)));
        assert_eq!("100%".parse(), Ok(Share(PARTS)));
        for wrong in ["0%", "101%", "-5%", "NaN%", "half", "", "0.00001%"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn twenty_samples_of_a_twentieth_cover_the_ring_once() {
        for (share, begin) in [("5%", 0), ("5%", 123_456), ("0.7%", 999_999), ("100%", 17), ("33%", 400_000)]
        {
            let share: Share = share.parse().unwrap();
            let (mut position, mut covered) = (RingPosition(begin), vec![0_u8; PARTS as usize]);
            for _ in 0..share.samples_in_a_round() {
                for slice in share.slices_from(position) {
                    assert_eq!(slice.start(), position);
                    assert!(slice.from < slice.to && slice.to <= PARTS);
                    covered[slice.from as usize..slice.to as usize].iter_mut().for_each(|times| *times += 1);
                    position = slice.end();
                }
            }
            assert!(covered.iter().all(|times| *times >= 1), "{share:?} from {begin}");
            assert!(!PARTS.is_multiple_of(share.0) || covered.iter().all(|times| *times == 1));
        }
    }

    #[test]
    fn ranges_that_meet_share_a_bound_and_the_last_holds_the_last_hash() {
        let (first, second) = (HashRange { from: 0, to: 400_000 }, HashRange { from: 400_000, to: PARTS });
        assert_eq!(first.bounds().1, second.bounds().0);
        assert!(first.bounds().0 <= vec![0; 32]);
        assert!(second.bounds().1 > vec![0xff; 32]);
    }
}
