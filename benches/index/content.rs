//! Files that never were on a disk: the same number always gives the same file.

use std::sync::Arc;

use dupfind::model::digest::{Digest, Sample};
use dupfind::model::listing::{Coverage, Entry, Listing};
use dupfind::model::path::VolumePath;
use dupfind::model::pending::{Finding, Job, Outcome, SMALL_FILE, Stage};
use dupfind::model::stamp::{Nanos, Stamp};
use dupfind::model::volume::MountedVolume;

/// Files in a directory.
const IN_DIRECTORY: u64 = 17;

/// One file in so many is larger than what is read whole at once.
const ONE_LARGE_IN: u64 = 100;

/// Spreads numbers over 64 bits, see `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn scatter(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What is in a file: three in ten repeat the content of another.
fn content_of(number: u64) -> u64 {
    if number % 10 < 3 { number - number % 10 + 3 } else { number }
}

/// Most sizes are shared: about ten files for each, some for one only.
fn size_of(content: u64, files: u64) -> u64 {
    let sizes = (files / 10).max(1);
    match content % ONE_LARGE_IN {
        3 => SMALL_FILE + 1 + scatter(content) % sizes,
        7 => SMALL_FILE / 2 + content % (SMALL_FILE / 2),
        _ => 1 + scatter(content) % sizes % (SMALL_FILE - 1),
    }
}

fn entry(number: u64, files: u64, changed: bool) -> Entry {
    let stamp = Stamp {
        size: size_of(content_of(number), files),
        mtime: Nanos(1_700_000_000_000_000_000 + i64::try_from(number).unwrap_or_default()),
        ctime: Nanos(1_700_000_000_000_000_000 + i64::from(changed)),
        inode: scatter(number) >> 16,
    };
    let name = format!("IMG_{number:08}.jpg").into_bytes().into();
    Entry { name, stamp, has_other_names: false }
}

/// All files as listings of whole directories, in batches of about `batch` rows; with `changed`, the first of each
/// directory is not what it was.
pub(crate) fn listings(
    volume: &Arc<MountedVolume>,
    files: u64,
    batch: usize,
    changed: bool,
) -> impl Iterator<Item = Vec<Listing>> {
    let directories = files.div_ceil(IN_DIRECTORY);
    let together = (batch as u64 / IN_DIRECTORY).max(1);
    let listing = move |directory: u64| {
        let first = directory * IN_DIRECTORY;
        let numbers = first..(first + IN_DIRECTORY).min(files);
        let entries = numbers.map(|number| entry(number, files, changed && number == first)).collect();
        let path = format!("/r/{:03}/{directory:07}", directory % 512);
        let directory = VolumePath::new(path.as_bytes());
        Listing { volume: Arc::clone(volume), directory, coverage: Coverage::Whole, entries }
    };
    (0..directories)
        .step_by(usize::try_from(together).unwrap_or(1))
        .map(move |first| (first..(first + together).min(directories)).map(&listing).collect())
}

/// What reading a job would have found.
pub(crate) fn outcomes(job: &Job, files: u64) -> impl Iterator<Item = Outcome> {
    let number = job.stamp.mtime.0 - 1_700_000_000_000_000_000;
    let content = content_of(u64::try_from(number).unwrap_or_default());
    debug_assert_eq!(job.stamp.size, size_of(content, files));
    let mut bytes = [0; 32];
    for (index, piece) in bytes.chunks_exact_mut(8).enumerate() {
        piece.copy_from_slice(&scatter(content + index as u64).to_le_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    let is_large = job.stamp.size > SMALL_FILE;
    let (ctime, sample) = (job.stamp.ctime, Sample(half));
    let finding = if is_large && job.stage == Stage::Size {
        Finding::Sampled { sample, ctime, racy: false }
    } else {
        Finding::Hashed { digest: Digest(bytes), sample: is_large.then_some(sample), ctime, racy: false }
    };
    job.names.iter().map(move |name| job.outcome(name.clone(), finding.clone()))
}
