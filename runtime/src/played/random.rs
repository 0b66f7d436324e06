//! The random numbers of a play, all from one seed.

use std::cell::Cell;

/// A stream of numbers that follows from its seed alone (SplitMix64, Steele, Lea and Flood, 2014).
pub(super) struct Random(Cell<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        mix(state)
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Whether a chance of one in `n` has come.
    pub(super) fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `some`.
    pub(super) fn pick<T: Copy>(&self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream whose bytes are all alike.
pub(super) const ANY: u32 = 0;

/// The byte of a stream at an offset: what peers send, and what they expect.
pub(super) fn byte(stream: u32, at: u64) -> u8 {
    if stream == ANY {
        return 0x5A;
    }
    ((at ^ (u64::from(stream) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The first place where `bytes`, which begin at `at`, are not those of the stream.
pub(super) fn differs(stream: u32, at: u64, bytes: &[u8]) -> Option<u64> {
    let wrong = bytes.iter().zip(at..).find(|(is, at)| **is != byte(stream, *at));
    wrong.map(|(_, at)| at)
}
