//! A checksum that keeps up with loopback: one multiplication for every eight bytes.
//!
//! It is for telling equal streams from unequal ones, where nobody means harm: lost, doubled, reordered or
//! foreign bytes. The step is the one that Firefox and rustc hash with (rotate, xor, multiply by an odd
//! constant), which is a bijection of the state for each word, so a single wrong word always shows.

/// What remains of a stream: its length and its checksum. Two streams with equal sums are taken to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Bytes in the stream.
    pub len: u64,
    /// The checksum over all of them, in order.
    pub hash: u64,
}

/// Sums up a stream that comes in pieces of any size.
#[derive(Clone, Debug)]
pub struct Digest {
    state: u64,
    held: [u8; 8],
    holds: usize,
    len: u64,
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

impl Digest {
    /// The digest of no bytes yet.
    pub fn new() -> Digest {
        Digest { state: SEED, held: [0; 8], holds: 0, len: 0 }
    }

    /// Takes the next bytes of the stream. Where the stream is cut into pieces does not matter.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.holds > 0 {
            let take = bytes.len().min(8 - self.holds);
            self.held[self.holds..self.holds + take].copy_from_slice(&bytes[..take]);
            self.holds += take;
            bytes = &bytes[take..];
            if self.holds < 8 {
                return;
            }
            self.step(u64::from_le_bytes(self.held));
            self.holds = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.step(u64::from_le_bytes(*word));
        }
        self.held[..rest.len()].copy_from_slice(rest);
        self.holds = rest.len();
    }

    /// What the stream so far comes to.
    pub fn sum(&self) -> Sum {
        let mut end = self.clone();
        end.held[end.holds..].fill(0);
        end.step(u64::from_le_bytes(end.held));
        end.step(end.len);
        Sum { len: self.len, hash: end.state ^ (end.state >> 29) }
    }

    fn step(&mut self, word: u64) {
        self.state = (self.state.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest::new()
    }
}

/// The sum of bytes that are all there.
pub fn of(bytes: &[u8]) -> Sum {
    let mut digest = Digest::new();
    digest.update(bytes);
    digest.sum()
}

/// Reads `source` to its end and sums up what came.
///
/// # Errors
/// What reading `source` says.
pub fn of_reader(source: &mut impl std::io::Read) -> std::io::Result<Sum> {
    let mut digest = Digest::new();
    let mut block = vec![0; 256 * 1024];
    loop {
        match source.read(&mut block) {
            Ok(0) => return Ok(digest.sum()),
            Ok(n) => digest.update(&block[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter_and_every_byte_does() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = of(&bytes);
        for size in 1..30 {
            let mut digest = Digest::new();
            bytes.chunks(size).for_each(|piece| digest.update(piece));
            assert_eq!(digest.sum(), whole, "in pieces of {size}");
        }
        for i in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[i] ^= 1;
            assert_ne!(of(&wrong), whole, "byte {i} changed");
        }
        assert_ne!(of(&bytes[..999]), whole, "a byte short");
        assert_ne!(of(&[0; 16]), of(&[0; 15]), "zeros count");
    }
}
