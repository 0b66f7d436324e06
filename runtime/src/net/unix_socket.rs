//! A listening Unix socket that is opened outside the cores and accepted from by all of them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr;

use rustix::fs::Mode;

use super::listen_options::ListenOptions;
use super::path_lock::lock_directory_blocking;
use crate::Result;
use crate::core::unix_path::{Listening, SocketFile, bind_and_listen, tell_replaced};
use crate::place::Place;

/// A listening Unix socket that belongs to no core: a program opens it before its cores start, or while they
/// run, and gives each of them, and each of its processes, a clone of the descriptor
/// ([`UnixListener::from_owned_fd`](super::Listener::from_owned_fd)).
///
/// Dropping it removes the file and closes this descriptor. Clones stay open: they accept the connections
/// that had been made by then.
#[derive(Debug)]
pub struct UnixSocket {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

impl UnixSocket {
    /// Listens on `address`, a path or an abstract name. A path's file has the permissions `mode`, such as
    /// 0o660, and never more than that; `None` leaves them to the umask (`unix(7)`). A file that a killed
    /// program has left is replaced.
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
        // A subscriber that binds a socket in the same directory would wait for it.
        drop(lock);
        let Listening { socket, file, replaced } = made?;
        let this = Self { socket, file };
        if replaced {
            tell_replaced(&place);
        }
        Ok(this)
    }

    /// Takes over a socket that listens, from another process that this one replaces and that has [left the
    /// file](Self::leave_file). From now on the file belongs to this value.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn from_owned_fd(socket: OwnedFd) -> Result<Self> {
        let file = match Place::of(&socket)? {
            // If somebody has removed the file, nobody has to remove it.
            Place::Path(path) => SocketFile::of(&path).ok(),
            _ => None,
        };
        Ok(Self { socket, file })
    }

    /// Leaves the file where it is when this is dropped, because another process has the socket now.
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
