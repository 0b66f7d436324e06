//! A tick of a core's loop, and how the core sleeps.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};

use super::Core;
use super::inside::Inside;
use super::peers::{self, POLLS_PER_NOTIFY};
use crate::Result;
use crate::clock;
use crate::ring::{Ring, Wait};
use crate::task::Ready;
use crate::time::wakes::Plan;

/// Polls of tasks between two enters: all tasks that were ready when the tick began, but at most this many.
const POLLS_PER_TICK: usize = 256;
/// Polls of tasks that other polls of the same tick woke. While nothing was asked of the kernel, they need
/// not wait for an enter, which costs more than they do. Else they wait: what a task asked for, a close too,
/// is with the kernel before who waits for that task goes on, and may block.
const POLLS_AT_LEAST: usize = 64;
/// False only for `scripts/instructions`, which counts the cost of showing polls to other threads.
const SEEN: bool = cfg!(not(annulus_unseen));
/// The target of the spans around polls of tasks.
const POLLS: &str = "annulus::polls";

/// Whether a subscriber wants the spans around polls. Where none wants anything so fine, that is known by one
/// number of `tracing`'s, and the rest of its question is out of the loop's way.
#[inline(always)]
fn wants_spans() -> bool {
    #[cold]
    #[inline(never)]
    fn asked() -> bool {
        tracing::span_enabled!(target: POLLS, Level::TRACE)
    }
    Level::TRACE <= STATIC_MAX_LEVEL && Level::TRACE <= LevelFilter::current() && asked()
}

/// A longer time counts as 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// The first half of a tick: polls tasks that are ready now, and some of those that they wake. With
    /// `NOTES` the core [notes](super::notes) it.
    pub(crate) fn run_tasks<const NOTES: bool>(&self) -> Result<()> {
        if NOTES {
            self.notes.polls_begin();
        }
        // Asked once a tick, so that what is off costs a poll nothing.
        let watched = SEEN && (self.options.measure_polls || wants_spans());
        // A result that comes from two places is copied, with room for an error: 12 instructions a tick. So
        // each is looked at where it comes from.
        if watched {
            self.run_watched_tasks()?;
        } else {
            self.run_tasks_by(|task| task.run())?;
        }
        if NOTES {
            self.notes.polls_end();
        }
        Ok(())
    }

    #[cold]
    fn run_watched_tasks(&self) -> Result<()> {
        self.run_tasks_by(|task| self.run_watched(task))
    }

    #[inline(always)]
    fn run_tasks_by(&self, run: impl Fn(Ready<'_>)) -> Result<()> {
        debug_assert!(Core::is_current(&self.shared), "the loop of another core's thread");
        let counters = &*self.shared.counters;
        counters.turns.add(1);
        let pushed = self.ring.pushed();
        let ready = self.tasks.ready_len();
        counters.load.set(peers::smoothed(counters.load.get(), ready));
        let ready = ready.min(POLLS_PER_TICK);
        let mut polls = 0;
        while polls < ready || (polls < POLLS_AT_LEAST && self.ring.pushed() == pushed) {
            let Some(task) = self.tasks.pop() else { break };
            self.budget.refill();
            if SEEN {
                self.shared.current_poll.begin(task.spawned_at());
            }
            run(task);
            polls += 1;
            if polls % POLLS_PER_NOTIFY == 0
                && self.peers.must_notify()
                && let Err(e) = self.notify_between_polls()
            {
                self.polled(polls);
                return Err(e);
            }
        }
        self.polled(polls);
        Ok(())
    }

    /// So many tasks have been polled, and none is just now.
    #[inline(always)]
    fn polled(&self, polls: usize) {
        self.shared.current_poll.pause();
        self.shared.counters.polls.add(polls as u64);
    }

    fn notify_between_polls(&self) -> Result<()> {
        let before = self.ring.pushed();
        self.notify_peers();
        // Cores that are awake need no signal.
        if self.ring.pushed() == before { Ok(()) } else { self.ring.enter(Wait::No) }
    }

    /// Polls a task in a span, and takes the time.
    #[cold]
    fn run_watched(&self, task: Ready<'_>) {
        let span = tracing::trace_span!(target: POLLS, "poll", spawned_at = %task.spawned_at());
        let begin = self.options.measure_polls.then(clock::now);
        let inside = Inside::enter(span);
        task.run();
        if let Err(payload) = inside.leave() {
            resume_unwind(payload);
        }
        if let Some(begin) = begin {
            self.shared.counters.poll_ns.record(nanoseconds(begin.elapsed()));
        }
    }

    /// The second half: calls from other threads, then timers, then the ring. The core sleeps in the ring if
    /// nothing is to be done. With `NOTES` the core [notes](super::notes) it.
    pub(crate) fn tick_ring<const NOTES: bool>(&self) -> Result<()> {
        let counters = &*self.shared.counters;
        for task in self.shared.woken.take_all() {
            counters.remote_wakes.add(1);
            self.tasks.take_in(task);
        }
        self.growth.take(self);
        self.fairness.end_of_tick(&self.bufs, counters, self);
        self.growth.ask(self);
        let timed = self.timers.fire();
        if !self.tasks.is_idle() {
            self.go_on()?;
        } else {
            self.notify_peers();
            self.park(timed)?;
        }
        if self.ring.has_overflowed() {
            counters.cq_overflows.add(1);
        }
        let cqes = self.ring.reap(|cqe| if NOTES { self.dispatch_noted(cqe) } else { self.dispatch(cqe) });
        counters.cqes.add(cqes as u64);
        counters.cqes_per_turn.record(cqes as u64);
        counters.operations.set(self.ops.in_kernel() as u64);
        self.bufs.tell(counters);
        self.blocks.count(counters);
        Ok(())
    }

    /// Takes calls, notifies the cores that were given work, and enters without a wait: the core does not
    /// sleep. One that does has no calls, which is looked at once, [before](Self::must_not_sleep).
    #[inline(always)]
    fn go_on(&self) -> Result<()> {
        self.take_calls(POLLS_PER_TICK);
        self.notify_peers();
        self.enter_if_wanted()
    }

    /// Submits, and lets the kernel run its deferred work. Does nothing where there is neither.
    #[inline(always)]
    fn enter_if_wanted(&self) -> Result<()> {
        if self.ring.wants_enter() { self.ring.enter(Wait::No) } else { Ok(()) }
    }

    /// Sleeps until a completion, a timer or a notification. There are no timers if it is not `timed`.
    #[inline(always)]
    fn park(&self, timed: bool) -> Result<()> {
        if self.spin.is_worth_while() && self.find_work() {
            return self.go_on();
        }
        // The usual case, nothing to wake for, needs no clock.
        if !timed && self.growth.asks_again_at().is_none() {
            return self.sleep(None);
        }
        self.park_for_timers()
    }

    /// Out of line, so that the tick without timers does not carry it.
    #[inline(never)]
    fn park_for_timers(&self) -> Result<()> {
        let plan = self.next_wake();
        if let Some(plan) = plan.filter(Plan::is_near) {
            return self.sit_out(clock::now() + plan.left());
        }
        self.sleep(plan)
    }

    #[inline(always)]
    fn sleep(&self, plan: Option<Plan>) -> Result<()> {
        let doorbell = self.shared.doorbell();
        doorbell.prepare_sleep();
        // The decisive check: work that was queued before this is found now, or the core is notified.
        if self.must_not_sleep() {
            doorbell.cancel_sleep();
            return self.go_on();
        }
        self.shared.counters.parks.add(1);
        let parked = (self.options.measure_time || self.spin.is_on()).then(clock::now);
        // The time that submitting takes is not counted as lag of the wake.
        let submits = plan.is_some() && self.ring.wants_enter();
        let wait = plan.map_or(Wait::Forever, |plan| Wait::For(plan.sleep()));
        let entered = self.ring.sleep(wait, || self.ops.in_kernel());
        doorbell.cancel_sleep();
        let timer = plan.filter(|_| !self.ring.has_completions());
        if let Some(plan) = timer.filter(|_| !submits) {
            self.timers.slept(plan);
        }
        if let Some(parked) = parked {
            self.awake(parked, timer.is_none());
        }
        entered.or_else(Ring::failed)
    }

    /// A timer is due so soon that a sleep and its wake would take longer, and as much CPU: the core spins
    /// until then.
    #[cold]
    fn sit_out(&self, due: Instant) -> Result<()> {
        self.enter_if_wanted()?;
        while !self.ring.has_completions() && !self.must_not_sleep() && clock::now() < due {
            std::hint::spin_loop();
        }
        self.go_on()
    }

    /// How the core sleeps if nothing happens: until the next timer, or until its memory may grow again.
    fn next_wake(&self) -> Option<Plan> {
        self.timers.next_wake(clock::now(), self.growth.asks_again_at())
    }

    /// Whether something waits that needs no completion.
    #[inline(always)]
    fn must_not_sleep(&self) -> bool {
        !self.shared.woken.is_empty()
            || !self.has_no_calls()
            || self.fairness.must_not_sleep(&self.bufs)
            || self.growth.has_ended()
            || self.must_end()
    }

    /// Submits, and spins for a while. True: there is something to do.
    #[cold]
    fn find_work(&self) -> bool {
        let counters = &self.shared.counters;
        if self.enter_if_wanted().is_err() {
            // The enter that waits will fail as well, and say so.
            return false;
        }
        counters.spins.add(1);
        let due = self.next_wake().map(|plan| clock::now() + plan.first());
        let found = self.spin.sample(|| {
            self.ring.has_completions() || self.must_not_sleep() || due.is_some_and(|due| clock::now() >= due)
        });
        counters.spins_won.add(found.into());
        found
    }

    /// The core was asleep since `parked`: adds that, and the time from the last sleep to this one.
    fn awake(&self, parked: Instant, by_others: bool) {
        let (counters, now) = (&self.shared.counters, clock::now());
        // A near timer is no reason to spin for work.
        if by_others {
            self.spin.slept(now - parked);
        }
        if !self.options.measure_time {
            return;
        }
        counters.parked_ns.add(nanoseconds(now - parked));
        counters.busy_ns.add(nanoseconds(parked - self.busy_since.replace(now)));
    }

    /// Whether the core is to end now, or tasks wait for a stop that was asked for and that they have not
    /// been told of.
    #[inline(always)]
    fn must_end(&self) -> bool {
        let runtime = &self.shared.runtime;
        runtime.is_stopping() && (runtime.is_cut() || self.tasks.stop.must_be_told())
    }
}
