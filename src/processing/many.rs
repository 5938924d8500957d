//! BLAKE3 of many small files at once.
//!
//! BLAKE3 cuts a file into chunks of 1 KiB, and the vector instructions of a processor take up to sixteen chunks in hardly
//! more time than one. A small file has but a few, so the chunks of several files are taken together, and each file's are
//! joined to its own tree (section 2.1 of the [BLAKE3 paper](https://github.com/BLAKE3-team/BLAKE3-specs)): the hashes are the
//! same as of one file after the other. All that is computed is computed by the `blake3` crate. What takes chunks of several
//! inputs is a part of it that is public but not promised to stay, so the crate's version is pinned; a promised one is under
//! way ([BLAKE3 #575](https://github.com/BLAKE3-team/BLAKE3/pull/575)).

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::platform::Platform;
use blake3::{CHUNK_LEN, Hasher, IncrementCounter, OUT_LEN};

use crate::model::digest::Digest;

/// Inputs of at most this many bytes gain from being hashed together: with sixteen chunks of its own, one is as fast alone.
pub(super) const SMALL: usize = 8 * CHUNK_LEN;

/// What a chunk begins with (table 1 of the paper), and the flags of its first and its last block (table 3).
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;

/// BLAKE3 of each input.
pub(super) fn hash_many(inputs: &[&[u8]]) -> Vec<Digest> {
    let mut trees: Vec<Vec<ChainingValue>> = vec![Vec::new(); inputs.len()];
    let platform = Platform::detect();
    let (mut places, mut chunks, mut values) = (Vec::new(), Vec::new(), Vec::new());
    // A chunk knows its place in its file, so those of one place are taken together. An only chunk is the root, and
    // hashed as such.
    for number in 0..SMALL / CHUNK_LEN {
        places.clear();
        chunks.clear();
        for (place, input) in inputs.iter().enumerate().filter(|(_, input)| input.len() > CHUNK_LEN) {
            if let Some(chunk) = input.as_chunks::<CHUNK_LEN>().0.get(number) {
                places.push(place);
                chunks.push(chunk);
            }
        }
        values.resize(chunks.len() * OUT_LEN, 0);
        let no = IncrementCounter::No;
        platform.hash_many(&chunks, &IV, number as u64, no, 0, CHUNK_START, CHUNK_END, &mut values);
        for (place, value) in places.iter().zip(values.as_chunks::<OUT_LEN>().0) {
            trees[*place].push(*value);
        }
    }
    inputs.iter().zip(trees).map(|(input, tree)| Digest(*root(input, tree).as_bytes())).collect()
}

/// The hash of an input of whose first chunks the values are known.
fn root(input: &[u8], mut tree: Vec<ChainingValue>) -> blake3::Hash {
    let known = tree.len() * CHUNK_LEN;
    if tree.is_empty() || input.len() > SMALL {
        return blake3::hash(input);
    }
    if known < input.len() {
        let last = Hasher::new().set_input_offset(known as u64).update(&input[known..]).finalize_non_root();
        tree.push(last);
    }
    while tree.len() > 2 {
        let join = |pair: &[ChainingValue]| match pair {
            [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
            alone => alone[0],
        };
        tree = tree.chunks(2).map(join).collect();
    }
    merge_subtrees_root(&tree[0], &tree[1], Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_one_after_the_other() {
        let mut bytes = vec![0; SMALL + 100];
        Hasher::new().finalize_xof().fill(&mut bytes);
        let lengths: Vec<usize> = (0..=SMALL + 65).collect();
        for together in [1, 2, 5, 16, 64, 100] {
            for lengths in lengths.chunks(together) {
                let inputs: Vec<&[u8]> =
                    lengths.iter().map(|length| &bytes[length % 35..][..*length]).collect();
                for (input, digest) in inputs.iter().zip(hash_many(&inputs)) {
                    assert_eq!(digest.0, *blake3::hash(input).as_bytes(), "{} bytes", input.len());
                }
            }
        }
    }
}
