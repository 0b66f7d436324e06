//! What the machine answers.

use super::Outcome;

/// What a CQE means for the user of the machine. `V` is the value of an operation whose slot is vacant now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<W, X, V> {
    /// No such operation: the key is not from this table, or its operation is over.
    Stale,
    /// The result is kept for the owner: wake it, if there is a waker.
    Wake(Option<W>),
    /// One of many results: hand it to the sink. `owned` says whether the owner is still there. If it is not,
    /// what the result brings (a descriptor, a buffer) must be given back.
    Item { extra: X, owned: bool },
    /// As `Item`, and the last of them.
    Last { value: V, owned: bool },
    /// The result of an operation whose owner is gone: clean up what it brings. Without a value, a
    /// notification is still due.
    Late { extra: X, outcome: Outcome, value: Option<V> },
    /// The notification came before the owner took the result. The memory is the owner's: wake it.
    Notified { extra: X, waker: Option<W> },
    /// The notification after a result that was handled already.
    Released { value: V },
}

/// What a [usual](super::Slots::usual) CQE means. Both as the [`Event`] of the same name.
pub(crate) enum Usual<W, X> {
    Wake(Option<W>),
    Item { extra: X, owned: bool },
}

/// What an owner finds when it polls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled<V> {
    /// Nothing yet.
    Pending,
    /// The result, and the value: the slot is vacant.
    Done(Outcome, V),
    /// The result; the memory stays the kernel's until the notification.
    Early(Outcome),
}

/// What dropping an owner asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Abandon<X, V> {
    /// Send a cancel; nothing is free yet.
    Cancel,
    /// A result was waiting: clean up what it brings. Without a value, a notification is still due.
    Late { extra: X, outcome: Outcome, value: Option<V> },
}
