//! Unix domain sockets: streams and listeners on paths and abstract names (`unix(7)`).

use std::os::fd::AsFd;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};

use super::connection::Connection;
use super::family::{Both, Reader, Side, Unix, Writer};
use super::listen_options::ListenOptions;
use super::listener::Listener;
use super::op::connect::Connect;
use super::path_lock::lock_directory;
use crate::core::ask::ask;
use crate::error::os;
use crate::place::Place;
use crate::{Error, Result};

/// A Unix stream connection of the current core. All that it can do beside the functions here is described at
/// [`Connection`].
pub type UnixStream<S = Both> = Connection<Unix, S>;

/// The half of a [`UnixStream`] that receives.
pub type UnixReadHalf = UnixStream<Reader>;

/// The half of a [`UnixStream`] that sends.
pub type UnixWriteHalf = UnixStream<Writer>;

/// How long it waits, at first and at most, when a listener's backlog is full.
const FULL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// Who is at the other end, as the kernel knows it (`SO_PEERCRED`, `unix(7)`): the user of the process at the
/// time when it connected or began to listen, or made the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCred {
    /// Its process number; 0 when it is in a PID namespace that is not visible from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl PeerCred {
    /// The credentials of the peer of `socket`.
    pub(super) fn of(socket: impl AsFd) -> Result<Self> {
        // rustix's function is not used, because its process number cannot be zero.
        let credentials = super::sys::peer_credentials(socket.as_fd());
        let libc::ucred { pid, uid, gid } =
            credentials.map_err(|e| Error::io("cannot read SO_PEERCRED", e))?;
        Ok(Self { pid, uid, gid })
    }
}

impl UnixStream {
    /// Connects to the socket whose file is `path`. Linux 5.5 (`connect(2)`, `unix(7)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason (`ECONNREFUSED`, `ENOENT`, ...),
    /// naming the path; [`ErrorKind::Input`](crate::ErrorKind::Input) for a path of more than 107 bytes.
    ///
    /// # Cancellation
    /// Safe: a connection that is made after the future was dropped is closed.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        connect(Place::Path(path.as_ref().to_owned())).await
    }

    /// Connects as [`connect`](Self::connect) does, to an address that may be an abstract name
    /// ([`from_abstract_name`](std::os::linux::net::SocketAddrExt::from_abstract_name)).
    ///
    /// A listener whose backlog is full is tried again after 1 to 20 ms, because no event says when it takes
    /// connections again (`EAGAIN`, `connect(2)`).
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancellation
    /// As for [`connect`](Self::connect).
    pub async fn connect_addr(address: &SocketAddr) -> Result<Self> {
        connect(address.into()).await
    }

    /// Two connections that are connected to each other, both of the current core (`socketpair(2)`).
    /// [`into_owned_fd`](Connection::into_owned_fd) gives one up for use elsewhere.
    ///
    /// # Errors
    /// What `socketpair(2)` says: no descriptor is left.
    pub fn pair() -> Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| Error::io("cannot make a pair of sockets", os(e)))?;
        Ok((Self::from_fd(a), Self::from_fd(b)))
    }

    /// Takes over a connection of the standard library. It is made non-blocking; its other options stay as
    /// they are.
    ///
    /// # Errors
    /// What `ioctl(2)` and `fcntl(2)` say.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> Result<Self> {
        Self::from_owned_fd(stream.into())
    }
}

async fn connect(place: Place) -> Result<UnixStream> {
    let failed = |e| Error::io(format!("cannot connect to {place}"), e);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let [mut rest, longest] = FULL;
    loop {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(os).map_err(failed)?;
        match ask(Connect::new(socket, place.to_any()?)).await {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => crate::time::sleep(rest).await,
            made => return made.map(UnixStream::from_fd).map_err(failed),
        }
        rest = longest.min(rest * 2);
    }
}

async fn listen(place: Place, options: &ListenOptions) -> Result<UnixListener> {
    // It is held until the socket listens.
    let _lock = match &place {
        Place::Path(path) => lock_directory(path).await,
        _ => None,
    };
    UnixListener::listen_on(place, options)
}

impl<S: Side> UnixStream<S> {
    /// Who is at the other end.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn peer_cred(&self) -> Result<PeerCred> {
        PeerCred::of(self.socket().fd())
    }

    /// The address at the other end; unnamed for a client that bound to none.
    ///
    /// # Errors
    /// `ENOTCONN` when the connection has gone already.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.peer_place()?.unix()
    }

    /// The address at this end.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.place()?.unix()
    }
}

/// A listening Unix socket of the current core.
///
/// A path has one socket, so the cores of a runtime share it: the first that binds an address makes the
/// socket, the others get a descriptor of the same open socket, and all accept from its one backlog. Each
/// takes one connection at a time, and the kernel wakes the core that has waited longest. So an idle runtime
/// gives connections to its cores in turn, and a busy core takes fewer.
///
/// The file of a path is made with the process's umask (`unix(7)`). A file that a killed program has left is
/// replaced. A socket on which somebody listens, and a file that is no socket, are refused. When the last
/// core's listener is dropped the file is removed, unless another one has replaced it.
pub type UnixListener = Listener<Unix>;

impl UnixListener {
    /// Listens on `path`, with the other cores that ask for it. It listens when this completes.
    ///
    /// It waits, a second at most, while another program binds a socket in the same directory (`flock(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when somebody listens there, a file that is no socket is
    /// in the way, the directory cannot be written to, or the path has more than 107 bytes.
    ///
    /// # Cancellation
    /// Safe: nothing was bound.
    ///
    /// # Panics
    /// When polled on a thread that is no core's.
    pub async fn bind(path: impl AsRef<Path>) -> Result<Self> {
        listen(Place::Path(path.as_ref().to_owned()), &ListenOptions::new()).await
    }

    /// Binds as [`bind`](Self::bind) does, on an address that may be an abstract name
    /// ([`from_abstract_name`](std::os::linux::net::SocketAddrExt::from_abstract_name)), with options.
    ///
    /// A path is free for another the moment its last listener is dropped; an abstract name a tick later,
    /// when the last accept that was armed has been cancelled and the descriptor closed.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Cancellation
    /// As for [`bind`](Self::bind).
    ///
    /// # Panics
    /// As for [`bind`](Self::bind).
    pub async fn bind_addr(address: &SocketAddr, options: &ListenOptions) -> Result<Self> {
        listen(address.into(), options).await
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// None in practice: the address was read when it was bound.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.place().clone().unix()
    }
}
