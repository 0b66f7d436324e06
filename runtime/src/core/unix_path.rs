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
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::contained::told;
use crate::error::os;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// The one socket of a Unix address. When it is dropped, it stops listening and removes its file.
pub(crate) struct Bound {
    socket: OwnedFd,
    file: Option<SocketFile>,
    ended: bool,
}

impl Bound {
    /// Binds and listens. The caller of this has locked the directory of the path. The flag says whether a
    /// file that was left behind was replaced, which is to be [told](tell_replaced).
    pub(crate) fn new(place: &Place, backlog: i32) -> Result<(Self, bool)> {
        let Listening { socket, file, replaced } = bind_and_listen(place, backlog, None)?;
        Ok((Self { socket, file, ended: false }, replaced))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// One more descriptor of the same open socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Stops listening and takes the file away, in this order, and tells nobody yet.
    pub(crate) fn end(mut self) -> Ended {
        self.stop()
    }

    fn stop(&mut self) -> Ended {
        self.ended = true;
        // Accepts of the ring may keep it open for a tick: no client may connect to it meanwhile.
        let still_listens = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).err();
        Ended { still_listens, left: self.file.take().and_then(SocketFile::remove) }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.ended {
            self.stop().tell();
        }
    }
}

/// What a log has to be told of the end of a listening socket. Telling it runs foreign code, which may bind
/// the same address, so it is told when nothing is locked.
#[must_use]
pub(crate) struct Ended {
    still_listens: Option<Errno>,
    left: Option<(PathBuf, Errno)>,
}

impl Ended {
    pub(crate) fn tell(self) {
        let Self { still_listens, left } = self;
        if let Some(e) = still_listens {
            told(|| tracing::debug!("a Unix socket listens for a moment longer: {e}"));
        }
        if let Some((path, e)) = left {
            tell_left(&path, e);
        }
    }
}

fn tell_left(path: &Path, e: Errno) {
    told(|| tracing::warn!("the socket's file {} stays behind: {e}", path.display()));
}

/// The file of a socket. When it is dropped, the file is removed, if the path still names this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It belongs to another process now, or was removed.
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

    /// Takes it away. Returns its path and the reason if it stays behind.
    fn remove(self) -> Option<(PathBuf, Errno)> {
        self.take_away().map(|e| (self.path.clone(), e))
    }

    fn take_away(&self) -> Option<Errno> {
        let Self { path, device, inode, is_left } = self;
        if is_left.swap(true, Ordering::Relaxed) {
            return None;
        }
        let is_ours = lstat(path.as_path()).is_ok_and(|file| (file.st_dev, file.st_ino) == (*device, *inode));
        if is_ours { unlink(path.as_path()).err() } else { None }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(e) = self.take_away() {
            tell_left(&self.path, e);
        }
    }
}

/// A socket that listens, and its file. `replaced`: a program that has ended had left a file there, which is
/// to be [told](tell_replaced) when nothing is locked.
pub(crate) struct Listening {
    pub(crate) socket: OwnedFd,
    pub(crate) file: Option<SocketFile>,
    pub(crate) replaced: bool,
}

/// A socket that listens at `place`, and its file.
pub(crate) fn bind_and_listen(place: &Place, backlog: i32, mode: Option<Mode>) -> Result<Listening> {
    let address = place.to_any()?;
    let Place::Path(path) = place else {
        let socket = listening(&address, backlog, None).map_err(|e| refused(place, e))?;
        return Ok(Listening { socket, file: None, replaced: false });
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
    Ok(Listening { socket, file: Some(file), replaced })
}

/// Tells a log that a file was replaced. A subscriber may bind addresses: it is told after the replacement,
/// and when nothing is locked.
pub(crate) fn tell_replaced(place: &Place) {
    told(|| tracing::info!("{place} was left behind by a program that has ended: replaced"));
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

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("annulus-{name}-{}", std::process::id()))
    }

    /// Seen to fail: with the event between the check and the replacement, the subscriber listens on a socket
    /// whose file is then removed.
    #[test]
    fn a_subscriber_that_is_told_of_a_replacement_cannot_come_before_it() {
        let path = path("replaced");
        drop(UnixListener::bind(&path).unwrap());
        let place = Place::Path(path.clone());
        let guard = at_the_next_event("annulus::core::unix_path", {
            let place = place.clone();
            move || {
                let taken = bind_and_listen(&place, 8, None).err().unwrap();
                assert_eq!(taken.io_error().unwrap().raw_os_error(), Some(libc::EADDRINUSE), "{taken}");
            }
        });
        let made = bind_and_listen(&place, 8, None).unwrap();
        assert!(made.replaced);
        tell_replaced(&place);
        drop(guard);
        assert!(has_acted(), "it was told");
        UnixStream::connect(&path).unwrap();
        drop(made.file);
        assert!(!path.exists());
    }

    /// A socket that cannot be shut down, as it is none, and a file that cannot be removed, as it is a
    /// directory.
    fn cannot_end(directory: &Path) -> Bound {
        std::fs::create_dir(directory).unwrap();
        let socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Bound { socket, file: Some(SocketFile::of(directory).unwrap()), ended: false }
    }

    /// Seen to fail, by an abort: with the event of the socket, and with that of the file, as it is.
    #[test]
    fn a_subscriber_that_panics_over_the_end_of_a_socket_may_do_so_while_its_thread_panics() {
        let directory = path("cannot-end");
        for dropped in ["both", "the file"] {
            let (bound, other) = (cannot_end(&directory), SocketFile::of(&directory).unwrap());
            let _guard = at_the_next_event("annulus::core::unix_path", || panic!("on purpose"));
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                if dropped == "both" {
                    let (_bound, _) = (bound, other.leave());
                    panic!("the task, on purpose");
                }
                bound.file.as_ref().unwrap().leave();
                let _other = other;
                panic!("the task, on purpose");
            }));
            assert!(panicked.is_err() && has_acted(), "{dropped}");
            std::fs::remove_dir(&directory).unwrap();
        }
    }
}
