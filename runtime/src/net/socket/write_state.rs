//! What sending on a socket has come to.

/// What sending has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Nobody sends.
    Free,
    /// Nobody sends, and those that wait have been woken: who has just come lets them go first, once. So a
    /// task that sends on and on does not keep the others out, and one that was woken and is not polled keeps
    /// nobody out.
    Due,
    /// A send is under way.
    Busy,
    /// A send was dropped half-way.
    Poisoned,
}
