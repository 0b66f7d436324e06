//! Whether an upstream is available: a pure state machine of what checks and connections have found.
//!
//! ```text
//!            `fall` checks failed in a row                 a connection failed
//!   Up  ------------------------------------->  Down     Up ------------------> Out, for a while
//!       <-------------------------------------              <------------------ one connection is made
//!            `rise` checks succeeded in a row
//! ```
//!
//! An upstream that is Down gets nothing. One that is Out gets nothing while others are available, so that
//! not every client tries a dead one. When its time is over one connection tries it, and the others go
//! elsewhere. Each further failure doubles the time.

use std::time::{Duration, Instant};

/// What a slow start begins with, in percent.
const FIRST_SHARE: u32 = 10;
/// The longest time out, in times of the first.
const LONGEST: u32 = 16;

/// What it takes to go up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Checks in a row that must succeed for one that is down to come up.
    pub(super) rise: u32,
    /// Checks in a row that must fail for one that is up to go down.
    pub(super) fall: u32,
    /// How long one is out after a failed connection, at first.
    pub(super) out: Duration,
    /// How long one that has come back takes to get its whole share.
    pub(super) slow_start: Duration,
}

/// What an upstream is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It is available, with so many percent of its weight.
    Fit(u32),
    /// It is out: only where no other is available.
    LastResort,
    /// It is down.
    Unfit,
}

/// What is known of one upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    is_down: bool,
    /// Checks in a row that contradict its present state.
    contrary: u32,
    /// Times that it has gone out since a connection was last made.
    outs: u32,
    out_until: Option<Instant>,
    /// A connection tries it just now.
    is_tried: bool,
    back_since: Option<Instant>,
}

impl Health {
    /// One of which nothing is known: it counts as up.
    pub(super) fn new() -> Self {
        Self { is_down: false, contrary: 0, outs: 0, out_until: None, is_tried: false, back_since: None }
    }

    /// A check has been made. True when it went up or down by that.
    pub(super) fn checked(&mut self, policy: &Policy, now: Instant, is_well: bool) -> bool {
        if is_well != self.is_down {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        if self.contrary < if is_well { policy.rise } else { policy.fall } {
            return false;
        }
        self.contrary = 0;
        self.is_down = !is_well;
        if is_well {
            self.come_back(now);
        }
        true
    }

    /// A connection was made. True when it came back by that.
    pub(super) fn connected(&mut self, now: Instant) -> bool {
        let was_out = self.out_until.is_some();
        if was_out {
            self.come_back(now);
        }
        was_out
    }

    /// A connection could not be made. True when it went out by that.
    pub(super) fn refused(&mut self, policy: &Policy, now: Instant) -> bool {
        let was_in = self.out_until.is_none();
        // A connection that had begun before it went out says nothing new.
        if was_in || self.is_tried || self.out_until.is_some_and(|until| now >= until) {
            self.outs = (self.outs + 1).min(LONGEST);
            let times = 1_u32.checked_shl(self.outs - 1).unwrap_or(LONGEST).min(LONGEST);
            self.out_until = now.checked_add(policy.out * times);
        }
        self.is_tried = false;
        was_in
    }

    /// An attempt was given up before it came to anything.
    pub(super) fn abandoned(&mut self) {
        self.is_tried = false;
    }

    fn come_back(&mut self, now: Instant) {
        (self.outs, self.out_until, self.is_tried) = (0, None, false);
        self.back_since = Some(now);
    }

    /// What it is good for.
    pub(super) fn fitness(&self, policy: &Policy, now: Instant) -> Fitness {
        if self.is_down {
            return Fitness::Unfit;
        }
        if let Some(until) = self.out_until {
            return if now < until || self.is_tried {
                Fitness::LastResort
            } else {
                Fitness::Fit(FIRST_SHARE)
            };
        }
        let since = self.back_since.map(|since| now.saturating_duration_since(since));
        match since {
            Some(since) if since < policy.slow_start => {
                let part = since.as_secs_f64() / policy.slow_start.as_secs_f64();
                Fitness::Fit(FIRST_SHARE.max((part * 100.0) as u32))
            }
            _ => Fitness::Fit(100),
        }
    }

    /// It was chosen. One that was out is tried by one connection at a time.
    pub(super) fn chosen(&mut self) {
        self.is_tried = self.out_until.is_some();
    }

    /// Whether its fitness is 100 until something happens.
    pub(super) fn is_settled(&self, policy: &Policy, now: Instant) -> bool {
        self.contrary == 0 && self.fitness(policy, now) == Fitness::Fit(100)
    }

    /// Whether nothing is known against it.
    pub(super) fn is_up(&self) -> bool {
        !self.is_down && self.out_until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    impl Health {
        fn word(&self) -> &'static str {
            match self {
                Self { is_down: true, .. } => "down",
                Self { out_until: Some(_), .. } => "out",
                _ => "up",
            }
        }
    }

    const POLICY: Policy = Policy { rise: 2, fall: 3, out: SECOND, slow_start: Duration::from_secs(10) };

    #[test]
    fn checks_take_it_down_and_up() {
        let (mut health, now) = (Health::new(), Instant::now());
        for (is_well, has_changed, word) in [
            (false, false, "up"),
            (false, false, "up"),
            (true, false, "up"),
            (false, false, "up"),
            (false, false, "up"),
            (false, true, "down"),
            (true, false, "down"),
            (false, false, "down"),
            (true, false, "down"),
            (true, true, "up"),
        ] {
            assert_eq!((health.checked(&POLICY, now, is_well), health.word()), (has_changed, word));
        }
        assert_eq!(health.fitness(&POLICY, now), Fitness::Fit(10));
        assert_eq!(health.fitness(&POLICY, now + 5 * SECOND), Fitness::Fit(50));
        assert_eq!(health.fitness(&POLICY, now + 10 * SECOND), Fitness::Fit(100));
    }

    #[test]
    fn one_connection_tries_what_was_out_and_the_time_doubles() {
        let (mut health, mut now) = (Health::new(), Instant::now());
        assert!(health.refused(&POLICY, now));
        // Others had begun by then.
        assert!(!health.refused(&POLICY, now) && !health.refused(&POLICY, now));
        for times in [1, 2, 4, 8, 16, 16, 16] {
            assert_eq!(health.fitness(&POLICY, now), Fitness::LastResort);
            now += SECOND * times;
            assert_eq!(health.fitness(&POLICY, now - SECOND / 2), Fitness::LastResort);
            assert_eq!(health.fitness(&POLICY, now), Fitness::Fit(10));
            health.chosen();
            assert_eq!(health.fitness(&POLICY, now), Fitness::LastResort, "one is enough");
            health.refused(&POLICY, now);
        }
        now += SECOND * 16;
        health.chosen();
        assert!(health.connected(now));
        assert_eq!((health.word(), health.fitness(&POLICY, now)), ("up", Fitness::Fit(10)));
        assert!(health.refused(&POLICY, now));
        assert_eq!(health.fitness(&POLICY, now + SECOND), Fitness::Fit(10), "the time begins anew");
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Checked(bool),
        Connected,
        Refused,
        Abandoned,
        Chosen,
        Passed(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<bool>().prop_map(Event::Checked),
            Just(Event::Connected),
            Just(Event::Refused),
            Just(Event::Abandoned),
            Just(Event::Chosen),
            (0..30_u64).prop_map(Event::Passed),
        ]
    }

    proptest! {
        /// Whatever happens: only checks make it unfit, it comes back with time and connections, and a share
        /// is between one and a hundred percent.
        #[test]
        fn it_is_never_lost_for_good(events in prop::collection::vec(event(), 0..100)) {
            let (mut health, mut now) = (Health::new(), Instant::now());
            let mut failed_checks = false;
            for event in events {
                match event {
                    Event::Checked(is_well) => {
                        health.checked(&POLICY, now, is_well);
                        failed_checks |= !is_well;
                    }
                    Event::Connected => {
                        health.connected(now);
                        prop_assert!(health.out_until.is_none());
                    }
                    Event::Refused => {
                        health.refused(&POLICY, now);
                        prop_assert!(!matches!(health.fitness(&POLICY, now), Fitness::Fit(_)));
                    }
                    Event::Abandoned => health.abandoned(),
                    Event::Chosen => health.chosen(),
                    Event::Passed(secs) => now += SECOND * secs as u32,
                }
                match health.fitness(&POLICY, now) {
                    Fitness::Fit(share) => prop_assert!((1..=100).contains(&share)),
                    Fitness::LastResort => {}
                    Fitness::Unfit => prop_assert!(failed_checks),
                }
                prop_assert!(!health.is_settled(&POLICY, now) || health.fitness(&POLICY, now + SECOND) == Fitness::Fit(100));
            }
            for _ in 0..POLICY.rise {
                health.checked(&POLICY, now, true);
            }
            health.abandoned();
            now += POLICY.out * LONGEST;
            prop_assert!(matches!(health.fitness(&POLICY, now), Fitness::Fit(_)));
        }
    }
}
