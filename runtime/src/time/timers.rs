//! The timers of a core: the pure wheel, and the clock that advances it.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wakes::{Plan, Wakes};
use super::wheel::{Key, Wheel};
use crate::clock;
use crate::contained::contained;

/// Names one timer.
pub(crate) type TimerKey = Key;

/// Nanoseconds of the wheel's unit of time. A wake is not more exact than that.
const TICK: u64 = 1000;

/// The wheel, in units since the core began.
pub(crate) struct Timers {
    epoch: Instant,
    wheel: RefCell<Wheel<Waker>>,
    /// When the clock was last read.
    asked: Cell<Instant>,
    wakes: Wakes,
}

impl Timers {
    /// `slack` is how late a timer may fire so that it can share a wake, if it was given.
    pub(crate) fn new(slack: Option<Duration>) -> Self {
        let epoch = clock::now();
        Self { epoch, wheel: RefCell::new(Wheel::new(0)), asked: Cell::new(epoch), wakes: Wakes::new(slack) }
    }

    /// Nanoseconds from the epoch to `instant`. They suffice for 584 years.
    fn since_epoch(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }

    /// Inserts a timer for `deadline`, rounded up to a unit. The time that has passed is rounded down, so
    /// nothing fires early.
    pub(crate) fn insert(&self, deadline: Instant, waker: &Waker) -> TimerKey {
        let tick = self.tick_of(deadline);
        // Cloned with nothing borrowed: a clone may run foreign code.
        let waker = waker.clone();
        self.wheel.borrow_mut().insert(tick, waker)
    }

    /// Inserts a timer that is due already.
    pub(crate) fn insert_due(&self, waker: &Waker) -> TimerKey {
        let waker = waker.clone();
        self.wheel.borrow_mut().insert(0, waker)
    }

    /// The first unit that begins at `deadline` or after it.
    fn tick_of(&self, deadline: Instant) -> u64 {
        self.since_epoch(deadline).div_ceil(TICK)
    }

    /// Moves a timer that has not fired to `deadline`. `None` when it has fired.
    pub(crate) fn postpone(&self, timer: TimerKey, deadline: Instant) -> Option<TimerKey> {
        let tick = self.tick_of(deadline);
        let mut wheel = self.wheel.borrow_mut();
        let waker = wheel.cancel(timer)?;
        Some(wheel.insert(tick, waker))
    }

    /// Whether `deadline` had passed when the clock was last read. `true` is certain, `false` is not.
    pub(crate) fn has_passed(&self, deadline: Instant) -> bool {
        deadline <= self.asked.get()
    }

    /// Makes a timer that has not fired wake `waker`. `false` when it has fired.
    pub(crate) fn rewake(&self, timer: TimerKey, waker: &Waker) -> bool {
        match self.wheel.borrow_mut().get_mut(timer) {
            None => return false,
            Some(kept) if kept.will_wake(waker) => return true,
            Some(_) => {}
        }
        // It is cloned, and the old one dropped, with nothing borrowed. The timer may have fired meanwhile.
        let mut waker = waker.clone();
        self.wheel.borrow_mut().get_mut(timer).map(|kept| std::mem::swap(kept, &mut waker)).is_some()
    }

    /// Removes a timer.
    pub(crate) fn cancel(&self, timer: TimerKey) {
        let waker = self.wheel.borrow_mut().cancel(timer);
        // Destructors of timers come here, and their thread may be panicking.
        if let Some(waker) = waker {
            contained("the destructor of a waker", || drop(waker));
        }
    }

    /// Wakes all timers that are due. Whether there were any, due or not.
    #[inline(always)]
    pub(crate) fn fire(&self) -> bool {
        let any = !self.is_empty();
        if any {
            self.fire_due();
        }
        any
    }

    #[inline(never)]
    fn fire_due(&self) {
        let now = clock::now();
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

    /// Whether there are no timers.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.wheel.borrow().is_empty()
    }

    /// How a core sleeps that has nothing else to do and wakes at `also` in any case. `None` without `also`
    /// and without timers.
    pub(crate) fn next_wake(&self, now: Instant, also: Option<Instant>) -> Option<Plan> {
        let now = self.since_epoch(now);
        let also = also.map(|at| self.since_epoch(at));
        let wheel = self.wheel.borrow();
        let Some(first) = wheel.next_expiry().map(|tick| tick.saturating_mul(TICK)) else {
            return also.map(|at| self.wakes.plan(now, at, at));
        };
        if let Some(at) = also.filter(|at| *at < first) {
            return Some(self.wakes.plan(now, at, at));
        }
        let reach = self.wakes.reach(now, first);
        let last = if reach > first { wheel.last_expiry(reach / TICK)?.saturating_mul(TICK) } else { first };
        Some(self.wakes.plan(now, first, last.max(first)))
    }

    /// The core slept as planned, and was woken by nothing else.
    pub(crate) fn slept(&self, plan: Plan) {
        self.wakes.slept(plan, self.since_epoch(clock::now()));
    }

    /// Removes all timers. Destructors of wakers may set new ones, which stay.
    pub(crate) fn clear(&self) {
        let mut wheel = std::mem::replace(&mut *self.wheel.borrow_mut(), Wheel::new(0));
        while let Some(waker) = wheel.expire(u64::MAX) {
            contained("the destructor of a waker", || drop(waker));
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Until when a core with these timers sleeps, in microseconds after the first timer, which is due in
    /// `ahead` microseconds.
    fn due(slack: u64, ahead: u64, timers: &[u64]) -> u64 {
        let wheel = Timers::new(Some(Duration::from_micros(slack)));
        let first = wheel.epoch + Duration::from_micros(ahead);
        for after in timers {
            wheel.insert(first + Duration::from_micros(*after), Waker::noop());
        }
        let plan = wheel.next_wake(wheel.epoch, None).expect("there are timers");
        u64::try_from(plan.left().as_micros()).expect("soon") - ahead
    }

    #[test]
    fn timers_that_fall_together_share_a_wake() {
        for ahead in [1, 60, 3_000] {
            assert_eq!(due(50, ahead, &[0]), 0, "a timer by itself");
            assert_eq!(due(50, ahead, &[0, 51]), 0);
            assert_eq!(due(50, ahead, &[0, 49]), 49);
            assert_eq!(due(50, ahead, &[30, 0, 10]), 30);
            assert_eq!(due(0, ahead, &[0, 1]), 0);
        }
        assert_eq!(due(50, 1_000_000, &[0, 49]), 0, "far away");
    }

    /// Seen to fail: with the wheel dropped as it is, by an abort.
    #[test]
    fn wakers_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
        let timers = Timers::new(None);
        let gone = crate::testing::BadWakers::give(3, |waker| {
            timers.insert(timers.epoch + Duration::from_secs(1), waker);
        });
        timers.clear();
        assert_eq!((gone.dropped(), timers.is_empty()), (3, true));
        let gone = crate::testing::BadWakers::give(3, |waker| {
            timers.insert_due(waker);
        });
        drop(timers);
        assert_eq!(gone.dropped(), 3);
    }

    /// Seen to fail, by an abort: with the waker dropped as it is.
    #[test]
    fn a_timer_whose_waker_panics_may_be_taken_away_by_a_thread_that_panics() {
        struct Takes<'a>(&'a Timers, TimerKey);
        impl Drop for Takes<'_> {
            fn drop(&mut self) {
                self.0.cancel(self.1);
            }
        }
        let timers = Timers::new(None);
        let mut key = None;
        let gone = crate::testing::BadWakers::give(1, |waker| {
            key = Some(timers.insert(timers.epoch + Duration::from_secs(1), waker));
        });
        let takes = Takes(&timers, key.expect("given"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _takes = takes;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!((gone.dropped(), timers.is_empty()), (1, true));
    }

    #[test]
    fn what_was_taken_away_keeps_nobody_waiting() {
        let timers = Timers::new(Some(Duration::from_micros(50)));
        let at = |us| timers.epoch + Duration::from_micros(us);
        timers.insert(at(1_000), Waker::noop());
        let gone = timers.insert(at(1_040), Waker::noop());
        // It is in the same slot, whose bound stays 1,040.
        timers.insert(at(1_070), Waker::noop());
        timers.cancel(gone);
        let plan = timers.next_wake(timers.epoch, None).expect("there are timers");
        assert_eq!(plan.left(), Duration::from_micros(1_000));
    }

    #[test]
    fn a_core_wakes_for_what_comes_first() {
        let timers = Timers::new(None);
        let left = |also: Option<u64>| {
            let also = also.map(|us| timers.epoch + Duration::from_micros(us));
            timers.next_wake(timers.epoch, also).map(|plan| plan.left().as_micros())
        };
        assert_eq!((left(None), left(Some(700))), (None, Some(700)));
        timers.insert(timers.epoch + Duration::from_micros(500), Waker::noop());
        assert_eq!((left(None), left(Some(700)), left(Some(300))), (Some(500), Some(500), Some(300)));
    }
}
