//! Spans whose subscriber may panic.

use tracing::Span;

use crate::contained::{Payload, bury, caught};

/// A span that this thread is in.
///
/// Not the guard of `tracing`: that leaves the span and drops it in one destructor, and a subscriber that
/// panics in both aborts the process.
pub(crate) struct Inside(Option<Span>);

impl Inside {
    pub(crate) fn enter(span: Span) -> Self {
        // Made before the span is entered: whether a subscriber that panics counts the span as entered is
        // unknown, so the span is exited in any case.
        let inside = Self(Some(span));
        if let Some(span) = &inside.0 {
            span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
        }
        inside
    }

    /// Leaves the span, and gives the first panic that comes of it.
    pub(crate) fn leave(mut self) -> Result<(), Payload> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Payload> {
        let Some(span) = self.0.take() else { return Ok(()) };
        let left = caught(|| {
            span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        });
        let dropped = caught(|| drop(span));
        match (left, dropped) {
            (Err(first), Err(second)) => {
                bury(second);
                Err(first)
            }
            (left, dropped) => left.and(dropped),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(payload) = self.end() {
            bury(payload);
        }
    }
}
