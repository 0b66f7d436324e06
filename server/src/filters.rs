//! Filters of system calls, such as containers have.

use crate::exit::{Failure, Kind};

/// What lets calls through, for the end of a line about them.
pub(crate) const REMEDY: &str = "allow them in the container's seccomp profile; scripts/seccomp/annulus.json lets through what Annulus calls";

/// Checks that the system calls that serving takes are let through, before the first client is served.
///
/// # Errors
/// [`Kind::Platform`] when some are refused.
pub(crate) fn must_let_through() -> Result<(), Failure> {
    let refused = annulus::refused_calls();
    if refused.is_empty() {
        return Ok(());
    }
    let text = format!("a filter refuses the system calls {}; {REMEDY}", refused.join(", "));
    Err(Failure::new(Kind::Platform, text))
}
