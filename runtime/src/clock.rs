//! The clock of the cores: the kernel's monotonic one, or in tests of the library one that is played.

use std::time::Instant;

/// Now.
#[inline(always)]
pub(crate) fn now() -> Instant {
    #[cfg(all(test, not(loom)))]
    if let Some(now) = played::now() {
        return now;
    }
    Instant::now()
}

#[cfg(all(test, not(loom)))]
pub(crate) use played::play;

#[cfg(all(test, not(loom)))]
mod played {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    /// What a look at the clock takes.
    const LOOK: Duration = Duration::from_micros(1);

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// On this thread it is `now` from now on, and later with each look only; with none, the kernel's clock.
    pub(crate) fn play(now: Option<Instant>) {
        NOW.set(now);
    }

    pub(super) fn now() -> Option<Instant> {
        let now = NOW.get()?;
        NOW.set(Some(now + LOOK));
        Some(now)
    }
}
