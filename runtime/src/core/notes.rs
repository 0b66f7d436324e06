//! What a core notes of its ticks, so that [`crate::waits`] can say what tasks wait for.
//!
//! A core that takes notes has a loop of its own (`launch/core_thread.rs`), so that all others pay nothing.

use std::cell::Cell;
use std::time::Instant;

use crate::clock;
use crate::op::waits_for::WaitsFor;

/// The number of past ticks for which the end of their polls is kept.
const TICKS: usize = 64;

/// The notes of a core. Times are nanoseconds since [`start`](Notes::start).
pub(crate) struct Notes {
    start: Instant,
    tick: Cell<u64>,
    /// When the polls of this tick began.
    began: Cell<u64>,
    /// When the polls of the last ticks were over, by the tick's number.
    over: [Cell<u64>; TICKS],
    /// What wakes tasks at the moment.
    cause: Cell<WaitsFor>,
    /// Whether a receive found no buffer, in this poll or by the completion that is being handled.
    lacks_buffer: Cell<bool>,
    /// How many operations io-wq workers have done.
    done_by_workers: Cell<u64>,
}

/// How a task was woken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wake {
    /// What woke it.
    pub(crate) cause: WaitsFor,
    /// The part of the wait by which the core entered the ring late, at most.
    pub(crate) ticks: u64,
    /// Whether its receive has found no buffer.
    pub(crate) lacks_buffer: bool,
}

impl Notes {
    pub(crate) fn new() -> Self {
        Self {
            start: clock::now(),
            tick: Cell::new(0),
            began: Cell::new(0),
            over: [const { Cell::new(0) }; TICKS],
            cause: Cell::new(WaitsFor::Others),
            lacks_buffer: Cell::new(false),
            done_by_workers: Cell::new(0),
        }
    }

    /// The moment that times count from.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.start, clock::now())
    }

    /// The number of the tick.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.get()
    }

    /// A tick begins. From now on tasks are polled, and wake each other.
    pub(crate) fn polls_begin(&self) {
        self.tick.set(self.tick.get() + 1);
        self.began.set(self.now());
        self.cause.set(WaitsFor::Others);
    }

    /// The tick's tasks have been polled. What wakes tasks before the first completion is a timer.
    pub(crate) fn polls_end(&self) {
        self.over_in(self.tick.get()).set(self.now());
        self.cause.set(WaitsFor::Timer);
    }

    fn over_in(&self, tick: u64) -> &Cell<u64> {
        &self.over[tick as usize % TICKS]
    }

    /// A completion is handled next. The pair says what was waited for, and whether an io-wq worker did it.
    /// `given` operations have gone to such workers so far, and `workers` of them are done at a time.
    pub(crate) fn completes(&self, (waits_for, by_worker): (WaitsFor, bool), given: u64, workers: u64) {
        self.lacks_buffer.set(false);
        self.cause.set(waits_for);
        if by_worker {
            let under_way = given.saturating_sub(self.done_by_workers.get());
            self.done_by_workers.set(self.done_by_workers.get() + 1);
            if waits_for == WaitsFor::Disk && under_way > workers {
                self.cause.set(WaitsFor::Workers);
            }
        }
    }

    /// A receive has found no buffer.
    pub(crate) fn lacks_buffer(&self) {
        self.lacks_buffer.set(true);
    }

    /// A task is about to be polled.
    pub(crate) fn poll_begins(&self) {
        self.lacks_buffer.set(false);
    }

    /// Whether a receive of the task that was polled has found no buffer.
    pub(crate) fn found_no_buffer(&self) -> bool {
        self.lacks_buffer.get()
    }

    /// A task is woken that has waited since `since`, which was in `tick`.
    pub(crate) fn woken(&self, since: u64, tick: u64) -> Wake {
        let cause = self.cause.get();
        let ticks = match cause {
            WaitsFor::Others | WaitsFor::Timer => 0,
            _ => self.late(since, tick, cause),
        };
        Wake { cause, ticks, lacks_buffer: self.lacks_buffer.get() }
    }

    /// By how much the core was late, at most: the time from the request to the end of that tick's polls,
    /// before which the kernel did not see it, and the polls before the enter that brought the completion.
    fn late(&self, since: u64, tick: u64, cause: WaitsFor) -> u64 {
        let now = self.tick.get();
        let over = self.over_in(now).get();
        if now == tick {
            return over.saturating_sub(since);
        }
        let last = over.saturating_sub(self.began.get());
        // A receive is armed already, so only its completion can be late.
        let is_known = now.checked_sub(tick).is_some_and(|ago| ago < TICKS as u64);
        if cause == WaitsFor::Receive || !is_known {
            return last;
        }
        last + self.over_in(tick).get().saturating_sub(since)
    }
}

/// The nanoseconds from `start` to `now`.
pub(crate) fn nanoseconds(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The played clock goes on by a microsecond each time that it is read.
    fn played(notes: &mut Option<Notes>, at: Duration, start: Instant) {
        clock::play(Some(start + at));
        notes.get_or_insert_with(Notes::new);
    }

    #[test]
    fn a_core_that_enters_late_is_told_apart_from_the_kernel() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut made = None;
        played(&mut made, ms(0), start);
        let notes = made.take().unwrap();
        let at = |time: u64| clock::play(Some(start + ms(time)));
        at(10);
        notes.polls_begin();
        let (since, tick) = (12_000_000, notes.tick());
        at(20);
        notes.polls_end();
        notes.completes((WaitsFor::Send, false), 0, 4);
        let same_tick = notes.woken(since, tick).ticks;
        assert!((8_000_000..8_100_000).contains(&same_tick), "{same_tick}");
        at(30);
        notes.polls_begin();
        at(35);
        notes.polls_end();
        for (cause, whole) in [(WaitsFor::Send, 13), (WaitsFor::Receive, 5), (WaitsFor::Timer, 0)] {
            notes.completes((cause, false), 0, 4);
            let wake = notes.woken(since, tick);
            assert_eq!((wake.cause, wake.ticks / 1_000_000), (cause, whole));
        }
        clock::play(None);
    }

    /// Seen to fail, by an overflow.
    #[test]
    fn a_tick_that_is_unknown_is_none() {
        let notes = Notes::new();
        notes.completes((WaitsFor::Send, false), 0, 4);
        assert_eq!(notes.woken(0, 7).ticks, 0);
    }

    #[test]
    fn more_work_than_workers_is_a_wait_for_workers() {
        let notes = Notes::new();
        let cause = |given| {
            notes.completes((WaitsFor::Disk, true), given, 4);
            notes.woken(0, 0).cause
        };
        assert_eq!(cause(5), WaitsFor::Workers);
        assert_eq!(cause(5), WaitsFor::Disk);
        assert_eq!(cause(7), WaitsFor::Workers);
    }
}
