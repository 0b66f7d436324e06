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
    /// While the core sleeps until a timer: when it is to wake, in nanoseconds since the epoch.
    wakes: Cell<Option<u64>>,
    /// How much later it usually does, in nanoseconds.
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
            wakes: Cell::new(None),
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
        if self.wheel.borrow().is_empty() {
            return;
        }
        let now = Instant::now();
        self.asked.set(now);
        let now = self.since_epoch(now);
        if let Some(late) = self.wakes.take().and_then(|wakes| now.checked_sub(wakes)) {
            // An eighth of what is new: one wake in a busy moment says little.
            self.lag.set((self.lag.get() * 7 + late.min(SLOWEST_WAKE)) / 8);
        }
        let now = now / TICK;
        loop {
            // The borrow ends before the waker runs.
            let due = self.wheel.borrow_mut().expire(now);
            match due {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// How long the core may sleep; `None` without timers.
    pub(crate) fn until_next(&self) -> Option<Duration> {
        let wheel = self.wheel.borrow();
        let first = wheel.next_expiry()?;
        let last =
            if self.slack == 0 { first } else { wheel.last_expiry(first.saturating_add(self.slack))? };
        let [first, last] = [first, last].map(|tick| tick.saturating_mul(TICK));
        let wakes = if last == first { first } else { first.max(last.saturating_sub(self.lag.get())) };
        self.wakes.set(Some(wakes));
        Some(Duration::from_nanos(wakes.saturating_sub(self.since_epoch(Instant::now()))))
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

    /// When a core with these timers wakes, in microseconds after the first.
    fn wakes(slack: u64, lag: u64, timers: &[u64]) -> u64 {
        let wheel = Timers::new(Duration::from_micros(slack));
        wheel.lag.set(lag * TICK);
        let first = wheel.epoch + Duration::from_secs(1);
        for after in timers {
            wheel.insert(first + Duration::from_micros(*after), Waker::noop());
        }
        assert!(wheel.until_next().expect("there are timers") <= Duration::from_secs(2));
        (wheel.wakes.get().expect("it is to wake") - wheel.since_epoch(first)) / TICK
    }

    #[test]
    fn timers_that_fall_together_share_a_wake() {
        assert_eq!(wakes(50, 20, &[0]), 0, "a timer by itself is exact");
        assert_eq!(wakes(50, 20, &[0, 51]), 0);
        assert_eq!(wakes(50, 20, &[0, 49]), 29, "earlier by what a wake is late");
        assert_eq!(wakes(50, 20, &[30, 0, 10]), 10);
        assert_eq!(wakes(50, 20, &[0, 10]), 0, "but not before the first");
        assert_eq!(wakes(0, 20, &[0, 1]), 0);
    }

    #[test]
    fn how_late_wakes_are_is_learnt_from_those_that_a_timer_was_to_bring() {
        let timers = Timers::new(Duration::ZERO);
        timers.insert(timers.epoch, Waker::noop());
        timers.fire();
        assert_eq!(timers.lag.get(), 0, "it was not asleep");
        for _ in 0..100 {
            timers.insert(timers.epoch, Waker::noop());
            assert_eq!(timers.until_next(), Some(Duration::ZERO));
            timers.fire();
        }
        assert!(timers.lag.get() > 0 && timers.lag.get() <= SLOWEST_WAKE);
    }
}
