//! The atomics and locks of the parts that loom checks: the standard ones, or loom's under `--cfg loom`.
//!
//! Only the wake path, the queue to a core and the return path of blocks use these atomics. Loom's atomics
//! work inside a loom model and nowhere else, so under `--cfg loom` only the tests whose path contains `loom`
//! can run:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p annulus --release --lib loom
//! ```

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

/// The lock of the same parts.
pub(crate) mod locks {
    #[cfg(loom)]
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    #[cfg(not(loom))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

/// What the loom tests have in common.
#[cfg(all(test, loom))]
pub(crate) mod model {
    use super::atomic::{AtomicUsize, Ordering};

    /// Checks `test` in all interleavings with at most `preemptions` preemptions, anywhere, unless
    /// `LOOM_MAX_PREEMPTIONS` says otherwise. Without a bound some of the tests would run for hours.
    pub(crate) fn check(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(model.preemption_bound.unwrap_or(preemptions));
        model.check(test);
    }

    /// Checks as [`check`] does, with at most `preemptions` whatever is asked for. It is for models with so
    /// many steps that one more preemption would take hours.
    pub(crate) fn check_large(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(model.preemption_bound.unwrap_or(preemptions).min(preemptions));
        model.check(test);
    }

    /// Makes loom try both orders of two steps, one on each side of which a thread calls `pass`.
    ///
    /// Loom 0.7 remembers only the last access to an atomic. A thread that reads a word before it changes it
    /// hides an earlier read of the same word by another thread, and loom never tries the change before that
    /// read: a plain load of a list's head always finds it empty. A relaxed read-modify-write of one word is
    /// always tried in both orders, and orders nothing else.
    pub(crate) struct BothOrders(AtomicUsize);

    impl BothOrders {
        pub(crate) fn new() -> BothOrders {
            BothOrders(AtomicUsize::new(0))
        }

        pub(crate) fn pass(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
