//! A listening Unix socket and the file that names it.
//!
//! The file of a program that was killed stays behind. It is replaced if nobody listens on it: `connect(2)`
//! then says `ECONNREFUSED`. Another process may do the same between the check and the replacement. So a
//! process that binds a path locks its directory meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, chmod, fchmod, lstat, unlink};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::contained::contained;
use crate::error::os;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// The one socket of a Unix address. When it is dropped, it stops listening and removes its file.
pub(crate) struct Bound {
    socket: OwnedFd,
    /// Dropped after the socket has been shut down.
    _file: Option<SocketFile>,
}

impl Bound {
    /// Binds and listens. The caller of this has locked the directory of the path.
    pub(crate) fn new(place: &Place, backlog: i32) -> Result<Self> {
        let (socket, _file) = bind_and_listen(place, backlog, None)?;
        Ok(Self { socket, _file })
    }

    /// One more descriptor of the same open socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Accepts in the ring may keep it open for a tick, and no client may connect to it meanwhile.
        if let Err(e) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            contained("a subscriber of tracing", || {
                tracing::debug!("a Unix socket listens for a moment longer: {e}");
            });
        }
    }
}

/// The file of a socket. When it is dropped, the file is removed, if the path still names this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It belongs to another process now.
    is_left: AtomicBool,
}

impl SocketFile {
    /// The file that is at `path` now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = lstat(path).map_err(os)?;
        let is_left = AtomicBool::new(false);
        Ok(Self { path: path.to_owned(), device: file.st_dev, inode: file.st_ino, is_left })
    }

    /// The file is not removed any more.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Self { path, device, inode, is_left } = self;
        if is_left.load(Ordering::Relaxed) {
            return;
        }
        let is_ours = lstat(path.as_path()).is_ok_and(|file| (file.st_dev, file.st_ino) == (*device, *inode));
        if is_ours && let Err(e) = unlink(path.as_path()) {
            contained("a subscriber of tracing", || {
                tracing::warn!("the socket's file {} stays behind: {e}", path.display());
            });
        }
    }
}

/// A socket that listens at `place`, and its file.
pub(crate) fn bind_and_listen(
    place: &Place,
    backlog: i32,
    mode: Option<Mode>,
) -> Result<(OwnedFd, Option<SocketFile>)> {
    let address = place.to_any()?;
    let Place::Path(path) = place else {
        return Ok((listening(&address, backlog, None).map_err(|e| refused(place, e))?, None));
    };
    let mut replaced = false;
    let socket = match listening(&address, backlog, mode) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => {
            clear(path, &address)?;
            replaced = true;
            listening(&address, backlog, mode)
        }
        made => made,
    };
    let socket = socket.map_err(|e| refused(place, e))?;
    let file = SocketFile::of(path).map_err(|e| refused(place, e))?;
    if let Some(mode) = mode {
        // The umask may have removed more permissions than was asked for.
        chmod(path.as_path(), mode).map_err(|e| refused(place, os(e)))?;
    }
    if replaced {
        // Logged after the replacement: a subscriber might bind the path between the check and it.
        tracing::info!("{place} was left behind by a program that has ended: replaced");
    }
    Ok((socket, Some(file)))
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(os)
}

fn listening(address: &SocketAddrAny, backlog: i32, mode: Option<Mode>) -> io::Result<OwnedFd> {
    let socket = socket()?;
    if let Some(mode) = mode {
        // The file that bind(2) makes has the socket's mode, less the umask: never more than was asked for
        // (unix_bind_bsd()).
        fchmod(&socket, mode).map_err(os)?;
    }
    bind(&socket, address).map_err(os)?;
    listen(&socket, backlog).map_err(os)?;
    Ok(socket)
}

/// Removes a file on which nobody listens.
fn clear(path: &Path, address: &SocketAddrAny) -> Result<()> {
    let place = Place::Path(path.to_owned());
    let file = lstat(path).map_err(|e| refused(&place, os(e)))?;
    if FileType::from_raw_mode(file.st_mode) != FileType::Socket {
        let what =
            format!("cannot listen on {place}: there is a file that is no socket; choose another path");
        return Err(Error::new(ErrorKind::Input, what));
    }
    match socket().and_then(|probe| connect(&probe, address).map_err(os)) {
        Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => {
            unlink(path).map_err(|e| refused(&place, os(e)))
        }
        // It was accepted, or the backlog is full, or it is of another type: a process listens.
        _ => Err(refused(&place, io::Error::from_raw_os_error(libc::EADDRINUSE))),
    }
}

fn refused(place: &Place, e: io::Error) -> Error {
    let remedy = match e.raw_os_error() {
        Some(libc::EADDRINUSE) => "something listens there already; stop it or choose another path",
        Some(libc::ENOENT | libc::ENOTDIR) => "its directory is not there; make it",
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "its directory may not be written to; choose another"
        }
        _ => return Error::io(format!("cannot listen on {place}"), e),
    };
    Error::with_source(ErrorKind::Input, format!("cannot listen on {place} ({remedy})"), e)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::testing::{at_the_next_event, has_acted};

    /// Seen to fail: with the event between the check and the replacement, the subscriber listens on a socket
    /// whose file is then removed.
    #[test]
    fn a_subscriber_that_is_told_of_a_replacement_cannot_come_before_it() {
        let path = std::env::temp_dir().join(format!("annulus-replaced-{}", std::process::id()));
        drop(UnixListener::bind(&path).unwrap());
        let place = Place::Path(path.clone());
        let guard = at_the_next_event("annulus::core::unix_path", {
            let place = place.clone();
            move || {
                let taken = bind_and_listen(&place, 8, None).unwrap_err();
                assert_eq!(taken.io_error().unwrap().raw_os_error(), Some(libc::EADDRINUSE), "{taken}");
            }
        });
        let (_socket, file) = bind_and_listen(&place, 8, None).unwrap();
        drop(guard);
        assert!(has_acted(), "it was told");
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }
}
