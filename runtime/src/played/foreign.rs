//! A subscriber of `tracing` that uses the core whenever it is told of something, as the application's may.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::buf::Block;
use crate::core::Core;

struct UsesTheCore;

thread_local! {
    /// The core could not be used.
    static IN_THE_MIDST: Cell<bool> = const { Cell::new(false) };
}

impl Subscriber for UsesTheCore {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        // Each of these panics where something of the core is in the midst of a change.
        let uses = || {
            let seen = Core::try_with(|core| (core.ops.in_kernel(), core.fairness.is_short()));
            if seen.is_some() {
                drop(Block::take());
            }
        };
        if catch_unwind(AssertUnwindSafe(uses)).is_err() {
            IN_THE_MIDST.set(true);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs `play` with the subscriber.
///
/// # Errors
/// Those of `play`, or the core could not be used when something was told.
pub(super) fn watches(play: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    IN_THE_MIDST.set(false);
    let played = tracing::subscriber::with_default(UsesTheCore, play);
    if IN_THE_MIDST.get() {
        return Err("an event was told of while the core was in the midst of a change".to_owned());
    }
    played
}
