//! A TCP connection.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use super::socket::{Socket, Writing};
use crate::buf::{BufError, IoBuf, Lease};
use crate::core::Core;
use crate::error::os;
use crate::op::poll::{PollOnce, Ready};
use crate::op::send::Send;
use crate::op::{ask, connect::Connect};
use crate::{Error, ErrorKind, Result};

/// A TCP connection of the current core. All methods take `&self`: a reader and a writer may share it in an `Rc`.
///
/// `TCP_NODELAY` is on: bytes leave when they are sent, and what belongs together is sent together
/// ([`send_all_more`](Self::send_all_more)). Dropping the stream closes it; bytes already given to the kernel are still
/// delivered.
pub struct TcpStream {
    socket: Rc<Socket>,
}

impl TcpStream {
    /// Takes over a connected, non-blocking socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { socket: Socket::new(fd) }
    }

    pub(crate) fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    /// Connects to `address`. Linux 5.5 (`connect(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the system's reason (`ECONNREFUSED`, `ETIMEDOUT`, ...), naming the address.
    ///
    /// # Cancellation
    /// Safe: a connection that is made after the future was dropped is closed.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let failed = |e| Error::io(format!("cannot connect to {address}"), e);
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(os).map_err(failed)?;
        sockopt::set_tcp_nodelay(&socket, true).map_err(os).map_err(failed)?;
        let socket = ask(Connect::new(socket, address)).await.map_err(failed)?;
        Ok(Self::from_fd(socket))
    }

    /// The address at the other end.
    ///
    /// # Errors
    /// `ENOTCONN` when the connection has gone already.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        let address = rustix::net::getpeername(self.socket.fd()).map_err(os)?;
        to_std(address.as_ref())
    }

    /// The address at this end.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        local_addr(self.socket.fd())
    }

    /// Switches `TCP_NODELAY` (`tcp(7)`). On for every stream at first.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        sockopt::set_tcp_nodelay(self.socket.fd(), nodelay)
            .map_err(os)
            .map_err(|e| Error::io("cannot set TCP_NODELAY", e))
    }

    /// The next bytes that came, as a lease on the core's node-local memory; `None` when the peer has ended its side.
    ///
    /// The first call arms a multishot receive that stays armed (Linux 6.0). One reader at a time: of two tasks that
    /// wait, only the later is woken.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], for good: later calls give the same.
    ///
    /// # Cancellation
    /// Safe: no byte is lost. What came waits for the next call.
    pub async fn recv(&self) -> Result<Option<Lease>> {
        poll_fn(|cx| Core::with(|core| self.socket.poll_recv(core, cx)))
            .await
            .map_err(|e| Error::io("receive failed", e))
    }

    /// Stops receiving and gives, in order, exactly what had come. After it the connection can be spliced from, since no
    /// operation of the ring takes its bytes any more. A later [`recv`](Self::recv) starts anew.
    ///
    /// # Cancellation
    /// Safe: nothing is taken before the receive has ended.
    pub async fn quiesce(&self) -> Vec<Lease> {
        poll_fn(|cx| Core::with(|core| self.socket.poll_quiet(core, cx))).await;
        let mut chunks = Vec::new();
        Core::with(|core| {
            while let Some(chunk) = self.socket.take_chunk(core) {
                chunks.push(chunk);
            }
        });
        chunks
    }

    /// Sends all of `buf` and gives it back. Sends of several tasks on one stream do not mix: each waits for its turn.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the system's reason; [`ErrorKind::WritePoisoned`] when an earlier send was dropped
    /// half-way or failed after a part of it had left. The buffer comes back with the error.
    ///
    /// # Cancellation
    /// Safe before the send has started. Dropped later, an unknown part of `buf` has left: the stream refuses every
    /// further send with [`ErrorKind::WritePoisoned`]. Receiving goes on.
    pub async fn send_all<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.send(buf, 0).await
    }

    /// As [`send_all`](Self::send_all), telling the kernel that more follows at once (`MSG_MORE`, `send(2)`): a last
    /// short segment waits for it, at most 200 ms.
    ///
    /// # Errors
    /// As for [`send_all`](Self::send_all).
    ///
    /// # Cancellation
    /// As for [`send_all`](Self::send_all).
    pub async fn send_all_more<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.send(buf, libc::MSG_MORE).await
    }

    async fn send<B: IoBuf>(&self, mut buf: B, flags: i32) -> Result<B, BufError<B>> {
        let turn = match self.writer().await {
            Ok(turn) => turn,
            Err(error) => return Err(BufError { error, buf }),
        };
        let mut from = 0;
        while from < buf.bytes().len() {
            let (result, back) = ask(Send { socket: Rc::clone(&self.socket), buf, from, flags }).await;
            buf = back;
            match result {
                // A send of a positive length that sends nothing does not exist; if it did, this would spin.
                Ok(0) => return Err(BufError::io("send failed", io::ErrorKind::WriteZero.into(), buf)),
                Ok(n) => {
                    from += n;
                    Core::with(|core| core.shared.counters.send_bytes.add(n as u64));
                }
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) => {
                    // With a part gone the next sender would go on in the middle of this one: that is poison.
                    if from == 0 {
                        turn.done();
                    }
                    return Err(BufError::io("send failed", e, buf));
                }
            }
        }
        turn.done();
        Ok(buf)
    }

    /// The right to write, once nobody else has it.
    pub(crate) async fn writer(&self) -> Result<WriteTurn> {
        poll_fn(|cx| match self.socket.writing.get() {
            Writing::Free => {
                self.socket.writing.set(Writing::Busy);
                Poll::Ready(Ok(WriteTurn { socket: Rc::clone(&self.socket), done: false }))
            }
            Writing::Busy => {
                let waker = cx.waker().clone();
                self.socket.writers.borrow_mut().push(waker);
                Poll::Pending
            }
            Writing::Poisoned => Poll::Ready(Err(Error::new(
                ErrorKind::WritePoisoned,
                "an earlier send on this stream was dropped half-way, so what has left is unknown: close the stream",
            ))),
        })
        .await
    }

    /// Ends one side or both (`shutdown(2)`). A system call on the core: it never waits, while the ring would run it on
    /// an io-wq worker.
    ///
    /// # Errors
    /// `ENOTCONN` when the connection has gone already.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(self.socket.fd(), how)
            .map_err(os)
            .map_err(|e| Error::io("cannot shut the connection down", e))
    }

    /// Waits until the socket is ready on one side.
    pub(crate) async fn ready(&self, ready: Ready) -> io::Result<()> {
        ask(PollOnce { fd: SocketFd(Rc::clone(&self.socket)), ready }).await
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpStream").field("fd", &self.socket.fd()).finish_non_exhaustive()
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        Core::try_with(|core| self.socket.release(core));
    }
}

/// A socket as something that an operation keeps open.
#[derive(Clone)]
pub(crate) struct SocketFd(pub(crate) Rc<Socket>);

impl AsFd for SocketFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

/// The right to write to a stream. Dropped before [`done`](Self::done), it poisons the write side.
pub(crate) struct WriteTurn {
    socket: Rc<Socket>,
    done: bool,
}

impl WriteTurn {
    /// What was to be written is with the kernel, or failed in a way that the caller is told of.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for WriteTurn {
    fn drop(&mut self) {
        self.socket.writing.set(if self.done { Writing::Free } else { Writing::Poisoned });
        for writer in self.socket.writers.take() {
            writer.wake();
        }
    }
}

/// The local address of a socket.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> Result<SocketAddr> {
    to_std(Some(&rustix::net::getsockname(fd).map_err(os)?))
}

fn to_std(address: Option<&rustix::net::SocketAddrAny>) -> Result<SocketAddr> {
    address
        .and_then(|address| SocketAddr::try_from(address.clone()).ok())
        .ok_or_else(|| Error::new(ErrorKind::Io, "the socket's address is not an IP address"))
}
