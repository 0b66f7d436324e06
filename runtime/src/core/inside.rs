//! Spans that are left safely even if a subscriber panics.

use tracing::Span;

use crate::contained::{Payload, bury, caught};

/// A span that this thread has entered.
///
/// It replaces the guard of `tracing`, which leaves and drops the span in one destructor: a subscriber that
/// panics in both steps would abort the process.
pub(crate) struct Inside(Option<Span>);

impl Inside {
    pub(crate) fn enter(span: Span) -> Self {
        // It is made before the span is entered. Whether a subscriber that panics counts the span as entered
        // is unknown, so the span is exited in any case.
        let inside = Self(Some(span));
        if let Some(span) = &inside.0 {
            span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
        }
        inside
    }

    /// Leaves the span. Returns the first panic that this causes.
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
