//! The admin server's listening socket, and a connection of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::options::AdminAddress;
use crate::listen::address::{Place, unix_address};

/// A socket that operators connect to. The file of a Unix socket goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    /// How it is announced.
    name: String,
    file: Option<PathBuf>,
    /// Another program has it now: nobody is accepted here any more, and the file is left.
    is_given: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection. No call on it waits.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Takes over the socket that the program before had at `address`.
    ///
    /// # Errors
    /// What a look at it says.
    pub(super) fn take_over(address: &AdminAddress, socket: OwnedFd) -> io::Result<Self> {
        let is_given = Arc::default();
        Ok(match address.place() {
            Place::Unix(path) => {
                let file = (!path.starts_with('@')).then(|| PathBuf::from(path));
                let name = format!("http://unix:{path}");
                Listener { socket: Socket::Unix(socket.into()), name, file, is_given }
            }
            Place::Ip(_) | Place::Everywhere(_) => {
                let socket = TcpListener::from(socket);
                let name = format!("http://{}", socket.local_addr()?);
                Listener { socket: Socket::Tcp(socket), name, file: None, is_given }
            }
        })
    }

    /// Whether another program has it now; to be set when it has.
    pub(super) fn is_given(&self) -> &Arc<AtomicBool> {
        &self.is_given
    }

    /// Opens it. Only the own user may use a Unix socket.
    ///
    /// # Errors
    /// What bind(2) says; `EADDRINUSE` where another program answers at a Unix socket of that name.
    pub(super) fn open(address: &AdminAddress) -> io::Result<Self> {
        match address.place() {
            Place::Ip(address) => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                let name = format!("http://{}", socket.local_addr()?);
                Ok(Listener { socket: Socket::Tcp(socket), name, file: None, is_given: Arc::default() })
            }
            Place::Everywhere(port) => {
                let socket = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, *port))?;
                socket.set_nonblocking(true)?;
                let name = format!("http://{}", socket.local_addr()?);
                Ok(Listener { socket: Socket::Tcp(socket), name, file: None, is_given: Arc::default() })
            }
            Place::Unix(path) => {
                let socket = bind_unix(path)?;
                socket.set_nonblocking(true)?;
                let file = (!path.starts_with('@')).then(|| PathBuf::from(path));
                let name = format!("http://unix:{path}");
                Ok(Listener { socket: Socket::Unix(socket), name, file, is_given: Arc::default() })
            }
        }
    }

    /// How it is announced.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next connection, if one waits.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        let stream = match &self.socket {
            Socket::Tcp(socket) => Stream::Tcp(socket.accept()?.0),
            Socket::Unix(socket) => Stream::Unix(socket.accept()?.0),
        };
        match &stream {
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

/// Binds a Unix socket, in place of the file of one that nobody listens at any more.
fn bind_unix(path: &str) -> io::Result<UnixListener> {
    let address = unix_address(path)?;
    // bind(2) makes the file with what the mask leaves of its mode.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let mut bound = UnixListener::bind_addr(&address);
    let is_stale = || {
        let refused = UnixStream::connect_addr(&address).err().map(|error| error.kind());
        refused == Some(io::ErrorKind::ConnectionRefused) && !path.starts_with('@')
    };
    if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) && is_stale() {
        bound = std::fs::remove_file(path).and_then(|()| UnixListener::bind_addr(&address));
    }
    rustix::process::umask(before);
    bound
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.is_given.load(Ordering::Acquire)
            && let Some(file) = &self.file
            && let Err(error) = std::fs::remove_file(file)
        {
            tracing::debug!(path = %file.display(), %error, "the file of the admin socket stays");
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    /// Whether it is a Unix socket, whose peers are on this machine.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
