//! How the table of files is hashed.

use std::hash::{BuildHasher, Hasher};

/// A sum over a path, eight bytes at a time. Only names of files that are there get into the table, so nobody
/// can fill it with names of one sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PathHash;

impl BuildHasher for PathHash {
    type Hasher = PathHasher;

    fn build_hasher(&self) -> PathHasher {
        PathHasher(0)
    }
}

/// The sum so far.
pub(super) struct PathHasher(u64);

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(FACTOR);
        let (words, rest) = bytes.as_chunks::<8>();
        let sum =
            words.iter().fold(self.0 ^ bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.0 = mix(sum, u64::from_le_bytes(last));
    }

    fn finish(&self) -> u64 {
        // A product's upper bits are mixed best; tables use the lower ones.
        self.0 ^ (self.0 >> 32)
    }
}
