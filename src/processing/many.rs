//! BLAKE3 of many small files at once.
//!
//! BLAKE3 cuts a file into chunks of 1 KiB, and the vector instructions of a processor take up to sixteen chunks in hardly
//! more time than one. A small file has but a few, so the chunks of several files are taken together, and so is what joins
//! them to each file's own tree (section 2.1 of the [BLAKE3 paper](https://github.com/BLAKE3-team/BLAKE3-specs)): the hashes
//! are the same as of one file after the other. Only the last block of each, of up to 64 bytes, is taken alone. All that is
//! computed is computed by the `blake3` crate. What takes several inputs is a part of it that is public but not promised to
//! stay, so the crate's version is pinned; a promised one is under way
//! ([BLAKE3 #575](https://github.com/BLAKE3-team/BLAKE3/pull/575)).
//!
//! The crate's own inputs lie side by side, and its assembly for AVX2 and AVX-512 relies on that: of two to four inputs, up
//! to 48 bytes behind the first are read, too (and not used). So what is handed over here always lies in one buffer, in
//! ascending order: behind the first there are the others.

use std::ops::Range;

use blake3::platform::{Platform, le_bytes_from_words_32, words_from_le_bytes_32};
use blake3::{BLOCK_LEN, CHUNK_LEN, IncrementCounter, OUT_LEN};

use crate::model::digest::Digest;

/// Files of at most this many bytes gain from being hashed together: with sixteen chunks of its own, one is as fast alone.
pub(super) const SMALL: usize = 16 * CHUNK_LEN;

/// What a chunk and a parent begin with (table 1 of the paper).
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What a block is (table 3): the first or the last of a chunk, two values to be joined, or what the hash is made of.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// BLAKE3 of each file: where it is among the contents, one behind the other.
pub(super) fn hash_many(contents: &[u8], files: &[Range<usize>]) -> Vec<Digest> {
    assert!(files.is_sorted_by(|one, next| one.end <= next.start), "the module says why");
    let platform = Platform::detect();
    // The values of each file's chunks, then of what joins them; in the end its hash.
    let mut end = 0;
    let place_of_values = |file: &Range<usize>| {
        let start = end;
        end += file.len().div_ceil(CHUNK_LEN).max(1) * OUT_LEN;
        start..end
    };
    let mut trees: Vec<Range<usize>> = files.iter().map(place_of_values).collect();
    let mut values = vec![0; end];
    hash_whole_chunks(platform, contents, files, &trees, &mut values);
    hash_last_chunks(platform, contents, files, &trees, &mut values);
    while join(platform, &mut values, &mut trees, PARENT, |tree| tree.len() > BLOCK_LEN) {}
    join(platform, &mut values, &mut trees, PARENT | ROOT, |tree| tree.len() == BLOCK_LEN);
    trees.into_iter().map(|hash| Digest(values[hash].try_into().expect("one value is left"))).collect()
}

/// The values of all chunks that are whole, but of an only one: that is the root.
fn hash_whole_chunks(
    platform: Platform,
    contents: &[u8],
    files: &[Range<usize>],
    trees: &[Range<usize>],
    values: &mut [u8],
) {
    let most = files.iter().map(|file| file.len() / CHUNK_LEN).max().unwrap_or_default();
    let mut owners = Vec::new();
    // A chunk knows its place in its file, so those of one place are taken together.
    for number in 0..most {
        owners.clear();
        let mut chunks = Vec::new();
        for (file, tree) in files.iter().zip(trees).filter(|(file, _)| file.len() > CHUNK_LEN) {
            if let Some(chunk) = contents[file.clone()].as_chunks::<CHUNK_LEN>().0.get(number) {
                owners.push(tree.start + number * OUT_LEN);
                chunks.push(chunk);
            }
        }
        let hashed = hash_alike(platform, chunks, number, 0, CHUNK_START, CHUNK_END);
        for (owner, value) in owners.iter().zip(hashed) {
            values[*owner..][..OUT_LEN].copy_from_slice(&value);
        }
    }
}

/// The last chunk of a file, which is not whole or the only one.
struct LastChunk {
    /// Its blocks before the last.
    blocks: usize,
    /// Its place in its file.
    number: usize,
    /// Where it is among the contents.
    bytes: Range<usize>,
    /// Where its value is to be.
    owner: usize,
    /// [`ROOT`] if there is no other.
    root: u8,
}

/// The values of all chunks that are not whole, or the only ones.
fn hash_last_chunks(
    platform: Platform,
    contents: &[u8],
    files: &[Range<usize>],
    trees: &[Range<usize>],
    values: &mut [u8],
) {
    let last_chunk = |(file, tree): (&Range<usize>, &Range<usize>)| {
        let is_root = tree.len() == OUT_LEN;
        let number = if is_root { 0 } else { file.len() / CHUNK_LEN };
        let bytes = file.start + number * CHUNK_LEN..file.end;
        let owner = tree.start + number * OUT_LEN;
        // One that is empty still has a block.
        let blocks = bytes.len().saturating_sub(1) / BLOCK_LEN;
        let is_there = owner < tree.end;
        is_there.then_some(LastChunk { blocks, number, bytes, owner, root: if is_root { ROOT } else { 0 } })
    };
    let mut chunks: Vec<LastChunk> = files.iter().zip(trees).filter_map(last_chunk).collect();
    // Those with as many blocks at the same place of their files are taken together up to the last block.
    chunks.sort_by_key(|chunk| (chunk.blocks, chunk.number));
    for alike in chunks.chunk_by(|one, next| (one.blocks, one.number) == (next.blocks, next.number)) {
        for (chunk, mut value) in alike.iter().zip(hash_beginnings(platform, contents, alike)) {
            let bytes = &contents[chunk.bytes.clone()][chunk.blocks * BLOCK_LEN..];
            let mut block = [0; BLOCK_LEN];
            block[..bytes.len()].copy_from_slice(bytes);
            let length = u8::try_from(bytes.len()).expect("a block has 64 bytes");
            let start = if chunk.blocks == 0 { CHUNK_START } else { 0 };
            let flags = start | CHUNK_END | chunk.root;
            platform.compress_in_place(&mut value, &block, length, chunk.number as u64, flags);
            values[chunk.owner..][..OUT_LEN].copy_from_slice(&le_bytes_from_words_32(&value));
        }
    }
}

/// The values of chunks that are alike, without their last blocks.
fn hash_beginnings(platform: Platform, contents: &[u8], alike: &[LastChunk]) -> Vec<[u32; 8]> {
    fn of<const LEN: usize>(platform: Platform, contents: &[u8], alike: &[LastChunk]) -> Vec<[u32; 8]> {
        let number = alike.first().map_or(0, |chunk| chunk.number);
        let beginning = |chunk: &LastChunk| contents[chunk.bytes.clone()].first_chunk::<LEN>();
        let beginnings = alike.iter().filter_map(beginning).collect();
        hash_alike(platform, beginnings, number, 0, CHUNK_START, 0)
            .iter()
            .map(words_from_le_bytes_32)
            .collect()
    }
    /// How long an input is has to be known to the compiler.
    macro_rules! of_blocks {
        ($($blocks:literal)*) => {
            match alike.first().map_or(0, |chunk| chunk.blocks) {
                0 => vec![IV; alike.len()],
                $($blocks => of::<{ $blocks * BLOCK_LEN }>(platform, contents, alike),)*
                _ => unreachable!("a chunk has sixteen blocks"),
            }
        };
    }
    of_blocks!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

/// The values of some inputs, which begin like the first.
fn hash_alike<const LEN: usize>(
    platform: Platform,
    mut inputs: Vec<&[u8; LEN]>,
    number: usize,
    flags: u8,
    start: u8,
    end: u8,
) -> Vec<[u8; OUT_LEN]> {
    let count = inputs.len();
    // Those that do not fill the vectors are taken in powers of two, one after the other, and each of these takes about as long
    // as all that the vectors hold. So the last input is repeated up to the next power.
    let rest = count % platform.simd_degree();
    if let Some(last) = inputs.last().copied().filter(|_| rest > 0) {
        inputs.resize(count - rest + rest.next_power_of_two(), last);
    }
    let mut values = vec![[0; OUT_LEN]; inputs.len()];
    let no = IncrementCounter::No;
    platform.hash_many(&inputs, &IV, number as u64, no, flags, start, end, values.as_flattened_mut());
    values.truncate(count);
    values
}

/// Joins neighbours in some of the trees; false if there are none. A value without a neighbour stays as it is.
fn join(
    platform: Platform,
    values: &mut [u8],
    trees: &mut [Range<usize>],
    flags: u8,
    is_joined: impl Fn(&Range<usize>) -> bool,
) -> bool {
    let pairs: Vec<&[u8; BLOCK_LEN]> = trees
        .iter()
        .filter(|tree| is_joined(tree))
        .flat_map(|tree| values[tree.clone()].as_chunks().0)
        .collect();
    let joined = hash_alike(platform, pairs, 0, flags, 0, 0);
    let mut rest = joined.as_flattened();
    for tree in trees.iter_mut().filter(|tree| is_joined(tree)) {
        let pairs = tree.len() / BLOCK_LEN;
        let (own, others) = rest.split_at(pairs * OUT_LEN);
        values[tree.start..][..own.len()].copy_from_slice(own);
        values.copy_within(tree.start + pairs * BLOCK_LEN..tree.end, tree.start + own.len());
        tree.end -= own.len();
        rest = others;
    }
    !joined.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_one_after_the_other() {
        let lengths: Vec<usize> = (0..=SMALL + 65).collect();
        let mut bytes = vec![0; 100 * (SMALL + 100)];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for together in [1, 2, 5, 16, 64, 100] {
            for lengths in lengths.chunks(together) {
                let mut end = 0;
                let place = |length: &usize| {
                    // Some have others at once behind them.
                    let start = end + length % 3;
                    end = start + length;
                    start..end
                };
                let files: Vec<Range<usize>> = lengths.iter().map(place).collect();
                for (file, digest) in files.iter().zip(hash_many(&bytes[..end], &files)) {
                    let alone = blake3::hash(&bytes[file.clone()]);
                    assert_eq!(digest.0, *alone.as_bytes(), "{} bytes", file.len());
                }
            }
        }
    }
}
