//! The timers of a core: the pure wheel, and the clock that drives it.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wheel::{Key, Wheel};

/// Names one timer.
pub(crate) type TimerKey = Key;

/// The finest tick, in nanoseconds.
const FINEST: u64 = 1000;

/// The wheel, in ticks since the core began. Timers of one tick fire in one wake: a tick of a microsecond is as exact as a
/// wake can be, a longer one gathers more timers and lets each be late by up to a tick.
pub(crate) struct Timers {
    epoch: Instant,
    /// Nanoseconds of a tick.
    tick: u64,
    wheel: RefCell<Wheel<Waker>>,
    /// When the clock was last asked.
    asked: Cell<Instant>,
}

impl Timers {
    /// `slack` is how late a timer may be.
    pub(crate) fn new(slack: Duration) -> Self {
        let tick = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX).max(FINEST);
        let epoch = Instant::now();
        Self { epoch, tick, wheel: RefCell::new(Wheel::new(0)), asked: Cell::new(epoch) }
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
        let nanoseconds = self.since_epoch(deadline);
        // A division by a constant costs a fraction of one by a variable.
        if self.tick == FINEST { nanoseconds.div_ceil(FINEST) } else { nanoseconds.div_ceil(self.tick) }
    }

    /// Lets a timer that has not fired do so at `deadline` instead. `None` when it has fired.
    pub(crate) fn postpone(&self, timer: TimerKey, deadline: Instant) -> Option<TimerKey> {
        let tick = self.tick_of(deadline);
        let mut wheel = self.wheel.borrow_mut();
        let waker = wheel.cancel(timer)?;
        Some(wheel.insert(tick, waker))
    }

    /// Whether `deadline` had passed when the clock was last asked: true is certain, false is not. With a slack the clock
    /// is asked now, since what has passed would otherwise wait for the end of a long tick.
    pub(crate) fn has_passed(&self, deadline: Instant) -> bool {
        deadline <= self.asked.get() || self.tick > FINEST && deadline <= Instant::now()
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
        let now = self.since_epoch(now) / self.tick;
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
        let next = self.wheel.borrow().next_expiry()?;
        let now = self.since_epoch(Instant::now());
        Some(Duration::from_nanos(next.saturating_mul(self.tick).saturating_sub(now)))
    }

    /// Takes all timers away.
    pub(crate) fn clear(&self) {
        let wheel = std::mem::replace(&mut *self.wheel.borrow_mut(), Wheel::new(0));
        drop(wheel);
    }
}
