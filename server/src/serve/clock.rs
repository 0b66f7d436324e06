//! The clock by which files are believed and closed.

use std::sync::OnceLock;
use std::time::Instant;

/// What the clock begins with, in milliseconds: an age that is counted from 0 is over by then.
const START: u64 = 2000;

/// Milliseconds of a clock that is never set and begins with the first call at [`START`].
pub(super) fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = *FIRST.get_or_init(instant);
    instant().saturating_duration_since(first).as_millis() as u64 + START
}

/// Now. On a core that is played it is the play's time.
pub(super) fn instant() -> Instant {
    #[cfg(test)]
    return annulus::played::now();
    #[cfg(not(test))]
    Instant::now()
}
