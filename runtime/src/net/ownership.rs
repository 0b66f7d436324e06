//! The owner of a connection that was given away while the network still held blocks of it.
//!
//! A zero-copy send keeps the socket of its core until the network has released its block. Once the
//! connection has been given away, the core that it left must not reset it to get the block back, because it
//! belongs to another core. So a notice goes with the connection from core to core. When the connection is
//! finally closed, the notice tells the cores that it left, which may then [get their blocks
//! back](super::zero_copy). Nothing reports what happens to a descriptor outside of the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who owns a socket's connection.
#[derive(Debug)]
pub(super) enum Ownership {
    /// The holder of a handle on this socket, with the notice to the cores that the connection has left, if
    /// there are any.
    Ours(Option<CloseNotice>),
    /// Another socket, until the flag says that the connection was closed.
    Theirs(Arc<AtomicBool>),
    /// Somebody outside of the runtime.
    Outside,
}

impl Default for Ownership {
    fn default() -> Self {
        Self::Ours(None)
    }
}

impl Ownership {
    /// Gives the connection to another socket, which gets the notice. `lent`: the network holds blocks of
    /// this socket.
    pub(super) fn hand_on(&mut self, lent: bool) -> Option<CloseNotice> {
        let Self::Ours(notice) = self else { return None };
        let notice = notice.take().or_else(|| lent.then(CloseNotice::new));
        if let Some(word) = notice.as_ref().and_then(|notice| notice.0.as_ref()) {
            *self = Self::Theirs(Arc::clone(word));
        }
        notice
    }

    /// Gives the connection out of the runtime.
    pub(super) fn give_up(&mut self) {
        if let Self::Ours(Some(mut notice)) = std::mem::replace(self, Self::Outside) {
            // The cores that it has left are never told that it was closed.
            drop(notice.0.take());
        }
    }

    /// Whether only the core of this socket has the connection.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Ours(_) => true,
            Self::Theirs(closed) => closed.load(Ordering::Acquire),
            Self::Outside => false,
        }
    }
}

/// The notice that goes with a connection. Dropping it tells the cores that the connection has left that it
/// was closed.
#[derive(Debug)]
pub(super) struct CloseNotice(Option<Arc<AtomicBool>>);

impl CloseNotice {
    fn new() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Drop for CloseNotice {
    fn drop(&mut self) {
        if let Some(closed) = &self.0 {
            closed.store(true, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_core_that_it_has_left_learns_that_it_was_closed() {
        let mut first = Ownership::Ours(None);
        let mut second = Ownership::Ours(first.hand_on(true));
        assert!(!first.is_ours() && second.is_ours());
        // The second has lent nothing, and still passes the notice on.
        let third = Ownership::Ours(second.hand_on(false));
        assert!(!first.is_ours() && !second.is_ours());
        drop(third);
        assert!(first.is_ours() && second.is_ours());
    }

    #[test]
    fn what_has_left_the_runtime_is_never_closed_for_anybody() {
        let mut first = Ownership::Ours(None);
        let mut second = Ownership::Ours(first.hand_on(true));
        second.give_up();
        assert!(!first.is_ours() && !second.is_ours());
        drop(second);
        assert!(!first.is_ours());
    }

    #[test]
    fn a_connection_that_has_lent_nothing_needs_no_tie() {
        let mut first = Ownership::Ours(None);
        assert!(first.hand_on(false).is_none());
    }
}
