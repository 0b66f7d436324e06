//! A listening Unix socket and the file that names it.
//!
//! The file of a program that was killed stays behind. It is replaced if nobody listens on it: `connect(2)`
//! says `ECONNREFUSED`. Between looking and replacing, another may do the same; so who binds a path holds a
//! lock on its directory meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, chmod, fchmod, lstat, unlink};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::error::os;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// The one socket of a Unix address. Dropped, it stops listening and takes its file away.
pub(crate) struct Bound {
    socket: OwnedFd,
    /// Dropped after the socket has been shut down.
    _file: Option<SocketFile>,
}

impl Bound {
    /// Binds and listens. Who binds a path has locked its directory.
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
        // Accepts of the ring may keep it open for a tick: nobody shall connect to it meanwhile.
        if let Err(e) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            tracing::debug!("a Unix socket listens for a moment longer: {e}");
        }
    }
}

/// The file of a socket: dropped, it is taken away, if it is still this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = lstat(path).map_err(os)?;
        Ok(Self { path: path.to_owned(), device: file.st_dev, inode: file.st_ino })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Self { path, device, inode } = self;
        let is_ours = lstat(path.as_path()).is_ok_and(|file| (file.st_dev, file.st_ino) == (*device, *inode));
        if is_ours && let Err(e) = unlink(path.as_path()) {
            tracing::warn!("the socket's file {} stays behind: {e}", path.display());
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
    let socket = match listening(&address, backlog, mode) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => {
            clear(path, &address)?;
            listening(&address, backlog, mode)
        }
        made => made,
    };
    let socket = socket.map_err(|e| refused(place, e))?;
    let file = SocketFile::of(path).map_err(|e| refused(place, e))?;
    if let Some(mode) = mode {
        // The umask may have taken more than was asked for.
        chmod(path.as_path(), mode).map_err(|e| refused(place, os(e)))?;
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

/// Takes a file away on which nobody listens.
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
            tracing::info!("{place} was left behind by a program that has ended: replaced");
            unlink(path).map_err(|e| refused(&place, os(e)))
        }
        // It was accepted, or the backlog is full, or it is of another type: somebody is there.
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
