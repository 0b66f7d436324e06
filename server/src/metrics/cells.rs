//! What a core counts of its clients: written by its thread only, by plain loads and stores, and read by
//! anyone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number with one writer.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Only the core's own thread may call this.
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Methods that are told apart: those that are served. All others are one, so that clients cannot make up
/// series.
pub(super) const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "other"];
/// Status codes from 100 on.
pub(super) const CODES: usize = 500;

/// The upper bounds of times in microseconds: powers of two from 32 us to 33 s. The last bucket has none.
pub(super) const BOUNDS: usize = 21;

/// The upper bound of bucket `at`, in seconds.
pub(super) fn bound(at: usize) -> f64 {
    (32u64 << at) as f64 / 1e6
}

/// Times, by powers of two.
#[derive(Debug, Default)]
pub(super) struct Times {
    counts: [Cell; BOUNDS + 1],
    nanos: Cell,
}

impl Times {
    pub(super) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.add(nanos);
        self.counts[bucket(nanos)].add(1);
    }

    /// The counts of the buckets, each for itself, and the sum in nanoseconds.
    pub(super) fn get(&self) -> (Vec<u64>, u64) {
        (self.counts.iter().map(Cell::get).collect(), self.nanos.get())
    }
}

/// The bucket of a time: the first whose bound it does not exceed.
fn bucket(nanos: u64) -> usize {
    let units = nanos.div_ceil(32_000);
    // 0 and 1 belong to the first, 2 to the second, 3 and 4 to the third.
    let bits = u64::BITS - units.saturating_sub(1).leading_zeros();
    (bits as usize).min(BOUNDS)
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Files are served on it.
    Files,
    /// It is relayed.
    Relay,
}

pub(super) const KINDS: [&str; 2] = ["files", "relay"];

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayOutcome {
    /// Both sides have ended.
    Closed,
    /// One of them broke off, or was cut.
    Failed,
    /// No upstream took it.
    NoUpstream,
}

pub(super) const OUTCOMES: [&str; 3] = ["closed", "failed", "no_upstream"];

/// What happened to a file that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheEvent {
    /// It was open already.
    Hit,
    /// It had to be opened.
    Miss,
}

pub(super) const CACHE_EVENTS: [&str; 2] = ["hit", "miss"];

/// The cells of one core. On pages of their own, which the core is the first to write to: so they lie on its
/// node.
#[derive(Debug)]
#[repr(align(4096))]
pub(super) struct Cells {
    pub(super) requests: [[Cell; CODES]; METHODS.len()],
    pub(super) request_times: Times,
    pub(super) body_bytes: Cell,
    pub(super) opened: [Cell; KINDS.len()],
    pub(super) closed: [Cell; KINDS.len()],
    pub(super) relays: [Cell; OUTCOMES.len()],
    pub(super) relay_times: Times,
    pub(super) relay_bytes_up: Cell,
    pub(super) relay_bytes_down: Cell,
    pub(super) cache: [Cell; CACHE_EVENTS.len()],
}

impl Default for Cells {
    fn default() -> Self {
        Cells {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Cell::default())),
            request_times: Times::default(),
            body_bytes: Cell::default(),
            opened: Default::default(),
            closed: Default::default(),
            relays: Default::default(),
            relay_times: Times::default(),
            relay_bytes_up: Cell::default(),
            relay_bytes_down: Cell::default(),
            cache: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: with the bucket of the length of the number, at 64 us.
    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let micros = |micros: u64| bucket(micros * 1000);
        assert_eq!((micros(0), micros(1), micros(32), bucket(32_001)), (0, 0, 0, 1));
        assert_eq!((micros(33), micros(64), micros(65), micros(128), micros(129)), (1, 1, 2, 2, 3));
        assert_eq!((bound(0), bound(1)), (0.000032, 0.000064));
        for at in 0..BOUNDS {
            let nanos = (bound(at) * 1e9).round() as u64;
            assert_eq!((bucket(nanos), bucket(nanos + 1)), (at, at + 1));
        }
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }
}
