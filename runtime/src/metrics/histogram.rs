//! Counts by powers of two: cheap enough for a hot path, exact enough to show what is large.

use std::fmt;

use super::counter::Counter;

/// The number of buckets of a histogram: one for 0, one for each power of two up to 2^30 and more.
const BUCKETS: usize = 32;

/// The bucket of `value`: 0 for 0, and for others the length of the binary number.
fn bucket(value: u64) -> usize {
    // Twice and one more has the length that is looked for as its logarithm, and is never 0: that is asked of
    // the processor by one instruction.
    (2 * value.min(1 << (BUCKETS - 2)) + 1).ilog2() as usize
}

/// A histogram as its one writer writes it: a shift and a plain store for each value.
#[derive(Debug, Default)]
pub(crate) struct HistogramCells([Counter; BUCKETS]);

impl HistogramCells {
    /// Counts `value`. Only the core's own thread may call this: debug builds assert it.
    pub(crate) fn record(&self, value: u64) {
        self.0[bucket(value)].add(1);
    }

    pub(super) fn get(&self) -> Histogram {
        Histogram { counts: std::array::from_fn(|i| self.0[i].get()) }
    }
}

/// How often values of each size occurred: 0, 1, 2 to 3, 4 to 7, and so on to 2^30 and more.
///
/// `Display` prints `FROM:COUNT` for each bucket that is not empty, with commas between, or `-` when all are:
/// `0:7,1:120,4:3` are seven zeroes, 120 ones and three values from 4 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// Each bucket that is not empty: the least value that belongs to it, and how many values it has.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let from = |bucket: usize| if bucket == 0 { 0 } else { 1 << (bucket - 1) };
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(i, count)| (from(i), *count))
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut empty = true;
        for (from, count) in self.buckets() {
            write!(f, "{}{from}:{count}", if empty { "" } else { "," })?;
            empty = false;
        }
        if empty { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_bucket_of_its_power() {
        let cells = HistogramCells::default();
        assert_eq!(cells.get().to_string(), "-");
        for value in [0, 1, 2, 3, 4, 7, 8, u64::MAX, 1 << 30, (1 << 30) - 1] {
            cells.record(value);
        }
        let histogram = cells.get();
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(0, 1), (1, 1), (2, 2), (4, 2), (8, 1), (1 << 29, 1), (1 << 30, 2)]);
        assert_eq!(histogram.count(), 10);
        assert_eq!(histogram.to_string(), "0:1,1:1,2:2,4:2,8:1,536870912:1,1073741824:2");
    }
}
