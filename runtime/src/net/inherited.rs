//! Listening sockets that systemd, or another program with its protocol, passes to a program at its start.

use std::fmt;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};

use crate::{Error, ErrorKind, Result};

/// The first descriptor that is handed over (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;

/// Whether they have been taken. It is locked while they are checked, so that two threads do not both find
/// them free.
static TAKEN: Mutex<bool> = Mutex::new(false);

/// The sockets that the service manager opened for this process (`sd_listen_fds(3)`): as many as `LISTEN_FDS`
/// says, if `LISTEN_PID` names this process, in the order of the unit's `Listen...=` lines. They are made
/// close-on-exec.
///
/// Each is checked first: it must be a socket that listens, or one for datagrams (`SO_ACCEPTCONN`,
/// `SO_TYPE`; `socket(7)`). One that is not is an error, and then none is taken. The first call that succeeds
/// takes them, for the whole process; later ones give none. Give each core a clone ([`OwnedFd::try_clone`]):
///
/// ```no_run
/// use annulus::{Runtime, net::{TcpListener, inherited_sockets}};
///
/// fn main() -> annulus::Result<()> {
///     // SAFETY: first in `main`, so that what is open from 3 on is what was handed over, and nobody else's.
///     let sockets = unsafe { inherited_sockets() }?;
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
/// # Safety
/// Nothing in the process owns the descriptors from 3 on that `LISTEN_FDS` promises, and nothing takes them
/// later: no socket was opened before this call, and no other library speaks the protocol. The check does not
/// tell whose a socket is, and the variables are whatever the environment says.
///
/// # Errors
/// [`ErrorKind::Input`] when the variables are no numbers, a descriptor that they promise is not open, or is
/// no such socket.
pub unsafe fn inherited_sockets() -> Result<Vec<OwnedFd>> {
    let number = |name: &str| match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(value)) => Err(no_number(name, &value)),
        Ok(value) => value.trim().parse::<u32>().map(Some).map_err(|_| no_number(name, &value)),
    };
    let (Some(pid), Some(count)) = (number("LISTEN_PID")?, number("LISTEN_FDS")?) else {
        return Ok(Vec::new());
    };
    if pid != std::process::id() {
        return Ok(Vec::new());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if *taken {
        return Ok(Vec::new());
    }
    let promised = FIRST..FIRST.saturating_add_unsigned(count);
    promised.clone().try_for_each(check)?;
    *taken = true;
    // SAFETY: each is open, and nobody else's as the caller promises; `TAKEN` lets them be taken once.
    Ok(promised.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

fn no_number(name: &str, value: &(impl fmt::Debug + ?Sized)) -> Error {
    Error::new(ErrorKind::Input, format!("{name} is {value:?}, which is no number (sd_listen_fds(3))"))
}

/// Checks that `fd` is a socket that is passed, and makes it close-on-exec.
fn check(fd: RawFd) -> Result<()> {
    // SAFETY: used for the length of a few system calls, which fail if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let told = |what: &str, e| {
        Error::with_source(
            ErrorKind::Input,
            format!("descriptor {fd} was promised by LISTEN_FDS and {what}"),
            e,
        )
    };
    let os = crate::error::os;
    fcntl_getfd(borrowed).map_err(|e| told("is not there", os(e)))?;
    let kind = socket_type(borrowed).map_err(|e| told("is no socket", os(e)))?;
    let listens = socket_acceptconn(borrowed).map_err(|e| told("cannot be inspected", os(e)))?;
    if !listens && kind != SocketType::DGRAM {
        let why = std::io::Error::from_raw_os_error(libc::EINVAL);
        return Err(told("does not listen; name it under Listen...= of the socket's unit", why));
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|e| told("cannot be made close-on-exec", os(e)))
}
