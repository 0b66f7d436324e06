//! When a sleeping core wakes for its timers: ahead of them, and once for several. Pure: times are
//! nanoseconds of one clock.
//!
//! A wake comes some time after the moment it was asked for: tens of microseconds in a virtual machine. This
//! *lag* is measured. The core asks for a wake earlier by about the least lag, and a timer is late by the
//! rest. The time that this gains is used to share wakes: the core sleeps until the last timer within the
//! slack, and one wake fires all of them. Unless a slack was given, it does so only while timers are on
//! average no later than most of the lag. A wake costs as much CPU as many a request.

use std::cell::Cell;
use std::time::Duration;

/// The lag that is assumed before one was measured.
const FIRST_LAG: u64 = 20_000;
/// The longest lag that is assumed.
const LONGEST_LAG: u64 = 50_000;
/// The slack, while the average allows it: as long as the one that Linux gives threads (`PR_SET_TIMERSLACK`,
/// `prctl(2)`).
const USUAL_SLACK: u64 = 50_000;
/// How far ahead timers are searched for, in multiples of the slack. Timers that are far away are removed
/// more often than they fire.
const SLACKS_AHEAD: u64 = 64;
/// The shortest sleep. A sleep of zero would be a wake without a sleep, from which no lag can be measured.
const SHORTEST: u64 = 1000;

/// What was measured of wakes.
pub(super) struct Wakes {
    slack: Option<u64>,
    /// The average lag of a wake.
    lag: Cell<u64>,
    /// A lag that most wakes exceed. A wake is asked for this much before its time.
    ahead: Cell<u64>,
    /// How late timers are on average that a wake was asked for.
    late: Cell<u64>,
    /// The time that the last wake was for, if it came before that.
    early: Cell<u64>,
}

/// A sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The time that a wake is asked for.
    wake: u64,
    /// The time when the first of its timers is due.
    first: u64,
    /// The time when the last of its timers is due.
    due: u64,
    now: u64,
    near: bool,
}

impl Plan {
    /// How long to sleep.
    pub(crate) fn sleep(&self) -> Duration {
        Duration::from_nanos(self.wake - self.now)
    }

    /// The time until the first timer is due.
    pub(crate) fn first(&self) -> Duration {
        Duration::from_nanos(self.first.saturating_sub(self.now))
    }

    /// The time until all timers are due.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_nanos(self.due.saturating_sub(self.now))
    }

    /// Whether the timers are due so soon that a sleep would take as long, and as much CPU.
    pub(crate) fn is_near(&self) -> bool {
        self.near
    }
}

impl Wakes {
    /// With the slack that was given, if one was.
    pub(super) fn new(slack: Option<Duration>) -> Self {
        let slack = slack.map(|slack| u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX));
        Self {
            slack,
            lag: Cell::new(FIRST_LAG),
            ahead: Cell::new(0),
            late: Cell::new(0),
            early: Cell::new(0),
        }
    }

    /// Until when timers share the wake of one that is due at `first`.
    pub(super) fn reach(&self, now: u64, first: u64) -> u64 {
        let slack = match self.slack {
            Some(slack) => slack,
            None if self.late.get() < self.lag.get() / 4 * 3 => USUAL_SLACK,
            // The timers that one wake fires if it is asked for when the first is due.
            None => self.lag.get(),
        };
        let near = first <= now.saturating_add(slack.saturating_mul(SLACKS_AHEAD));
        first.saturating_add(if near { slack } else { 0 })
    }

    /// The sleep until the timers from `first` to `last`.
    pub(super) fn plan(&self, now: u64, first: u64, last: u64) -> Plan {
        let ahead = self.ahead.get();
        let wake = last.saturating_sub(ahead).max(now.saturating_add(SHORTEST));
        // The core spins for a timer that is at most half a lag away, or that its last wake was for. After it
        // no other timer is due for a lag, because that one would have shared the wake. So a core does not
        // stay awake for timers alone.
        let near = last.saturating_sub(now) < self.lag.get() / 2 || last == self.early.get();
        Plan { wake, first, due: last, now, near }
    }

    /// The core slept as planned, was woken by nothing else, and it is `now`.
    pub(super) fn slept(&self, plan: Plan, now: u64) {
        let Some(lag) = now.checked_sub(plan.wake) else {
            // Interrupted.
            return;
        };
        let lag = lag.min(LONGEST_LAG);
        // A new value counts an eighth, because one slow wake says little.
        let learn = |known: &Cell<u64>, new: u64| known.set((known.get() * 7 + new) / 8);
        learn(&self.lag, lag);
        let ahead = self.ahead.get();
        self.ahead.set(if lag < ahead { (ahead + lag) / 2 } else { ahead + (lag - ahead) / 16 });
        // A core that wakes early spins until that time.
        self.early.set(if now < plan.due { plan.due } else { 0 });
        let middle = plan.first + (plan.due - plan.first) / 2;
        learn(&self.late, now.max(plan.due).saturating_sub(middle).min(USUAL_SLACK));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TIMERS: u64 = 10_000;

    /// Runs timers that are due every `gap` nanoseconds. Returns how late they were on average, and how many
    /// each wake fired. `until` is given the present time and the first due time. It returns when the core is
    /// awake, and whether it slept.
    fn run(gap: u64, mut until: impl FnMut(u64, u64) -> (u64, bool)) -> (u64, f64) {
        let (mut now, mut next, mut late, mut wakes) = (0, 1, 0, 0u32);
        while next <= TIMERS {
            let (then, slept) = until(now, next * gap);
            assert!(then > now, "time goes on");
            now = then;
            wakes += u32::from(slept);
            while next <= TIMERS && next * gap <= now {
                late += now - next * gap;
                next += 1;
            }
        }
        (late / TIMERS, TIMERS as f64 / f64::from(wakes))
    }

    /// With wakes whose lags are `lags`, in turn.
    fn planned(slack: Option<u64>, gap: u64, lags: &[u64]) -> (u64, f64) {
        let wakes = Wakes::new(slack.map(Duration::from_nanos));
        let mut lags = lags.iter().cycle();
        run(gap, |now, first| {
            let last = wakes.reach(now, first).min(TIMERS * gap) / gap * gap;
            let plan = wakes.plan(now, first, last.max(first));
            if plan.is_near() {
                return (plan.due, false);
            }
            let then = plan.wake + lags.next().expect("it goes round");
            wakes.slept(plan, then);
            (then, true)
        })
    }

    /// The same with a wake for each timer alone.
    fn plain(gap: u64, lags: &[u64]) -> (u64, f64) {
        let mut lags = lags.iter().cycle();
        run(gap, |now, first| (first.max(now) + lags.next().expect("it goes round"), true))
    }

    #[test]
    fn timers_share_wakes_and_are_no_later_for_that() {
        // The lags have no regular pattern: one wake in 20 is slow.
        let uneven: Vec<_> = (0..997).map(|i| 12_000 + i * 7919 % 9_000 + i % 20 / 19 * 180_000).collect();
        for gap in [49_000, 20_000, 5_000, 10_000_000] {
            for lags in [
                &[23_000][..],
                &[18_000, 31_000, 22_000],
                &[40_000, 45_000],
                &[5_000, 45_000, 45_000],
                &uneven,
            ] {
                let (late, shared) = planned(None, gap, lags);
                let (late_plain, shared_plain) = plain(gap, lags);
                let mean = lags.iter().sum::<u64>() as f64 / lags.len() as f64;
                let what = format!(
                    "{late} ns late, {shared} a wake, plain {shared_plain}; every {gap}, {mean} ns lag"
                );
                // Slow wakes also fire timers that they were not planned for, which are then late.
                assert!((late as f64) < mean.max(late_plain as f64) * 1.1, "{what}");
                assert!(shared > shared_plain * if gap == 49_000 { 1.2 } else { 0.8 }, "{what}");
            }
        }
    }

    #[test]
    fn a_timer_by_itself_is_late_by_a_part_of_the_lag() {
        let (late, shared) = planned(None, 10_000_000, &[20_000, 24_000]);
        assert!((1_000..5_000).contains(&late) && shared == 1.0, "{late} {shared}");
    }

    #[test]
    fn a_slack_that_was_asked_for_is_used() {
        let (late, shared) = planned(Some(1_000_000), 49_000, &[20_000]);
        assert!(late < 520_000 && shared > 20.0, "{late} {shared}");
        let (late, shared) = planned(Some(0), 49_000, &[20_000]);
        assert!(late < 6_000 && shared == 1.0, "{late} {shared}");
    }

    #[test]
    fn far_timers_are_not_searched() {
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
        let learnt = (FIRST_LAG * 7 + LONGEST_LAG) / 8;
        assert_eq!((wakes.lag.get(), wakes.late.get()), (learnt, USUAL_SLACK / 8));
        wakes.slept(plan, 0);
        assert_eq!(wakes.lag.get(), learnt, "an interrupted sleep says nothing");
    }
}
