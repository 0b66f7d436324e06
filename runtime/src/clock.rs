//! The clock of the cores: the kernel's monotonic one, or a played one in tests of the library.

use std::time::Instant;

/// Now.
#[inline(always)]
pub(crate) fn now() -> Instant {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(now) = played::now() {
        return now;
    }
    Instant::now()
}

#[cfg(all(any(test, feature = "played"), not(loom)))]
pub(crate) use played::play;

#[cfg(all(any(test, feature = "played"), not(loom)))]
mod played {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    /// How much time a reading of the played clock takes.
    const LOOK: Duration = Duration::from_micros(1);

    /// Looks between two enters of a core, after which it is taken to loop for ever.
    const MOST_LOOKS: u32 = 20_000;

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
        static LOOKS: Cell<u32> = const { Cell::new(0) };
    }

    /// Sets this thread's clock to `now`. From then on only readings advance it. None brings the kernel's
    /// clock back.
    pub(crate) fn play(now: Option<Instant>) {
        NOW.set(now);
        LOOKS.set(0);
    }

    pub(super) fn now() -> Option<Instant> {
        let now = NOW.get()?;
        NOW.set(Some(now + LOOK));
        LOOKS.set(LOOKS.get() + 1);
        // Once: what ends the core looks at the clock as well.
        assert!(LOOKS.get() != MOST_LOOKS, "the core goes on and on without entering the ring");
        Some(now)
    }
}
