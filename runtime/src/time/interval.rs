//! Ticks at regular times.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::sleep::{Sleep, far_future, sleep_until};

use crate::clock;

/// What an [`Interval`] does about missed ticks. A tick is missed when it is asked for so late that the next
/// one is due too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MissedTick {
    /// Every missed tick comes at once, until the interval has caught up: there are as many ticks as periods.
    #[default]
    Burst,
    /// The late tick comes at once, and the next one a period later: all later ticks are shifted.
    Delay,
    /// The late tick comes at once, and the next one at the next of the original times: missed ticks are
    /// skipped.
    Skip,
}

/// Ticks at `start`, which is now, and then every `period`. See [`interval_at`].
///
/// # Panics
/// As [`interval_at`].
pub fn interval(period: Duration) -> Interval {
    interval_at(clock::now(), period)
}

/// Ticks at `start` and then every `period`.
///
/// # Panics
/// When `period` is zero.
///
/// ```
/// use std::time::Duration;
/// use annulus::time::{MissedTick, interval};
///
/// # annulus::Runtime::builder().pool_bytes(1 << 20).build()?.run(|| async {
/// let mut ticks = interval(Duration::from_millis(2)).missed(MissedTick::Skip);
/// let first = ticks.tick().await;
/// let second = ticks.tick().await;
/// assert!(second - first >= Duration::from_millis(2));
/// # Ok(())
/// # })?;
/// # Ok::<(), annulus::Error>(())
/// ```
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    Interval { sleep: sleep_until(start), period, missed: MissedTick::default() }
}

/// Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
    missed: MissedTick,
}

impl Interval {
    /// Sets what to do about missed ticks. The default is [`MissedTick::Burst`].
    pub fn missed(mut self, missed: MissedTick) -> Self {
        self.missed = missed;
        self
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When the next tick is due.
    pub fn next_due(&self) -> Instant {
        self.sleep.deadline()
    }

    /// The next tick: completes when it is due, and gives the time at which it was due.
    ///
    /// One task at a time waits, which is why it takes the interval by `&mut`.
    ///
    /// # Cancellation
    /// Safe: the tick is kept for the next call.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// As [`tick`](Self::tick), for a future written by hand.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Pin::new(&mut self.sleep).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let due = self.sleep.deadline();
        self.sleep.reset(next(due, clock::now(), self.period, self.missed));
        Poll::Ready(due)
    }

    /// Restarts: the next tick is due one period from now.
    pub fn reset(&mut self) {
        self.sleep.reset(super::deadline_after(self.period));
    }
}

/// The tick that follows the one that was due at `due` and is given at `now`.
fn next(due: Instant, now: Instant, period: Duration, missed: MissedTick) -> Instant {
    let regular = due.checked_add(period).unwrap_or_else(far_future);
    if now < regular {
        return regular;
    }
    match missed {
        MissedTick::Burst => regular,
        MissedTick::Delay => now.checked_add(period).unwrap_or_else(far_future),
        MissedTick::Skip => {
            let late = now.duration_since(regular).as_nanos() % period.as_nanos();
            // A remainder of whole seconds fits: it is less than the period.
            let into = Duration::new((late / 1_000_000_000) as u64, (late % 1_000_000_000) as u32);
            (now - into).checked_add(period).unwrap_or_else(far_future)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Seen to fail: with `<=` for `<` in `next`, a tick that is given exactly one period late does not count
    /// as missed.
    #[test]
    fn missed_ticks_come_at_once_move_or_are_left_out() {
        let start = Instant::now();
        let at = |ms: u32| start + MS * ms;
        let after = |now, missed| (next(at(0), at(now), 10 * MS, missed) - start).as_millis();
        for missed in [MissedTick::Burst, MissedTick::Delay, MissedTick::Skip] {
            assert_eq!((after(0, missed), after(9, missed)), (10, 10), "late, and not missed: {missed:?}");
        }
        assert_eq!([10, 19, 35].map(|now| after(now, MissedTick::Burst)), [10, 10, 10]);
        assert_eq!([10, 19, 35].map(|now| after(now, MissedTick::Delay)), [20, 29, 45]);
        assert_eq!([10, 19, 35].map(|now| after(now, MissedTick::Skip)), [20, 20, 40]);
        // Nothing overflows.
        next(start, start, Duration::MAX, MissedTick::Delay);
    }
}
