//! The bytes every contestant must deliver: a function of the offset, so that nobody keeps a copy to compare
//! with.
//!
//! Each aligned 8-byte word is a mix of its index. Nothing repeats at a chunk size, so a block that is lost,
//! doubled or swapped with another shows.

/// One step of splitmix64: neighbouring inputs give unrelated words. Source: Steele, Lea, Flood,
/// "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the bytes that stand at `offset..offset + buf.len()`.
pub fn fill(buf: &mut [u8], offset: u64) {
    let mut at = offset;
    let mut rest = buf;
    while !rest.is_empty() {
        let word = mix(at / 8).to_le_bytes();
        let from = (at % 8) as usize;
        let n = rest.len().min(8 - from);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&word[from..from + n]);
        rest = later;
        at += n as u64;
    }
}

/// Checks that `bytes` are those that stand at `offset`.
///
/// # Errors
/// The offset of the first wrong byte.
pub fn check(bytes: &[u8], offset: u64) -> Result<(), u64> {
    let mut expected = [0; 4096];
    for (i, chunk) in bytes.chunks(expected.len()).enumerate() {
        let at = offset + (i * expected.len()) as u64;
        let want = &mut expected[..chunk.len()];
        fill(want, at);
        if want != chunk {
            let wrong = want.iter().zip(chunk).take_while(|(a, b)| a == b).count();
            return Err(at + wrong as u64);
        }
    }
    Ok(())
}

/// The first `len` bytes.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    fill(&mut all, 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_the_same_piece_of_the_whole() {
        let whole = bytes(20_000);
        for (from, to) in [(0, 20_000), (1, 2), (3, 11), (7, 8), (4095, 9001), (8, 16)] {
            assert_eq!(check(&whole[from..to], from as u64), Ok(()));
        }
    }

    #[test]
    fn a_wrong_byte_is_named_by_its_offset() {
        let mut piece = bytes(10_000)[100..].to_vec();
        piece[5_000] ^= 1;
        assert_eq!(check(&piece, 100), Err(5_100));
    }

    #[test]
    fn blocks_that_changed_places_are_seen() {
        let whole = bytes(128 << 10);
        assert!(check(&whole[64 << 10..], 0).is_err());
    }
}
