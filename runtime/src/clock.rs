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
    const READ: Duration = Duration::from_micros(1);

    /// Clock reads between two enters of a core, after which it is assumed to loop for ever.
    const MOST_READS: u32 = 20_000;

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
        static READS: Cell<u32> = const { Cell::new(0) };
    }

    /// Sets this thread's clock to `now`. From then on only readings advance it. None brings the kernel's
    /// clock back.
    pub(crate) fn play(now: Option<Instant>) {
        NOW.set(now);
        READS.set(0);
    }

    pub(super) fn now() -> Option<Instant> {
        let now = NOW.get()?;
        NOW.set(Some(now + READ));
        READS.set(READS.get() + 1);
        // Once: what ends the core reads the clock too.
        assert!(READS.get() != MOST_READS, "the core goes on and on without entering the ring");
        Some(now)
    }
}
