//! What only one thread may do, asserted where assertions are on.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Remembers the first thread that calls it, in debug builds. In others it is nothing.
#[derive(Debug, Default)]
pub(crate) struct OneThread(#[cfg(debug_assertions)] AtomicUsize);

impl OneThread {
    pub(crate) const fn new() -> Self {
        #[cfg(debug_assertions)]
        return Self(AtomicUsize::new(0));
        #[cfg(not(debug_assertions))]
        Self()
    }

    /// # Panics
    /// In debug builds, if another thread came first.
    pub(crate) fn check(&self, what: &str) {
        #[cfg(debug_assertions)]
        {
            thread_local! {
                static HERE: u8 = const { 0 };
            }
            // The thread may be ending, after this variable was destroyed. Then nothing is known of the
            // thread.
            let Ok(here) = HERE.try_with(|here| std::ptr::from_ref(here).addr()) else { return };
            let first = self.0.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed);
            assert!(first.is_ok() || first == Err(here), "{what}: another thread has done that before");
        }
        #[cfg(not(debug_assertions))]
        let _ = what;
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    /// Seen to fail: without the assertion.
    #[test]
    fn a_second_thread_is_refused() {
        let one = OneThread::new();
        one.check("here");
        one.check("here again");
        let there = std::thread::scope(|scope| scope.spawn(|| one.check("there")).join().is_err());
        assert!(there);
    }
}
