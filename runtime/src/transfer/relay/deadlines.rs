//! When a relay has to end by itself. It is pure, so that its tests need no clock.
//!
//! Moving bytes reads no clock. A relay samples its figures [`SAMPLES`] times in its shortest limit, and
//! compares them with those of the previous sample. So a relay ends between its limit and an eighth more.

use std::time::{Duration, Instant};

/// How many samples there are in the time of the shortest limit.
const SAMPLES: u32 = 8;
/// The window over which a relay's rate is measured. Two in a row must be too slow, because the last bytes of
/// a burst fall into a window of their own.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// How long a relay may last, in its various states, and over which [road](super::super::Road) it moves bulk.
///
/// The default has no limit but for [`drain`](Self::drain).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayLimits {
    /// How long no byte may move in either direction or be acknowledged by a peer.
    pub idle: Option<Duration>,
    /// The same limit once one side has sent its end.
    pub half_closed: Option<Duration>,
    /// How long the relay may last from its beginning.
    pub lifetime: Option<Duration>,
    /// How long a side that is about to be reset may go without acknowledging any of the bytes that it was
    /// given before.
    pub drain: Duration,
    /// The least bytes a second, of both directions together. It is measured over windows of five seconds:
    /// two windows in a row that move something, but less than this, end the relay. Where nothing moves at
    /// all the idle limit holds.
    pub min_rate: Option<u64>,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self { idle: None, half_closed: None, lifetime: None, drain: Duration::from_secs(30), min_rate: None }
    }
}

/// The limit that a relay has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Idle,
    HalfClosed,
    Lifetime,
    Rate,
    /// The peer had its time to acknowledge the rest.
    Drain,
}

/// The phase of a relay, as far as its limits depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// A side has sent its end.
    HalfClosed,
    /// A side has gone, and the other one is being ended.
    BreakingOff,
}

/// The samples of one relay's figures.
#[derive(Debug)]
pub(super) struct Samples {
    born: Instant,
    /// The latest sample that has seen something move.
    active: Instant,
    /// How many bytes had moved at the previous sample.
    moved: u64,
    /// How many bytes peers had acknowledged at the previous sample. It is asked for once nothing moves.
    acknowledged: Option<u64>,
    phase: Phase,
    /// There where a rate is asked for: most relays do without, and their memory too.
    rate: Option<Box<Rate>>,
}

/// How fast a relay is.
#[derive(Debug)]
struct Rate {
    window: Instant,
    moved_before_window: u64,
    /// Whether the previous window was too slow.
    was_slow: bool,
}

impl Samples {
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, active: now, moved: 0, acknowledged: None, phase: Phase::Open, rate: None }
    }

    /// Samples the figures. Returns when the next sample is due (never, where there is no limit), or the
    /// limit that was reached. `moved` are the bytes of both directions; `acknowledged` returns how many of
    /// them peers have acknowledged.
    pub(super) fn sample(
        &mut self,
        limits: &RelayLimits,
        now: Instant,
        (phase, moved): (Phase, u64),
        acknowledged: impl FnOnce() -> u64,
    ) -> Result<Option<Instant>, Limit> {
        if phase != self.phase || moved != self.moved {
            (self.phase, self.moved, self.acknowledged, self.active) = (phase, moved, None, now);
        } else if now > self.active {
            let acknowledged = acknowledged();
            if self.acknowledged.replace(acknowledged).is_some_and(|before| before != acknowledged) {
                self.active = now;
            }
        }
        let (silence, limit) = match phase {
            Phase::BreakingOff => (Some(limits.drain), Limit::Drain),
            Phase::HalfClosed => (limits.half_closed.or(limits.idle), Limit::HalfClosed),
            Phase::Open => (limits.idle, Limit::Idle),
        };
        if silence.is_some_and(|silence| now.saturating_duration_since(self.active) >= silence) {
            return Err(limit);
        }
        let age = now.saturating_duration_since(self.born);
        if limits.lifetime.is_some_and(|lifetime| age >= lifetime) {
            return Err(Limit::Lifetime);
        }
        if limits.min_rate.is_some_and(|rate| self.is_slow(now, rate, moved)) {
            return Err(Limit::Rate);
        }
        Ok(self.next(limits, now, silence))
    }

    fn next(&self, limits: &RelayLimits, now: Instant, silence: Option<Duration>) -> Option<Instant> {
        let rate = limits.min_rate.map(|_| RATE_WINDOW);
        let step = [silence.map(|silence| silence / SAMPLES), rate].into_iter().flatten().min();
        let step = step.and_then(|step| now.checked_add(step.max(Duration::from_millis(1))));
        let end = limits.lifetime.and_then(|lifetime| self.born.checked_add(lifetime));
        [step, end].into_iter().flatten().min()
    }

    fn is_slow(&mut self, now: Instant, rate: u64, moved: u64) -> bool {
        let begin = || Box::new(Rate { window: self.born, moved_before_window: 0, was_slow: false });
        let last = self.rate.get_or_insert_with(begin);
        let passed = now.saturating_duration_since(last.window);
        if passed < RATE_WINDOW {
            return false;
        }
        let (bytes, due) = (moved - last.moved_before_window, rate as f64 * passed.as_secs_f64());
        let is_slow = bytes > 0 && (bytes as f64) < due;
        let too_slow = is_slow && last.was_slow;
        **last = Rate { window: now, moved_before_window: moved, was_slow: is_slow };
        too_slow
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Samples whenever a sample is due, until the end. Returns which limit ended it, and when. `at` gives
    /// the phase, and the bytes moved and acknowledged, at a time.
    fn lives(limits: &RelayLimits, at: impl Fn(Duration) -> (Phase, u64, u64)) -> Option<(Limit, Duration)> {
        let born = Instant::now();
        let (mut samples, mut now) = (Samples::new(born), born);
        for _ in 0..10_000 {
            let (phase, moved, acknowledged) = at(now - born);
            match samples.sample(limits, now, (phase, moved), || acknowledged) {
                Ok(Some(next)) => {
                    assert!(next > now, "a sample that is due at once is due for ever");
                    now = next;
                }
                Ok(None) => return None,
                Err(limit) => return Some((limit, now - born)),
            }
        }
        None
    }

    #[test]
    fn a_silent_relay_ends_at_its_limit_and_no_later_than_an_eighth_more() {
        let limits = RelayLimits { idle: Some(80 * SECOND), ..RelayLimits::default() };
        for last in [0_u64, 1, 9, 55, 81] {
            let (limit, at) = lives(&limits, |t| (Phase::Open, t.as_secs().min(last), 0)).unwrap();
            let silent = at - SECOND * last as u32;
            assert_eq!(limit, Limit::Idle);
            assert!((80 * SECOND..=90 * SECOND).contains(&silent), "{silent:?} after the byte at {last} s");
        }
    }

    #[test]
    fn each_state_has_its_limit() {
        let limits = RelayLimits {
            idle: Some(100 * SECOND),
            half_closed: Some(10 * SECOND),
            drain: 3 * SECOND,
            ..RelayLimits::default()
        };
        let (half, breaking) = ((Phase::HalfClosed, 0, 0), (Phase::BreakingOff, 0, 0));
        let around = |found: Option<(Limit, Duration)>, limit, at: Duration| {
            let (found, when) = found.expect("it ends");
            assert_eq!(found, limit);
            assert!((at..=at + at / 7).contains(&when), "{when:?} for {at:?}");
        };
        around(lives(&limits, |_| half), Limit::HalfClosed, 10 * SECOND);
        around(lives(&limits, |_| breaking), Limit::Drain, 3 * SECOND);
        // A peer that acknowledges, however slowly, has not given up.
        let slow = |t: Duration| (Phase::BreakingOff, 0, t.as_secs().min(60));
        around(lives(&limits, slow), Limit::Drain, 63 * SECOND);
        let idle_only = RelayLimits { half_closed: None, ..limits };
        around(lives(&idle_only, |_| half), Limit::HalfClosed, 100 * SECOND);
        assert_eq!(lives(&RelayLimits::default(), |_| half), None);
        // The silence before that does not count.
        let late = |t| if t < 90 * SECOND { (Phase::Open, 0, 0) } else { breaking };
        let (limit, at) = lives(&limits, late).unwrap();
        assert!(limit == Limit::Drain && at >= 93 * SECOND, "{limit:?} {at:?}");
    }

    #[test]
    fn a_busy_relay_ends_at_the_end_of_its_life() {
        let limits =
            RelayLimits { idle: Some(7 * SECOND), lifetime: Some(60 * SECOND), ..RelayLimits::default() };
        assert_eq!(
            lives(&limits, |t| (Phase::Open, t.as_millis() as u64, 0)),
            Some((Limit::Lifetime, 60 * SECOND))
        );
    }

    /// Seen to fail: with one slow window being enough, the end of the burst ends the relay.
    #[test]
    fn what_drips_ends_and_what_bursts_or_rests_does_not() {
        let limits = RelayLimits {
            min_rate: Some(1000),
            idle: Some(100 * SECOND),
            lifetime: Some(200 * SECOND),
            ..RelayLimits::default()
        };
        let (limit, at) = lives(&limits, |t| (Phase::Open, t.as_secs(), 0)).unwrap();
        assert!(limit == Limit::Rate && at < 20 * SECOND, "{limit:?} {at:?}");
        let fast = |t: Duration| (Phase::Open, t.as_millis() as u64 * 2, 0);
        assert_eq!(lives(&limits, fast).unwrap().0, Limit::Lifetime);
        let burst = |t| {
            let moved = if t > 7 * SECOND {
                100_001
            } else if t > SECOND {
                100_000
            } else {
                0
            };
            (Phase::Open, moved, 0)
        };
        assert_eq!(lives(&limits, burst).unwrap().0, Limit::Idle);
    }
}
