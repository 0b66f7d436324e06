//! Panics of foreign code are contained here.
//!
//! Foreign code is the application's code that the runtime calls or drops: subscribers of `tracing`, wakers,
//! futures, destructors of outputs, messages and panic payloads. Crates that abort the process when one of
//! them panics inside them get only [`Kept`] outputs and shielded wakers (`task/shield.rs`).
//!
//! Some panics cannot be caught, and the standard library aborts the process: a panic hook that panics, a
//! destructor of a thread's local value that panics, and a second panic of destructors that unwinding runs.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The payload of a panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// How many payloads are dropped whose destructors panic with one more such payload, before the last is
/// leaked.
const PAYLOADS: usize = 16;

/// The text of a panic.
pub(crate) fn panic_text(payload: &Payload) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}

/// Runs `f`, foreign code. The application has to judge what `f` shares with others, as with any task that
/// panics.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Drops a payload that nobody gets. Its destructor may panic, with a payload whose destructor may panic.
#[cold]
pub(crate) fn bury(payload: Payload) {
    let mut payload = payload;
    for _ in 0..PAYLOADS {
        match caught(|| drop(payload)) {
            Ok(()) => return,
            Err(next) => payload = next,
        }
    }
    std::mem::forget(payload);
}

/// Runs `f`, foreign code whose panic must stop nothing: it is logged as a panic of `what`.
pub(crate) fn contained(what: impl fmt::Display, f: impl FnOnce()) {
    if let Err(payload) = caught(f) {
        tell_panic(format_args!("{what}"), &payload);
        bury(payload);
    }
}

/// Runs `f`, which tells a subscriber of `tracing` something, where a panic of it must stop nothing: in a
/// destructor, because the thread may be panicking already, and where more is left to be done.
pub(crate) fn told(f: impl FnOnce()) {
    contained("a subscriber of tracing", f);
}

/// Logs a panic. If the subscriber panics over it, the panic hook has reported that.
///
/// It is out of line, because an event of `tracing` makes every poll that contains it larger, even if it is
/// not reached.
#[cold]
#[inline(never)]
pub(crate) fn tell_panic(what: fmt::Arguments<'_>, payload: &Payload) {
    if let Err(payload) = caught(|| tracing::error!("{what} panicked: {}", panic_text(payload))) {
        bury(payload);
    }
}

/// A value of the application that may never be taken. A panic of its destructor is contained.
///
/// A list of such values can therefore be dropped whole. Otherwise a second panic among them would end the
/// process.
#[derive(Debug)]
pub(crate) struct Kept<T>(Option<T>);

impl<T> Kept<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub(crate) fn take(mut self) -> T {
        self.0.take().expect("it is taken once, by value")
    }

    /// `None` once it was taken.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// `None` once it was taken.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>()
            && let Some(value) = self.0.take()
        {
            contained("the destructor of a value that nobody took", || drop(value));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another of its kind.
    struct Again(usize);

    impl Drop for Again {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Again(self.0 - 1));
            }
        }
    }

    /// Seen to fail: with a payload that is just dropped, the panic comes out of `contained`.
    #[test]
    fn a_payload_whose_destructor_panics_ends_in_contained() {
        for depth in [1, 3, 1000] {
            contained("on purpose", || std::panic::panic_any(Again(depth)));
        }
        drop(Kept::new(Again(2)));
    }
}
