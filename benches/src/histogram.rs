//! Latencies by size class, so that millions of them cost a few KiB and merge exactly.
//!
//! Buckets are log-linear as in HdrHistogram: below 128 ns each value has its own, above that 64 buckets
//! share each power of two, so a value is known to 1.6%.

/// Buckets of one power of two, as a power of two.
const BITS: u32 = 6;
/// Values below this are exact.
const EXACT: u64 = 2 << BITS;

/// Nanoseconds, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

fn bucket(ns: u64) -> usize {
    if ns < EXACT {
        return ns as usize;
    }
    let shift = ns.ilog2() - BITS;
    // The leading one is in the mantissa, so each further power of two adds 64 buckets.
    ((u64::from(shift) << BITS) + (ns >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket >> BITS) - 1;
    let mantissa = bucket - (shift << BITS);
    ((mantissa + 1) << shift).wrapping_sub(1)
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, ns: u64) {
        let bucket = bucket(ns);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.most = self.most.max(ns);
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The value that the share `q` (0 to 1) of all values does not exceed, within 1.6% upwards. `None`
    /// without values.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = ((q.clamp(0.0, 1.0) * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|bucket| upper(bucket).min(self.most))
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.most = self.most.max(other.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_follow_each_other() {
        let mut last = None;
        for bucket_of in 0..bucket(1 << 40) {
            let low = last.map_or(0, |upper: u64| upper + 1);
            assert_eq!((bucket(low), bucket(upper(bucket_of))), (bucket_of, bucket_of));
            last = Some(upper(bucket_of));
        }
        assert_eq!(upper(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_within_a_bucket() {
        let mut values: Vec<u64> = (0..10_000).map(|i| crate::pattern::mix(i) % 10_000_000).collect();
        let mut histogram = Histogram::default();
        values.iter().for_each(|ns| histogram.record(*ns));
        values.sort_unstable();
        for q in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((q * 10_000.0_f64).ceil() as usize).max(1);
            let (exact, found) = (values[rank - 1], histogram.quantile(q).unwrap());
            assert!(exact <= found && found as f64 <= exact as f64 * 1.016 + 1.0, "{q}: {exact} {found}");
        }
        assert_eq!(histogram.quantile(1.0), values.last().copied());
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn merged_is_as_if_recorded_together() {
        let (mut all, mut first, mut second) = Default::default();
        let record = |histogram: &mut Histogram, ns| histogram.record(ns);
        for i in 0..1_000_u64 {
            let ns = crate::pattern::mix(i) >> (i % 60);
            record(&mut all, ns);
            record(if i % 3 == 0 { &mut first } else { &mut second }, ns);
        }
        first.merge(&second);
        assert_eq!(first, all);
    }
}
