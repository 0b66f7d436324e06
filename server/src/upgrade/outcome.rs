//! How an upgrade goes, for whoever has ordered it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// How far the last upgrade of this process has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// None was ordered.
    None,
    /// The new program starts.
    UnderWay,
    /// It did not come up, and why.
    Failed(String),
    /// This process serves in the place of this one.
    Done(u32),
}

static OUTCOME: Mutex<Outcome> = Mutex::new(Outcome::None);

/// How far it has come.
pub(crate) fn get() -> Outcome {
    OUTCOME.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Begins one; false if one is under way, or this process has been replaced.
pub(super) fn begin() -> bool {
    let mut outcome = OUTCOME.lock().unwrap_or_else(PoisonError::into_inner);
    let may = matches!(*outcome, Outcome::None | Outcome::Failed(_));
    if may {
        *outcome = Outcome::UnderWay;
    }
    may
}

/// It has come to this end, of which the one who has ordered it by number is told.
pub(super) fn end(outcome: Outcome) {
    let text = match &outcome {
        Outcome::Done(pid) => format!("done {pid}"),
        Outcome::Failed(why) => format!("failed {why}"),
        Outcome::None | Outcome::UnderWay => String::new(),
    };
    *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    tell_who_waits(&text);
}

/// Where whoever upgrades process `pid` waits for word.
///
/// # Errors
/// The name is too long, which it is not.
pub(crate) fn waits_at(pid: u32) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("annulus-upgrade-{pid}"))
}

/// Tells who waits. Most of the time nobody does.
pub(super) fn tell_who_waits(text: &str) {
    let told = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &waits_at(std::process::id())?)
    });
    if let Err(error) = told {
        tracing::debug!(%error, "nobody waits for the end of the upgrade");
    }
}
