//! The timers of a core: the pure wheel, and the clock that drives it.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wheel::{Key, Wheel};

/// Names one timer.
pub(crate) type TimerKey = Key;

/// Nanoseconds of a tick: what a wake can be exact to.
const TICK: u64 = 1000;
/// Nanoseconds that a wake is taken to need at most.
const SLOWEST_WAKE: u64 = 50_000;
/// How far ahead others are looked for that are due with the first, in slacks.
const SLACKS_AHEAD: u64 = 64;

/// The wheel, in ticks since the core began.
///
/// A timer by itself is fired as exactly as a wake can be. Where others follow it within the slack, the core sleeps until the
/// last of them, so that one wake fires all; and as it wakes some time after it wanted to, it wants to by so much earlier.
pub(crate) struct Timers {
    epoch: Instant,
    /// How late a timer may be for the sake of others, in ticks.
    slack: u64,
    wheel: RefCell<Wheel<Waker>>,
    /// When the clock was last asked.
    asked: Cell<Instant>,
    /// How much later than it wants to the core usually wakes, in nanoseconds.
    lag: Cell<u64>,
}

impl Timers {
    /// `slack` is how late a timer may be for the sake of others.
    pub(crate) fn new(slack: Duration) -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            slack: u64::try_from(slack.as_micros()).unwrap_or(u64::MAX),
            wheel: RefCell::new(Wheel::new(0)),
            asked: Cell::new(epoch),
            lag: Cell::new(0),
        }
    }

    /// Nanoseconds from the epoch to `instant`: 584 years of them fit.
    fn since_epoch(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }

    /// A timer for `deadline`, which is rounded up to a tick, as time passed is rounded down: nothing fires early.
    pub(crate) fn insert(&self, deadline: Instant, waker: &Waker) -> TimerKey {
        let tick = self.tick_of(deadline);
        self.wheel.borrow_mut().insert(tick, waker.clone())
    }

    /// A timer whose time has come already.
    pub(crate) fn insert_due(&self, waker: &Waker) -> TimerKey {
        self.wheel.borrow_mut().insert(0, waker.clone())
    }

    /// The first tick that begins at `deadline` or after it.
    fn tick_of(&self, deadline: Instant) -> u64 {
        self.since_epoch(deadline).div_ceil(TICK)
    }

    /// Lets a timer that has not fired do so at `deadline` instead. `None` when it has fired.
    pub(crate) fn postpone(&self, timer: TimerKey, deadline: Instant) -> Option<TimerKey> {
        let tick = self.tick_of(deadline);
        let mut wheel = self.wheel.borrow_mut();
        let waker = wheel.cancel(timer)?;
        Some(wheel.insert(tick, waker))
    }

    /// Whether `deadline` had passed when the clock was last asked: true is certain, false is not.
    pub(crate) fn has_passed(&self, deadline: Instant) -> bool {
        deadline <= self.asked.get()
    }

    /// Lets a timer that has not fired wake `waker` instead. False when it has fired.
    pub(crate) fn rewake(&self, timer: TimerKey, waker: &Waker) -> bool {
        let old = match self.wheel.borrow_mut().get_mut(timer) {
            None => return false,
            Some(old) if old.will_wake(waker) => None,
            Some(old) => Some(std::mem::replace(old, waker.clone())),
        };
        drop(old);
        true
    }

    /// Takes a timer away.
    pub(crate) fn cancel(&self, timer: TimerKey) {
        let waker = self.wheel.borrow_mut().cancel(timer);
        drop(waker);
    }

    /// Wakes all whose time has come.
    pub(crate) fn fire(&self) {
        if self.is_empty() {
            return;
        }
        let now = Instant::now();
        self.asked.set(now);
        let now = self.since_epoch(now) / TICK;
        loop {
            // The borrow ends before the waker runs.
            let due = self.wheel.borrow_mut().expire(now);
            match due {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.wheel.borrow().is_empty()
    }

    /// When a core that sleeps at `now` is to wake; `None` without timers.
    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let wheel = self.wheel.borrow();
        let first = wheel.next_expiry()?;
        let mut wake = first.saturating_mul(TICK);
        // What is far away is taken away more often than it fires, and not worth the look.
        let reach = self.slack.saturating_mul(SLACKS_AHEAD);
        if self.slack > 0 && first <= (self.since_epoch(now) / TICK).saturating_add(reach) {
            let last = wheel.last_expiry(first.saturating_add(self.slack))?.saturating_mul(TICK);
            if last > wake {
                wake = wake.max(last - self.lag.get().min(last));
            }
        }
        self.epoch.checked_add(Duration::from_nanos(wake))
    }

    /// The core slept until `at`, and nothing else has woken it.
    pub(crate) fn slept_until(&self, at: Instant) {
        let late = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // An eighth of what is new: one slow wake says little.
        self.lag.set((self.lag.get() * 7 + late.min(SLOWEST_WAKE)) / 8);
    }

    /// Takes all timers away.
    pub(crate) fn clear(&self) {
        let wheel = std::mem::replace(&mut *self.wheel.borrow_mut(), Wheel::new(0));
        drop(wheel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// When a core with these timers wakes, in microseconds after the first, which is `ahead` microseconds away.
    fn wakes(slack: u64, lag: u64, ahead: u64, timers: &[u64]) -> u64 {
        let wheel = Timers::new(Duration::from_micros(slack));
        wheel.lag.set(lag * TICK);
        let first = wheel.epoch + Duration::from_micros(ahead);
        for after in timers {
            wheel.insert(first + Duration::from_micros(*after), Waker::noop());
        }
        let wake = wheel.next_wake(wheel.epoch).expect("there are timers");
        u64::try_from((wake - first).as_micros()).expect("soon")
    }

    #[test]
    fn timers_that_fall_together_share_a_wake() {
        for ahead in [1, 60, 3_000] {
            assert_eq!(wakes(50, 20, ahead, &[0]), 0, "a timer by itself is exact");
            assert_eq!(wakes(50, 20, ahead, &[0, 51]), 0);
            assert_eq!(wakes(50, 20, ahead, &[0, 49]), 29, "earlier by what a wake is late");
            assert_eq!(wakes(50, 5, ahead, &[30, 0, 10]), 25);
            assert_eq!(wakes(50, 20, ahead, &[0, 10]), 0, "but not before the first");
            assert_eq!(wakes(0, 20, ahead, &[0, 1]), 0);
        }
        assert_eq!(wakes(50, 20, 1_000_000, &[0, 49]), 0, "far away");
    }

    #[test]
    fn what_was_taken_away_keeps_nobody_waiting() {
        let timers = Timers::new(Duration::from_micros(50));
        let at = |us| timers.epoch + Duration::from_micros(us);
        timers.insert(at(1_000), Waker::noop());
        let gone = timers.insert(at(1_040), Waker::noop());
        // In the same slot, which goes on to know of 1,040.
        timers.insert(at(1_070), Waker::noop());
        timers.cancel(gone);
        assert_eq!(timers.next_wake(timers.epoch), Some(at(1_000)));
    }

    #[test]
    fn how_late_wakes_are_is_learnt_little_by_little() {
        let timers = Timers::new(Duration::ZERO);
        let long_ago = Instant::now() - Duration::from_secs(1);
        timers.slept_until(long_ago);
        assert_eq!(timers.lag.get(), SLOWEST_WAKE / 8);
        for _ in 0..100 {
            timers.slept_until(long_ago);
        }
        assert!(timers.lag.get() > SLOWEST_WAKE / 8 * 7 && timers.lag.get() <= SLOWEST_WAKE);
        for _ in 0..100 {
            timers.slept_until(Instant::now() + Duration::from_secs(1));
        }
        assert!(timers.lag.get() < 10);
    }
}
