//! The state of sending on a socket.

/// The state of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Nobody sends.
    Free,
    /// Nobody sends, and the waiting tasks have been woken: a task that has just come lets them go first,
    /// once. So a task that sends all the time does not keep the others out, and one that was woken and is
    /// not polled keeps nobody out.
    Due,
    /// A send is in progress.
    Busy,
    /// A send was dropped half-way.
    Poisoned,
}
