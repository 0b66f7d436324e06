//! Connections of packets between Unix sockets (`unix(7)`).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, accept_with, socket_with};

use super::PeerCred;
use super::packets::{Messages, Packet, descriptors, nonblocking, of, pair_of, path, placed, socket};
use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::error::os;
use crate::fd::{AsyncFd, Interest};
use crate::{Error, Result};

/// A connection of packets between two Unix sockets (`SOCK_SEQPACKET`): in order, none lost, each whole, and
/// with an end. Not `Send`. Clones are the same connection.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::net::UnixSeqpacket;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// a.send("one").await?;
/// a.send("two").await?;
/// drop(a);
/// assert_eq!(b.recv(Vec::with_capacity(64)).await?.buf, b"one");
/// assert_eq!(b.recv(Vec::with_capacity(64)).await?.buf, b"two");
/// assert_eq!(b.recv(Vec::with_capacity(64)).await?.len, 0, "the end");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
#[derive(Clone)]
pub struct UnixSeqpacket(Messages);

impl UnixSeqpacket {
    /// Two ends of a connection.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): no descriptor is left.
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = pair_of(SocketType::SEQPACKET)?;
        Ok((Self(a), Self(b)))
    }

    /// Connects to the listener that is called `path`. It waits, on a blocking thread, while its backlog is
    /// full.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
    ///
    /// # Cancellation
    /// Safe: a connection that is made later is closed.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        // It is a blocking socket, so that the call waits while the backlog is full: a non-blocking one gets
        // EAGAIN, and no event says when to try again (unix(7)).
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| Error::io("cannot make a socket", os(e)))?;
        let connect = |fd: &OwnedFd, to: &SocketAddrAny| rustix::net::connect(fd, to);
        nonblocking(placed("connect to", fd, self::path(path), connect).await?).map(Self)
    }

    /// Takes over a connection.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        nonblocking(fd).map(Self)
    }

    /// Receives a packet into the free part of `buf`. `len` is 0 at the end of the connection, and for an
    /// empty packet. `recvfrom(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: no packet is lost.
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> Result<Packet<B>, BufError<B>> {
        self.0.recv(buf).await
    }

    /// Sends `buf` as one packet and gives it back. It waits while the peer's queue is full. `send(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: `EMSGSIZE`, `EPIPE` where the peer
    /// has gone.
    ///
    /// # Cancellation
    /// Safe: a future that was not ready has sent nothing.
    pub async fn send<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.0.send(buf, None).await
    }

    /// Who the peer was when it connected (`SO_PEERCRED`, `unix(7)`).
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn peer_cred(&self) -> Result<PeerCred> {
        PeerCred::of(&self.0.0)
    }
}

/// Listens for connections of packets. It is not `Send`.
pub struct UnixSeqpacketListener(AsyncFd<OwnedFd>);

impl UnixSeqpacketListener {
    /// Listens at `path`, with a backlog of 128. The file stays when the listener has gone.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path: `EADDRINUSE` where
    /// there is something.
    ///
    /// # Cancellation
    /// The file may have been made.
    pub async fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let listen = |fd: &OwnedFd, at: &SocketAddrAny| {
            rustix::net::bind(fd, at)?;
            rustix::net::listen(fd, 128)
        };
        let socket = socket(SocketType::SEQPACKET)?;
        Ok(Self(AsyncFd::new(placed("listen at", socket, self::path(path), listen).await?)))
    }

    /// Accepts the next connection. `accept4(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: no descriptor is left.
    ///
    /// # Cancellation
    /// Safe: no client is lost.
    pub async fn accept(&self) -> Result<UnixSeqpacket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = self.0.io(Interest::READABLE, |fd| Ok(accept_with(fd, flags)?)).await;
        let fd = accepted.map_err(|e| of("cannot accept a connection", e))?;
        Ok(UnixSeqpacket(Messages(AsyncFd::new(fd))))
    }
}

descriptors!(UnixSeqpacket: 0.0, UnixSeqpacketListener: 0);
