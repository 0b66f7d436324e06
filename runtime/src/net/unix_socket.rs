//! A listening Unix socket that is opened outside the cores and accepted from by all of them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr;

use rustix::fs::Mode;

use super::listen_options::ListenOptions;
use super::path_lock::lock_directory_blocking;
use crate::Result;
use crate::core::unix_path::{SocketFile, bind_and_listen};
use crate::place::Place;

/// A listening Unix socket that belongs to no core: a program opens it before its cores start, or while they
/// run, and gives each of them, and each of its processes, a clone of the descriptor
/// ([`UnixListener::from_owned_fd`](super::Listener::from_owned_fd)).
///
/// Dropping it takes the file away and closes this descriptor. Clones go on: they accept what had connected
/// by then.
#[derive(Debug)]
pub struct UnixSocket {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

impl UnixSocket {
    /// Listens on `address`, a path or an abstract name. A path's file has the permissions `mode`, such as
    /// 0o660, and at no time more; `None` leaves them to the umask (`unix(7)`). One that was left behind by a
    /// program that was killed is replaced.
    ///
    /// It blocks the calling thread, a second at most, while another program binds a socket in the same
    /// directory (`flock(2)`).
    ///
    /// # Errors
    /// As for [`UnixListener::bind`](super::UnixListener::bind).
    pub fn bind(address: &SocketAddr, options: &ListenOptions, mode: Option<u32>) -> Result<Self> {
        let place = Place::from(address);
        let lock = match &place {
            Place::Path(path) => lock_directory_blocking(path),
            _ => None,
        };
        let made = bind_and_listen(&place, options.bounded_backlog(), mode.map(Mode::from_raw_mode));
        drop(lock);
        let (socket, file) = made?;
        Ok(Self { socket, file })
    }

    /// Takes over a socket that listens: one that another process, whose place this one takes, has handed
    /// over and [left the file of](Self::leave_file). From now on the file is this one's.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn from_owned_fd(socket: OwnedFd) -> Result<Self> {
        let file = match Place::of(&socket)? {
            // One that somebody has taken away is nobody's to take away.
            Place::Path(path) => SocketFile::of(&path).ok(),
            _ => None,
        };
        Ok(Self { socket, file })
    }

    /// Leaves the file where it is when this is dropped: another process has the socket now.
    pub fn leave_file(&self) {
        if let Some(file) = &self.file {
            file.leave();
        }
    }

    /// One more descriptor of the same open socket, close-on-exec.
    ///
    /// # Errors
    /// What `fcntl(2)` says: no descriptor is left.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}
