//! The progress of an upgrade, for whoever ordered it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// The progress of this process's last upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// None was ordered.
    None,
    /// The new program is starting.
    UnderWay,
    /// It did not start, for this reason.
    Failed(String),
    /// The process with this number serves in place of this one.
    Done(u32),
}

static OUTCOME: Mutex<Outcome> = Mutex::new(Outcome::None);

/// The progress of the last upgrade.
pub(crate) fn get() -> Outcome {
    OUTCOME.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Begins an upgrade; `false` if one is in progress, or if this process has been replaced.
pub(super) fn begin() -> bool {
    let mut outcome = OUTCOME.lock().unwrap_or_else(PoisonError::into_inner);
    let may = matches!(*outcome, Outcome::None | Outcome::Failed(_));
    if may {
        *outcome = Outcome::UnderWay;
    }
    may
}

/// Ends the upgrade with this outcome, and reports it to whoever waits for it ([`waits_at`]).
pub(super) fn end(outcome: Outcome) {
    let text = match &outcome {
        Outcome::Done(pid) => format!("done {pid}"),
        Outcome::Failed(why) => format!("failed {why}"),
        Outcome::None | Outcome::UnderWay => String::new(),
    };
    *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    tell_who_waits(&text);
}

/// The address at which whoever upgrades process `pid` waits for the outcome.
///
/// # Errors
/// None in practice: the name is short enough.
pub(crate) fn waits_at(pid: u32) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("annulus-upgrade-{pid}"))
}

/// Reports to whoever waits. Usually nobody does.
pub(super) fn tell_who_waits(text: &str) {
    let told = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &waits_at(std::process::id())?)
    });
    if let Err(error) = told {
        tracing::debug!(%error, "nobody waits for the end of the upgrade");
    }
}
