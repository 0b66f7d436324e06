//! How long a core spins before it sleeps: adaptive, because spinning pays only where work comes soon.

use std::cell::Cell;
use std::time::Duration;

use crate::clock;

/// The shortest spin that is tried, as a fraction of the longest. A shorter one is not worth its two clock
/// reads.
const LEAST: u32 = 16;

/// The length of the next spin. It is doubled when the last spin found work, or when the sleep after it was
/// so short that a longer spin would have found some. It is halved when the spin found none, down to nothing.
#[derive(Debug)]
pub(crate) struct Spin {
    most: Duration,
    next: Cell<Duration>,
    /// Asked each time that the core sleeps.
    is_on: bool,
}

impl Spin {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, next: Cell::new(most), is_on: !most.is_zero() }
    }

    /// Whether spinning was asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether a spin pays, judging by the last ones.
    pub(crate) fn is_worth_while(&self) -> bool {
        self.is_on && !self.next.get().is_zero()
    }

    /// Spins until `found` says that there is work, at most for the current length. `true`: there is work.
    pub(crate) fn sample(&self, mut found: impl FnMut() -> bool) -> bool {
        let patience = self.next.get();
        let begin = clock::now();
        // The check comes before the clock is read, so that a core that was slow to get here has one check in
        // any case.
        loop {
            if found() {
                self.next.set(self.most.min(patience.saturating_mul(2)));
                return true;
            }
            if begin.elapsed() >= patience {
                break;
            }
            std::hint::spin_loop();
        }
        let half = patience / 2;
        self.next.set(if half < self.most / LEAST { Duration::ZERO } else { half });
        false
    }

    /// The core slept for `time` after a spin that found nothing.
    pub(crate) fn slept(&self, time: Duration) {
        if time <= self.most {
            self.next.set(self.most.min(self.next.get().saturating_mul(2).max(self.most / LEAST)));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_idle_core_stops_spinning_and_a_busy_one_begins_again() {
        let most = Duration::from_micros(16);
        let spin = Spin::new(most);
        assert!(spin.is_on() && !Spin::new(Duration::ZERO).is_on());
        assert!(spin.sample(|| true));
        let mut vain = 0;
        while spin.is_worth_while() {
            assert!(!spin.sample(|| false));
            vain += 1;
        }
        assert_eq!(vain, 5, "16, 8, 4, 2 and 1 us");
        spin.slept(Duration::from_secs(1));
        assert!(!spin.is_worth_while(), "an idle core does not spin");
        for expected in [1, 2, 4, 8, 16, 16] {
            spin.slept(Duration::from_micros(15));
            assert_eq!(spin.next.get(), Duration::from_micros(expected));
        }
    }
}
