//! Listening sockets that systemd, or whoever speaks its protocol, hands to a program at its start.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::{Error, ErrorKind, Result};

/// The first descriptor that is handed over (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that the service manager opened for this process (`sd_listen_fds(3)`): as many as `LISTEN_FDS` says, if
/// `LISTEN_PID` names this process, in the order of the unit's `Listen...=` lines. They are made close-on-exec.
///
/// The first call takes them, later ones give none. Call it first in `main`: what else has a number from 3 on by then cannot
/// be told from what was handed over, should `LISTEN_FDS` promise too much. Give each core a clone ([`OwnedFd::try_clone`]):
///
/// ```no_run
/// use annulus::{Runtime, net::{TcpListener, inherited_sockets}};
///
/// fn main() -> annulus::Result<()> {
///     let sockets = inherited_sockets()?;
///     Runtime::builder().build()?.run(move || {
///         let socket = sockets[0].try_clone();
///         async move {
///             let listener = TcpListener::from_owned_fd(socket?)?;
///             while let Ok(stream) = listener.accept().await {
///                 drop(stream);
///             }
///             Ok(())
///         }
///     })
/// }
/// ```
///
/// # Errors
/// [`ErrorKind::Input`] when the variables are no numbers, or a descriptor that they promise is not open.
pub fn inherited_sockets() -> Result<Vec<OwnedFd>> {
    let number = |name: &str| match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(value) => value.trim().parse::<u32>().map(Some).map_err(|_| {
            Error::new(
                ErrorKind::Input,
                format!("{name} is {value:?}, which is no number (sd_listen_fds(3))"),
            )
        }),
    };
    let (Some(pid), Some(count)) = (number("LISTEN_PID")?, number("LISTEN_FDS")?) else {
        return Ok(Vec::new());
    };
    if pid != std::process::id() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST.saturating_add_unsigned(count)).map(take).collect()
}

fn take(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: looked at for the length of two system calls, which fail if it is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl_getfd(borrowed).and_then(|_| fcntl_setfd(borrowed, FdFlags::CLOEXEC)).map_err(|e| {
        let what = format!("descriptor {fd} was promised by LISTEN_FDS and is not there");
        Error::with_source(ErrorKind::Input, what, crate::error::os(e))
    })?;
    // SAFETY: it is open, the service manager made it for us, and `TAKEN` lets it be taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
