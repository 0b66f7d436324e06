//! The cost of distance: latency and bandwidth of a region, measured from wherever the calling thread runs.
//!
//! Latency is the time of one load whose address is the value of the load before, so neither the processor
//! nor the compiler can begin the next one early. The addresses go through all cache lines of the region in
//! one random cycle, so that no prefetcher guesses them. The region has to be much larger than the last level
//! cache, or the cache is measured.
//!
//! An unoptimised build measures its own code and not the memory.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::region::Region;

/// Bytes of a cache line on every machine that we run on.
const LINE: usize = 64;

/// A region whose cache lines form one random cycle. Nobody writes to it any more, so any number of threads
/// may measure it at once.
#[derive(Debug)]
pub struct Track {
    region: Region,
    lines: usize,
}

impl Track {
    /// Lays a cycle through the region. Takes about a second for a GiB.
    pub fn new(region: Region) -> Self {
        let lines = region.len() / LINE;
        let track = Self { region, lines };
        // SAFETY: this value owns the region, hands out nothing of it, and nobody else knows it yet: the only
        // reference.
        let words = unsafe {
            std::slice::from_raw_parts_mut(
                track.region.as_ptr().cast::<usize>(),
                lines * (LINE / size_of::<usize>()),
            )
        };
        let at = |line: usize| line * (LINE / size_of::<usize>());
        for line in 0..lines {
            words[at(line)] = line;
        }
        // Sattolo's algorithm: a random permutation that is a single cycle.
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for line in (1..lines).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            words.swap(at(line), at((random % line as u64) as usize));
        }
        track
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    fn words(&self) -> &[usize] {
        // SAFETY: the region is initialised (it is made of zeroes), lives as long as `self`, and is not
        // written to after `new`.
        unsafe {
            std::slice::from_raw_parts(
                self.region.as_ptr().cast::<usize>().cast_const(),
                self.lines * (LINE / size_of::<usize>()),
            )
        }
    }

    /// The mean time of a dependent load, over that many loads.
    pub fn latency(&self, loads: usize) -> Duration {
        let words = self.words();
        let mut line = 0;
        let began = Instant::now();
        for _ in 0..loads {
            line = words[line * (LINE / size_of::<usize>())];
        }
        black_box(line);
        began.elapsed() / loads.clamp(1, u32::MAX as usize) as u32
    }

    /// Reads the `part`th of `parts` equal parts once, in order. Returns how many bytes that were and how
    /// long it took.
    pub fn read(&self, part: usize, parts: usize) -> (usize, Duration) {
        let words = self.words();
        let len = words.len() / parts.max(1);
        let words = &words[part * len..(part + 1) * len];
        let began = Instant::now();
        // Eight sums, so that no addition waits for the one before.
        let mut sums = [0_usize; 8];
        for eight in words.as_chunks::<8>().0 {
            for (sum, word) in sums.iter_mut().zip(eight) {
                *sum = sum.wrapping_add(*word);
            }
        }
        black_box(sums);
        (len * size_of::<usize>(), began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn the_cycle_goes_through_every_line_once() {
        let node = Topology::discover().unwrap().memory_nodes().first().unwrap();
        let track = Track::new(Region::new(node, 64 << 10).unwrap());
        let (words, mut line, mut seen) = (track.words(), 0, vec![false; track.lines]);
        for _ in 0..track.lines {
            assert!(!std::mem::replace(&mut seen[line], true), "line {line} twice");
            line = words[line * (LINE / size_of::<usize>())];
        }
        assert_eq!(line, 0, "it ends where it began");
        assert!(track.latency(1000) > Duration::ZERO);
        assert_eq!(track.read(1, 2).0, 32 << 10);
    }
}
