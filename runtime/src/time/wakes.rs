//! When a core that sleeps wakes for its timers: ahead of them, and once for several. Pure: times are nanoseconds of one clock.
//!
//! A wake comes some time after it was asked for, tens of microseconds in a virtual machine: the *lag*, which is learnt. So the
//! core asks for it ahead by most of the lag, and a timer is late by what is left. What that gains is spent on sharing: the core
//! sleeps until the last timer of those within the slack, and one wake fires all. Unless a slack was asked for, it does so
//! only while timers are on average no later than most of the lag, so no later than without all this; and a wake costs as
//! much CPU as many a request.

use std::cell::Cell;
use std::time::Duration;

/// A lag is taken to be no longer.
const LONGEST_LAG: u64 = 50_000;
/// The slack as long as the average allows it: as much as Linux gives threads (`PR_SET_TIMERSLACK`, `prctl(2)`).
const USUAL_SLACK: u64 = 50_000;
/// How far ahead timers are looked for, in slacks. What is far away is taken away more often than it fires.
const SLACKS_AHEAD: u64 = 64;
/// The shortest sleep: none at all would be a wake without a sleep, from which nothing is learnt.
const SHORTEST: u64 = 1000;

/// What is known of wakes.
pub(super) struct Wakes {
    slack: Option<u64>,
    /// How much later than asked for a wake comes, on average.
    lag: Cell<u64>,
    /// How late timers are that a wake was asked for, on average.
    late: Cell<u64>,
}

/// A sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// When a wake is asked for.
    wake: u64,
    /// When the last of the timers is due that it is for.
    due: u64,
    /// When they are due, on average.
    middle: u64,
    now: u64,
}

impl Plan {
    /// How long to sleep.
    pub(crate) fn sleep(&self) -> Duration {
        Duration::from_nanos(self.wake - self.now)
    }

    /// How long it is until the timers are due.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_nanos(self.due.saturating_sub(self.now))
    }
}

impl Wakes {
    /// With the slack that was asked for, if one was.
    pub(super) fn new(slack: Option<Duration>) -> Self {
        let slack = slack.map(|slack| u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX));
        Self { slack, lag: Cell::new(0), late: Cell::new(0) }
    }

    /// Until when timers share the wake of one that is due at `first`.
    pub(super) fn reach(&self, now: u64, first: u64) -> u64 {
        let slack = match self.slack {
            Some(slack) => slack,
            None if self.late.get() < self.ahead() => USUAL_SLACK,
            // Those that a wake fires if it is asked for when the first is due.
            None => self.lag.get(),
        };
        let near = first <= now.saturating_add(slack.saturating_mul(SLACKS_AHEAD));
        first.saturating_add(if near { slack } else { 0 })
    }

    /// The sleep until the timers from `first` to `last`.
    pub(super) fn plan(&self, now: u64, first: u64, last: u64) -> Plan {
        let wake = last.saturating_sub(self.ahead()).max(now.saturating_add(SHORTEST));
        Plan { wake, due: last, middle: first + (last - first) / 2, now }
    }

    /// The core slept as planned, nothing else has woken it, and it is `now`.
    pub(super) fn slept(&self, plan: Plan, now: u64) {
        // An eighth of what is new: one slow wake says little.
        let learn = |known: &Cell<u64>, new: u64| known.set((known.get() * 7 + new) / 8);
        learn(&self.lag, now.saturating_sub(plan.wake).min(LONGEST_LAG));
        // Who is early sits it out.
        learn(&self.late, now.max(plan.due).saturating_sub(plan.middle).min(USUAL_SLACK));
    }

    /// How much ahead of its time a wake is asked for: not so much that it comes early.
    fn ahead(&self) -> u64 {
        self.lag.get() / 4 * 3
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What became of timers that are due every `gap` nanoseconds, with wakes that come `lags` late, by turns: how late they
    /// were on average, and how many a wake fired.
    fn run(slack: Option<u64>, gap: u64, lags: &[u64]) -> (u64, f64) {
        const TIMERS: u64 = 10_000;
        let wakes = Wakes::new(slack.map(Duration::from_nanos));
        let (mut now, mut next, mut late, mut count) = (0, 1, 0, 0u32);
        let mut lags = lags.iter().cycle();
        while next <= TIMERS {
            let first = next * gap;
            let last = wakes.reach(now, first).min(TIMERS * gap) / gap * gap;
            let plan = wakes.plan(now, first, last.max(first));
            count += 1;
            now = plan.wake + lags.next().expect("it goes round");
            wakes.slept(plan, now);
            now = now.max(plan.due);
            while next <= TIMERS && next * gap <= now {
                late += now - next * gap;
                next += 1;
            }
        }
        (late / TIMERS, TIMERS as f64 / f64::from(count))
    }

    #[test]
    fn timers_share_wakes_and_are_no_later_for_that() {
        for gap in [49_000, 20_000, 5_000] {
            for lags in [&[23_000][..], &[18_000, 31_000, 22_000], &[40_000, 45_000]] {
                let mean = lags.iter().sum::<u64>() / lags.len() as u64;
                let (late, shared) = run(None, gap, lags);
                assert!(late < mean, "{late} ns late with wakes that lag by {mean}, every {gap}");
                // A wake that comes late fires others as it is.
                let without = (mean as f64 / gap as f64).max(1.0);
                assert!(
                    shared > 1.25 * without,
                    "{shared} a wake with wakes that lag by {mean}, every {gap}"
                );
            }
        }
    }

    #[test]
    fn a_timer_by_itself_is_late_by_a_part_of_the_lag() {
        let (late, shared) = run(None, 10_000_000, &[20_000, 24_000]);
        assert!((5_000..8_000).contains(&late) && shared == 1.0, "{late} {shared}");
    }

    #[test]
    fn a_slack_that_was_asked_for_is_used() {
        let (late, shared) = run(Some(1_000_000), 49_000, &[20_000]);
        assert!(late < 520_000 && shared > 20.0, "{late} {shared}");
        let (late, shared) = run(Some(0), 49_000, &[20_000]);
        assert!(late < 6_000 && shared == 1.0, "{late} {shared}");
    }

    #[test]
    fn what_is_far_away_is_not_looked_at() {
        let wakes = Wakes::new(Some(Duration::from_micros(50)));
        assert_eq!(wakes.reach(0, 3_000_000), 3_050_000);
        assert_eq!(wakes.reach(0, 4_000_000), 4_000_000);
        assert_eq!(Wakes::new(Some(Duration::MAX)).reach(0, 1), u64::MAX);
    }

    #[test]
    fn a_sleep_has_a_length() {
        let wakes = Wakes::new(None);
        let plan = wakes.plan(5_000, 1_000, 1_000);
        assert_eq!((plan.sleep(), plan.left()), (Duration::from_nanos(SHORTEST), Duration::ZERO));
        wakes.slept(plan, u64::MAX);
        assert_eq!((wakes.lag.get(), wakes.late.get()), (LONGEST_LAG / 8, USUAL_SLACK / 8));
        wakes.slept(plan, 0);
        assert!(wakes.lag.get() < LONGEST_LAG / 8);
    }
}
