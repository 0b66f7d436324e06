//! Panics of code that is not ours, where they must stop nothing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic left.
pub(crate) type Payload = Box<dyn Any + Send>;

/// The words of a panic.
pub(crate) fn panic_text(payload: &Payload) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}

/// Runs `f`, code that is not ours, where its panic must stop nothing: it is logged as one of `what`.
pub(crate) fn contained(what: impl std::fmt::Display, f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        tell_panic(format_args!("{what}"), &payload);
    }
}

/// Out of line: an event of `tracing` takes room in every poll that holds it, though it is not reached.
#[cold]
#[inline(never)]
pub(crate) fn tell_panic(what: std::fmt::Arguments<'_>, payload: &Payload) {
    tracing::error!("{what} panicked: {}", panic_text(payload));
}
