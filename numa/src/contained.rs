//! Subscribers of `tracing` that may panic, where that must stop nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`, which tells a subscriber something in a destructor: the thread may be panicking already, and a
/// second panic that left the destructor would end the process. The panic hook has told of it.
pub(crate) fn told(f: impl FnOnce()) {
    // The payload's own destructor may panic too.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        std::mem::forget(payload);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// A subscriber that panics at each event.
    struct Panics;

    impl Subscriber for Panics {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, _: &Event<'_>) {
            panic!("the subscriber, on purpose");
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// Drops `value` while the thread panics and its subscriber does.
    pub(crate) fn dropped_by_a_panic<T>(value: T) {
        let _guard = tracing::subscriber::set_default(Panics);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _value = value;
            panic!("the thread, on purpose");
        }));
        assert!(panicked.is_err());
    }
}
