//! Unix sockets whose messages keep their edges (`unix(7)`): what they have in common, and datagrams.
//!
//! They are sent and received by calls on the core, which never wait. The ring reports readiness (`poll(2)`).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, recvfrom, send, sendto,
    socket_with, socketpair,
};

use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::error::os;
use crate::fd::{AsyncFd, Interest};
use crate::place::Place;
use crate::{Error, Result, spawn_blocking};

/// How long it waits before it tries a full receiver again, at first and at most.
const SHORT_REST: Duration = Duration::from_millis(1);
const LONG_REST: Duration = Duration::from_millis(20);

/// A received message.
#[derive(Debug)]
#[non_exhaustive]
pub struct Packet<B> {
    /// The buffer, with the message after its former content.
    pub buf: B,
    /// Bytes of the message that came into the buffer.
    pub len: usize,
    /// Bytes that the message had. If these are more than `len`, the buffer was too small, and the rest is
    /// lost.
    pub full_len: usize,
    /// The sender of a datagram, if that has a name; always `None` for a connection.
    pub source: Option<SocketAddr>,
}

/// The part that both kinds have in common.
#[derive(Clone)]
pub(super) struct Messages(pub(super) AsyncFd<OwnedFd>);

impl Messages {
    pub(super) async fn recv<B: IoBufMut>(&self, mut buf: B) -> Result<Packet<B>, BufError<B>> {
        let received = self.0.io(Interest::READABLE, |fd| {
            let ((filled, _), full_len, source) = recvfrom(fd, buf.spare_capacity(), RecvFlags::TRUNC)?;
            Ok((filled.len(), full_len, source))
        });
        match received.await {
            Ok((len, full_len, source)) => {
                // SAFETY: recvfrom(2) has filled the first `len` bytes of the spare capacity.
                unsafe { buf.filled(len) };
                Ok(Packet { buf, len, full_len, source: source.as_ref().and_then(named) })
            }
            Err(e) => Err(BufError::new(of("a receive failed", e), buf)),
        }
    }

    pub(super) async fn send<B: IoBuf>(&self, buf: B, to: Option<&Place>) -> Result<B, BufError<B>> {
        let address = match to.map(Place::to_any).transpose() {
            Ok(address) => address,
            Err(e) => return Err(BufError::new(e, buf)),
        };
        let attempt = |fd: &OwnedFd| {
            Ok(match &address {
                Some(address) => sendto(fd, buf.bytes(), SendFlags::NOSIGNAL, address)?,
                None => send(fd, buf.bytes(), SendFlags::NOSIGNAL)?,
            })
        };
        let sent = async {
            if address.is_none() {
                return self.0.io(Interest::WRITABLE, attempt).await;
            }
            crate::task::consume_budget().await;
            let mut rest = SHORT_REST;
            loop {
                match attempt(self.0.get_ref()) {
                    // The kernel reports to nobody when a receiver that this is not connected to takes
                    // datagrams again.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        crate::time::sleep(rest).await;
                        rest = (rest * 2).min(LONG_REST);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    sent => return sent.map_err(Error::from),
                }
            }
        };
        match sent.await {
            // A message is sent whole or not at all.
            Ok(_) => Ok(buf),
            Err(e) => Err(BufError::new(of("a send failed", e), buf)),
        }
    }
}

/// `e`, with what failed.
pub(super) fn of(what: &'static str, e: Error) -> Error {
    match e.io_error().and_then(io::Error::raw_os_error) {
        Some(errno) => Error::io(what, io::Error::from_raw_os_error(errno)),
        None => e,
    }
}

/// A sender's name.
fn named(address: &SocketAddrAny) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    match Place::read(address) {
        Ok(Place::Path(path)) => SocketAddr::from_pathname(path).ok(),
        Ok(Place::Abstract(name)) => SocketAddr::from_abstract_name(name).ok(),
        _ => None,
    }
}

pub(super) fn socket(kind: SocketType) -> Result<OwnedFd> {
    let made = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    made.map_err(|e| Error::io("cannot make a socket", os(e)))
}

pub(super) fn pair_of(kind: SocketType) -> Result<(Messages, Messages)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = socketpair(AddressFamily::UNIX, kind, flags, None);
    let (a, b) = made.map_err(|e| Error::io("cannot make a pair of sockets", os(e)))?;
    Ok((Messages(AsyncFd::new(a)), Messages(AsyncFd::new(b))))
}

/// Calls `f` with a socket and a path, on a thread that may wait for the file system.
pub(super) async fn placed(
    what: &'static str,
    socket: OwnedFd,
    place: Place,
    f: impl FnOnce(&OwnedFd, &SocketAddrAny) -> rustix::io::Result<()> + Send + 'static,
) -> Result<OwnedFd> {
    let address = place.to_any()?;
    let done = spawn_blocking(move || f(&socket, &address).map(|()| socket)).await?;
    done.map_err(|e| Error::io(format!("cannot {what} {place}"), os(e)))
}

pub(super) fn path(path: impl AsRef<Path>) -> Place {
    Place::Path(path.as_ref().to_owned())
}

/// A Unix socket of datagrams: each message is whole, none is lost or out of order, and a receiver that is
/// full makes its senders wait.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// # let dir = annulus::fs::TempDir::new().await?;
/// # let path = dir.path().join("log");
/// use annulus::net::UnixDatagram;
///
/// let log = UnixDatagram::bind(&path).await?;
/// let client = UnixDatagram::unbound()?;
/// client.send_to("one line", &path).await?;
/// let line = log.recv(Vec::with_capacity(2048)).await?;
/// assert_eq!(line.buf, b"one line");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// Not `Send`. Clones are the same socket.
#[derive(Clone)]
pub struct UnixDatagram(Messages);

impl UnixDatagram {
    /// A socket that is called `path`. The file stays when the socket has gone.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path: `EADDRINUSE` where
    /// there is something.
    ///
    /// # Cancellation
    /// The file may have been made.
    pub async fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let bind = |fd: &OwnedFd, at: &SocketAddrAny| rustix::net::bind(fd, at);
        let bound = placed("bind to", socket(SocketType::DGRAM)?, self::path(path), bind).await?;
        Ok(Self(Messages(AsyncFd::new(bound))))
    }

    /// A socket without a name, which can send.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): no descriptor is left.
    pub fn unbound() -> Result<Self> {
        Ok(Self(Messages(AsyncFd::new(socket(SocketType::DGRAM)?))))
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): no descriptor is left.
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = pair_of(SocketType::DGRAM)?;
        Ok((Self(a), Self(b)))
    }

    /// Takes over a socket: one that a service manager passed, or of the standard library.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        nonblocking(fd).map(Self)
    }

    /// A socket that sends to `path` and receives from there only.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let connect = |fd: &OwnedFd, to: &SocketAddrAny| rustix::net::connect(fd, to);
        let connected = placed("connect to", socket(SocketType::DGRAM)?, self::path(path), connect).await?;
        Ok(Self(Messages(AsyncFd::new(connected))))
    }

    /// Receives a datagram into the spare capacity of `buf`. `recvfrom(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: no datagram is lost.
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> Result<Packet<B>, BufError<B>> {
        self.0.recv(buf).await
    }

    /// Sends `buf` to the peer that this was connected to, as one datagram, and gives it back. It waits while
    /// the peer's queue is full. `send(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: `EMSGSIZE`, `ECONNREFUSED` where
    /// nobody is any more.
    ///
    /// # Cancellation
    /// Safe: a future that was not ready has sent nothing.
    pub async fn send<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.0.send(buf, None).await
    }

    /// Sends `buf` to the socket that is called `to`. The name is looked up on the core, from memory as a
    /// rule. A full receiver is tried again after 1 to 20 ms: the kernel does not say when it has space
    /// again. `sendto(2)`.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and what opening the path says.
    ///
    /// # Cancellation
    /// As for [`send`](Self::send).
    pub async fn send_to<B: IoBuf>(&self, buf: B, to: impl AsRef<Path>) -> Result<B, BufError<B>> {
        self.0.send(buf, Some(&path(to))).await
    }
}

pub(super) fn nonblocking(fd: OwnedFd) -> Result<Messages> {
    let failed = |e| Error::io("cannot take over a socket", os(e));
    rustix::io::ioctl_fionbio(&fd, true).map_err(failed)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(failed)?;
    Ok(Messages(AsyncFd::new(fd)))
}

macro_rules! descriptors {
    ($($type:ident: $($field:tt).+),+) => {$(
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.$($field).+.as_fd()
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($type)).field(&std::os::fd::AsFd::as_fd(self)).finish()
            }
        }
    )+};
}

pub(super) use descriptors;

descriptors!(UnixDatagram: 0.0);
