//! Streams of bytes that look random, can be made as fast as loopback carries them, and are known in advance.

use crate::digest::{Digest, Sum};

/// An endless stream of bytes that depends on its seed only. Every word differs from its neighbours and from
/// the same word of another seed, so that bytes that come twice, not at all, or from another connection
/// change the sum.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    word: u64,
}

impl Pattern {
    /// The stream of this seed, from its beginning.
    pub fn new(seed: u64) -> Pattern {
        Pattern { seed: seed.wrapping_mul(0xa076_1d64_78bd_642f), word: 0 }
    }

    /// Fills `block` with the next bytes.
    ///
    /// A length that is no multiple of 8 drops the rest of the last word; the stream is then the same only
    /// for the same lengths.
    pub fn fill(&mut self, block: &mut [u8]) {
        for piece in block.chunks_mut(8) {
            // The output function of SplitMix64 over a counter.
            let mut z = self.seed.wrapping_add(self.word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.word += 1;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^= z >> 27;
            piece.copy_from_slice(&z.to_le_bytes()[..piece.len()]);
        }
    }

    /// The first `len` bytes of this seed's stream.
    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Pattern::new(seed).fill(&mut bytes);
        bytes
    }

    /// The sum of the first `len` bytes of this seed's stream.
    pub fn sum(seed: u64, len: u64) -> Sum {
        let mut digest = Digest::new();
        for_each_block(seed, len, |block| {
            digest.update(block);
            Ok(())
        })
        .expect("a digest takes every block");
        digest.sum()
    }
}

/// Writes the first `len` bytes of this seed's stream to `sink`.
///
/// # Errors
/// What writing to `sink` says.
pub fn write_to(sink: &mut impl std::io::Write, seed: u64, len: u64) -> std::io::Result<()> {
    for_each_block(seed, len, |block| sink.write_all(block))
}

fn for_each_block(
    seed: u64,
    len: u64,
    mut give: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut block = vec![0; 256 * 1024];
    let mut left = len;
    while left > 0 {
        let now = left.min(block.len() as u64) as usize;
        pattern.fill(&mut block[..now]);
        give(&block[..now])?;
        left -= now as u64;
    }
    Ok(())
}
