//! The timers of a core: the pure wheel, and the clock that drives it.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wheel::{Key, Wheel};

/// Names one timer.
pub(crate) type TimerKey = Key;

/// The wheel in microseconds since the core began.
pub(crate) struct Timers {
    epoch: Instant,
    wheel: RefCell<Wheel<Waker>>,
    /// When the clock was last asked.
    asked: Cell<Instant>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        let epoch = Instant::now();
        Self { epoch, wheel: RefCell::new(Wheel::new(0)), asked: Cell::new(epoch) }
    }

    /// The tick that has begun at `instant`: time passed is rounded down, so that nothing fires early.
    fn tick(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.epoch).as_micros() as u64
    }

    /// A timer for `deadline`, which is rounded up to a tick.
    pub(crate) fn insert(&self, deadline: Instant, waker: &Waker) -> TimerKey {
        let after = deadline.saturating_duration_since(self.epoch);
        let tick = after
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(after.subsec_nanos().div_ceil(1000)));
        self.wheel.borrow_mut().insert(tick, waker.clone())
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
        let now = self.tick(now);
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
        let now = Instant::now().saturating_duration_since(self.epoch);
        Some(Duration::from_micros(next).saturating_sub(now))
    }

    /// Takes all timers away.
    pub(crate) fn clear(&self) {
        let wheel = std::mem::replace(&mut *self.wheel.borrow_mut(), Wheel::new(0));
        drop(wheel);
    }
}
