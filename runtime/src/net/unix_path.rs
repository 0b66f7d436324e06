//! A listening Unix socket and the file that names it.
//!
//! The file of a program that was killed stays behind. It is replaced if nobody listens on it: `connect(2)` says
//! `ECONNREFUSED`. Between looking and replacing, another may do the same; so who binds a path holds a lock on its
//! directory meanwhile (`flock(2)`), from which readers and writers of the directory do not suffer. Whoever may read the
//! directory may hold that lock for as long as he likes: so it is waited for with a timer, which holds no core up, and not
//! for ever.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, chmod, fchmod, flock, lstat, openat, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::listener::ListenOptions;
use super::place::Place;
use crate::error::os;
use crate::{Error, ErrorKind, Result};

/// How often the directory's lock is tried for: it is held for a few system calls.
const TRIES: u32 = 1000;
/// How long between two tries.
const REST: Duration = Duration::from_millis(1);

/// The one socket of a Unix address. Dropped, it stops listening and takes its file away.
pub(super) struct Bound {
    socket: OwnedFd,
    /// Dropped after the socket has been shut down.
    _file: Option<SocketFile>,
}

impl Bound {
    /// Binds and listens. Who binds a path has [locked](lock_directory) its directory.
    pub(super) fn new(place: &Place, backlog: i32) -> Result<Self> {
        let (socket, _file) = bind_and_listen(place, backlog, None)?;
        Ok(Self { socket, _file })
    }

    /// One more descriptor of the same open socket.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Accepts of the ring may keep it open for a turn: nobody shall connect to it meanwhile.
        if let Err(e) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            tracing::debug!("a Unix socket listens for a moment longer: {e}");
        }
    }
}

/// A listening Unix socket that belongs to no core: a program opens it before its cores start, or while they run, and gives each of
/// them, and each of its processes, a clone of the descriptor
/// ([`UnixListener::from_owned_fd`](super::Listener::from_owned_fd)).
///
/// Dropping it takes the file away and closes this descriptor. Clones go on: they accept what had connected by then.
#[derive(Debug)]
pub struct UnixSocket {
    socket: OwnedFd,
    _file: Option<SocketFile>,
}

impl UnixSocket {
    /// Listens on `address`, a path or an abstract name. A path's file has the permissions `mode`, such as 0o660, and at no time more;
    /// `None` leaves them to the umask (`unix(7)`). One that was left behind by a program that was killed is replaced.
    ///
    /// It blocks the calling thread, a second at most, while another program binds a socket in the same directory (`flock(2)`).
    ///
    /// # Errors
    /// As for [`UnixListener::bind`](super::UnixListener::bind).
    pub fn bind(address: &UnixAddr, options: &ListenOptions, mode: Option<u32>) -> Result<Self> {
        let place = Place::from(address);
        let lock = match &place {
            Place::Path(path) => lock_directory_blocking(path),
            _ => None,
        };
        let made = bind_and_listen(&place, options.bounded_backlog(), mode.map(Mode::from_raw_mode));
        drop(lock);
        let (socket, _file) = made?;
        Ok(Self { socket, _file })
    }

    /// One more descriptor of the same open socket, close-on-exec.
    ///
    /// # Errors
    /// What `fcntl(2)` says: no descriptor is left.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

/// The file of a socket: dropped, it is taken away, if it is still this one.
#[derive(Debug)]
struct SocketFile {
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
fn bind_and_listen(place: &Place, backlog: i32, mode: Option<Mode>) -> Result<(OwnedFd, Option<SocketFile>)> {
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
        // The file that bind(2) makes has the socket's mode, less the umask: never more than was asked for (unix_bind_bsd()).
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

/// Locks the directory of a path, until the descriptor is dropped. `None` where it may not be read or cannot be locked,
/// or where another holds the lock for long: then the look and the replacement are not one step.
pub(super) async fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let directory = directory(path)?;
    for _ in 0..TRIES {
        if let Some(locked) = try_lock(&directory, path) {
            return locked.then_some(directory);
        }
        crate::time::sleep(REST).await;
    }
    held_by_another(path)
}

/// The same, on a thread that may wait.
fn lock_directory_blocking(path: &Path) -> Option<OwnedFd> {
    let directory = directory(path)?;
    for _ in 0..TRIES {
        if let Some(locked) = try_lock(&directory, path) {
            return locked.then_some(directory);
        }
        std::thread::sleep(REST);
    }
    held_by_another(path)
}

fn directory(path: &Path) -> Option<OwnedFd> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty()).ok()
}

/// Whether the lock is held now; `None` to try again.
fn try_lock(directory: &OwnedFd, path: &Path) -> Option<bool> {
    match flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => None,
        Err(e) => {
            tracing::info!("{} is bound without a lock on its directory: {e}", path.display());
            Some(false)
        }
    }
}

fn held_by_another(path: &Path) -> Option<OwnedFd> {
    tracing::warn!("{} is bound without a lock on its directory, which another holds", path.display());
    None
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
