//! A connection: what TCP and Unix streams, and their halves, have in common.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, ioctl_fionbio};
use rustix::net::{SocketType, sockopt};

use super::family::{Both, Family, Reader, Reads, Side, Writer, Writes};
use super::socket::{ReadWait, Socket, lingers};
use super::writing::SendAll;
use crate::buf::{BufError, IoBuf, Lease};
use crate::contained::told;
use crate::core::Core;
use crate::core::ask::polled_again;
use crate::error::os;
use crate::limits::{INT, refuse_above};
use crate::op::poll::Ready;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// A connection of the current core: [`TcpStream`](super::TcpStream), [`UnixStream`](super::UnixStream), or
/// one half of either. All methods take `&self`: a reader and a writer may share it in an `Rc`, or take a
/// half each ([`split`](Self::split)). It is not `Send`, because it belongs to its core's ring.
///
/// Dropping it closes it. Bytes already given to the kernel are still delivered. The close leaves at the end
/// of the core's tick, so a task that blocks its thread until the peer has seen it [waits for
/// ever](crate#what-holds-everywhere). Of two halves, dropping the [`Writer`] shuts the write side down (the
/// peer sees the end of the stream), dropping the [`Reader`] stops receiving, and the socket is closed with
/// the later of them.
pub struct Connection<F: Family, S: Side = Both> {
    socket: Option<Rc<Socket>>,
    _kind: PhantomData<(F, S)>,
}

impl<F: Family, S: Side> Connection<F, S> {
    pub(super) fn of(socket: Rc<Socket>) -> Self {
        Self { socket: Some(socket), _kind: PhantomData }
    }

    pub(crate) fn socket(&self) -> &Rc<Socket> {
        self.socket.as_ref().expect("taken in Drop and `into_socket` only")
    }

    pub(super) fn into_socket(mut self) -> Rc<Socket> {
        self.socket.take().expect("taken in Drop and here only")
    }
}

impl<F: Family> Connection<F> {
    /// Takes over a connected, non-blocking socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self::of(Socket::new(fd))
    }

    /// Says whether closing it may take long.
    pub(super) fn lingering(self, lingers: bool) -> Self {
        self.socket().set_lingers(lingers);
        self
    }

    /// Takes over a connected socket that was made elsewhere: inherited, received over a Unix socket, or
    /// given up by another core. It is made non-blocking and close-on-exec; its other options stay as they
    /// are.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it is no stream socket of this family. `socket(7)`: `SO_DOMAIN`, `SO_TYPE`.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        adopt::<F>(&fd, SocketType::STREAM, F::NAME)?;
        let lingers = lingers(fd.as_fd());
        Ok(Self::from_fd(fd).lingering(lingers))
    }

    /// Gives the socket up: the descriptor, and the received bytes that were not taken. No operation of this
    /// core's ring takes bytes from it any more, so another core, or another thread, may use it. `O_NONBLOCK`
    /// stays set.
    ///
    /// Where an operation still holds the socket (a send that was dropped and is being cancelled, a zero-copy
    /// send whose notification is due), the descriptor is a duplicate, and the connection is closed only
    /// after that has ended too. Blocks that were sent without a copy stay lent until the network releases
    /// them, however long that is, because this core does not reset a connection that is no longer its own.
    /// Blocks that are still lent six seconds after the core's end are leaked.
    ///
    /// # Errors
    /// [`ErrorKind::WritePoisoned`] after a send that was dropped half-way, [`ErrorKind::Io`] when the
    /// connection had failed; it is closed in both cases.
    ///
    /// # Cancellation
    /// Closes the connection.
    pub async fn into_owned_fd(self) -> Result<(OwnedFd, Vec<Lease>)> {
        self.socket().must_be_sound()?;
        let chunks = self.quiesce().await;
        let socket = self.into_socket();
        // The kernel reports an error once, and it has reported this one (to a receive or a send). It reports
        // the end of a stream as often as it is asked.
        if let Some(errno) = socket.over().flatten().or(socket.cut_off()) {
            return Err(Error::io("the connection has failed", io::Error::from_raw_os_error(errno)));
        }
        let fd = match Rc::try_unwrap(socket) {
            Ok(socket) => {
                socket.give_up();
                socket.into_fd()
            }
            Err(shared) => match fcntl_dupfd_cloexec(shared.fd(), 0) {
                Ok(fd) => {
                    shared.give_up();
                    fd
                }
                Err(e) => {
                    shared.reap_lent_blocks();
                    return Err(Error::io("cannot duplicate a socket that is still in use", os(e)));
                }
            },
        };
        Ok((fd, chunks))
    }

    /// Ends the connection by a reset. The peer learns that it was cut. Bytes that were not sent are
    /// discarded, and those that were sent may be (RFC 9293, 3.5.2). A Unix socket knows no reset: it is
    /// closed.
    pub fn reset(self) {
        self.socket().abort();
    }

    /// Completes when the connection has gone: the peer has reset it, or the network has given it up. The
    /// peer's end (FIN) does not count, and no byte is taken, so a server that makes its client wait may
    /// await this meanwhile. The ring's poll reports it (Linux 5.1). That poll also reports the peer's end;
    /// after that it is checked for ten times a second (`poll(2)`).
    ///
    /// # Cancellation
    /// Safe.
    pub async fn gone(&self) {
        const CHECK_EVERY: Duration = Duration::from_millis(100);
        // A poll that fails reports nothing. The check after it does.
        let _told = self.socket().ready(Ready::Gone).await;
        while !self.socket().is_gone() {
            crate::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Splits it into a half that receives and one that sends, each to be moved into a task of its own on
    /// this core.
    pub fn split(self) -> (Connection<F, Reader>, Connection<F, Writer>) {
        let socket = self.into_socket();
        (Connection::of(Rc::clone(&socket)), Connection::of(socket))
    }
}

impl<F: Family> Connection<F, Reader> {
    /// Joins the two halves of one connection again.
    ///
    /// # Errors
    /// [`ReuniteError`], with both halves in it, when they are of different connections.
    pub fn reunite(self, writer: Connection<F, Writer>) -> Result<Connection<F>, ReuniteError<F>> {
        if !Rc::ptr_eq(self.socket(), writer.socket()) {
            return Err(ReuniteError { reader: self, writer });
        }
        drop(writer.into_socket());
        Ok(Connection::of(self.into_socket()))
    }
}

impl<F: Family, S: Reads> Connection<F, S> {
    /// Receives the next bytes, as a lease on the core's node-local memory; `None` when the peer has ended
    /// its side.
    ///
    /// The first call arms a multishot receive that stays armed (Linux 6.0). If several tasks wait, each
    /// chunk wakes all of them, in the order in which they came, and one gets it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], for good: later calls return the same.
    ///
    /// # Cancellation
    /// Safe: no byte is lost. Received bytes wait for the next call. Nothing is asked of the kernel before
    /// the first poll. That the future is `Unpin` is not promised.
    pub fn recv(&self) -> impl Future<Output = Result<Option<Lease>>> {
        Recv(Some(ReadWait::new(self.socket())))
    }

    /// Stops receiving and returns, in order, exactly what had come. Afterwards the connection can be spliced
    /// from, because no operation of the ring takes its bytes any more. A later [`recv`](Self::recv) starts
    /// again. The receive is cancelled (`io_uring_prep_cancel64(3)`, Linux 5.5) and its last completion
    /// awaited.
    ///
    /// # Cancellation
    /// Safe: nothing is taken before the receive has ended.
    pub async fn quiesce(&self) -> Vec<Lease> {
        self.socket().quiesce().await
    }
}

/// Receives once: `None` when it has.
#[must_use = "futures do nothing unless awaited"]
struct Recv<'a>(Option<ReadWait<'a>>);

impl Future for Recv<'_> {
    type Output = Result<Option<Lease>>;

    // Out of line the call costs more than the body.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(wait) = &mut self.0 else { polled_again("recv") };
        let polled = Core::with(|core| wait.poll_recv(core, cx));
        if polled.is_ready() {
            self.0 = None;
        }
        polled.map_err(|e| Error::io("receive failed", e))
    }
}

impl<F: Family, S: Writes> Connection<F, S> {
    /// Sends all of `buf` and gives it back (`send(2)`, Linux 5.6). Sends of several tasks on one stream do
    /// not mix: each waits for those before it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the system's reason; [`ErrorKind::WritePoisoned`] when an earlier send was
    /// dropped half-way or failed after a part of it had left. The buffer comes back with the error.
    ///
    /// # Cancellation
    /// Nothing is asked of the kernel before the first poll, and a send does not start while others are under
    /// way. A future that is dropped before it starts is safe: nothing has been sent, and `buf` is dropped
    /// with it. If it is dropped later, an unknown part of `buf` has been sent: the stream refuses every
    /// further send with [`ErrorKind::WritePoisoned`], and `buf` is dropped when the kernel no longer uses
    /// it. Receiving goes on. That the future is `Unpin` is not promised.
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        SendAll::new(Rc::clone(self.socket()), buf, 0)
    }

    /// As [`send_all`](Self::send_all), telling the kernel that more follows at once (`MSG_MORE`, `send(2)`):
    /// on TCP a last short segment waits for it, at most 200 ms.
    ///
    /// # Errors
    /// As for [`send_all`](Self::send_all).
    ///
    /// # Cancellation
    /// As for [`send_all`](Self::send_all).
    pub fn send_all_more<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        SendAll::new(Rc::clone(self.socket()), buf, libc::MSG_MORE)
    }
}

impl<F: Family, S: Side> Connection<F, S> {
    /// Ends one side or both (`shutdown(2)`). A system call on the core: it never waits, while the ring would
    /// run it on an io-wq worker.
    ///
    /// # Errors
    /// `ENOTCONN` when the connection has gone already.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.socket().shutdown(how)
    }

    /// Bytes that the kernel keeps for this socket until they are received (`SO_RCVBUF`, `socket(7)`). They
    /// include the kernel's own needs, so it is twice what was asked for.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn recv_buffer_size(&self) -> Result<usize> {
        got("SO_RCVBUF", sockopt::socket_recv_buffer_size(self.socket().fd()))
    }

    /// Asks for a receive buffer of this many bytes (`SO_RCVBUF`, `socket(7)`): the kernel doubles it, bounds
    /// it by `net.core.rmem_max`, and tunes the buffer by itself no more.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; [`ErrorKind::Input`] for more than 2^31 - 1 bytes.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> Result<()> {
        refuse_above(INT, "a receive buffer", bytes as u64)?;
        set("SO_RCVBUF", sockopt::set_socket_recv_buffer_size(self.socket().fd(), bytes))
    }

    /// Bytes that the kernel keeps for this socket until the peer has them (`SO_SNDBUF`, `socket(7)`). They
    /// include the kernel's own needs, so it is twice what was asked for.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn send_buffer_size(&self) -> Result<usize> {
        got("SO_SNDBUF", sockopt::socket_send_buffer_size(self.socket().fd()))
    }

    /// Asks for a send buffer of this many bytes (`SO_SNDBUF`, `socket(7)`): the kernel doubles it, bounds it
    /// by `net.core.wmem_max`, and tunes the buffer by itself no more.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; [`ErrorKind::Input`] for more than 2^31 - 1 bytes.
    pub fn set_send_buffer_size(&self, bytes: usize) -> Result<()> {
        refuse_above(INT, "a send buffer", bytes as u64)?;
        set("SO_SNDBUF", sockopt::set_socket_send_buffer_size(self.socket().fd(), bytes))
    }

    pub(super) fn place(&self) -> Result<Place> {
        Place::of(self.socket().fd())
    }

    pub(super) fn peer_place(&self) -> Result<Place> {
        Place::of_peer(self.socket().fd())
    }
}

/// The result of reading a socket option.
pub(super) fn got<T>(option: &'static str, result: rustix::io::Result<T>) -> Result<T> {
    result.map_err(|e| Error::io(format!("cannot read {option}"), os(e)))
}

/// The result of setting a socket option.
pub(super) fn set(option: &'static str, result: rustix::io::Result<()>) -> Result<()> {
    result.map_err(|e| Error::io(format!("cannot set {option}"), os(e)))
}

/// Prepares a socket from elsewhere for use here, if it is of the right kind for the type `name`.
pub(super) fn adopt<F: Family>(fd: &OwnedFd, wanted: SocketType, name: &str) -> Result<()> {
    let kind = sockopt::socket_domain(fd).and_then(|domain| Ok((domain, sockopt::socket_type(fd)?)));
    match kind {
        Ok((domain, kind)) if F::is(domain) && kind == wanted => {}
        Ok((domain, kind)) => {
            let (domain, kind) = (domain.as_raw(), kind.as_raw());
            let what = format!("a socket of domain {domain} and type {kind} is none for a {name}");
            return Err(Error::new(ErrorKind::Input, what));
        }
        Err(e) => {
            let what = format!("a descriptor is no socket for a {name}");
            return Err(Error::with_source(ErrorKind::Input, what, os(e)));
        }
    }
    ioctl_fionbio(fd, true)
        .and_then(|()| fcntl_setfd(fd, FdFlags::CLOEXEC))
        .map_err(|e| Error::io("cannot make a socket non-blocking and close-on-exec", os(e)))
}

impl<F: Family, S: Side> AsFd for Connection<F, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().fd()
    }
}

impl<F: Family, S: Side> fmt::Debug for Connection<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::NAME).field("fd", &self.socket().fd()).finish_non_exhaustive()
    }
}

impl<F: Family, S: Side> Drop for Connection<F, S> {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        socket.handle_dropped(S::READS, S::WRITES);
        if !S::READS
            && let Err(e) = socket.shutdown(Shutdown::Write)
        {
            told(|| tracing::debug!("the write side of a dropped half stays as it is: {e}"));
        }
    }
}

/// The halves are of different connections.
#[non_exhaustive]
pub struct ReuniteError<F: Family> {
    /// The half that receives, as it was given.
    pub reader: Connection<F, Reader>,
    /// The half that sends, as it was given.
    pub writer: Connection<F, Writer>,
}

impl<F: Family> fmt::Debug for ReuniteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReuniteError").field("reader", &self.reader).field("writer", &self.writer).finish()
    }
}

impl<F: Family> fmt::Display for ReuniteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are of different connections")
    }
}

impl<F: Family> std::error::Error for ReuniteError<F> {}
