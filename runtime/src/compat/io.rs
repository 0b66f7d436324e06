//! A connection with everything that the traits of other crates need, shared by all of them.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::Error;
use crate::buf::Lease;
use crate::buf::owned::Copied;
use crate::core::Core;
use crate::net::socket::Socket;
use crate::net::writing::SendAll;
use crate::net::{Both, Connection, Family, Reads, Side, Writes};

/// A connection, or a half of one, that has the traits of other crates.
///
/// A write copies its bytes, at most 68 KiB at a time, into node-local memory (a [`Block`](crate::buf::Block)
/// of the core's pool; heap when all are out), starts to send them, and is ready. The next write or flush
/// returns an error of that send. One send is under way at a time, and the next write waits for it.
///
/// # Cancellation
/// Reading is safe: no byte is lost. Bytes that a write has accepted are sent on when the future around the
/// write or flush is dropped. Dropping the `Io` itself before a flush has ended cuts them off, so flush or
/// close first.
///
/// # Panics
/// Its polls panic on a thread that is no core's.
pub struct Io<F: Family, S: Side = Both> {
    connection: Connection<F, S>,
    /// A received chunk that was not read in whole.
    chunk: Option<Lease>,
    turn: Turn,
    /// The bytes that are being sent.
    out: Option<SendAll<Copied>>,
}

/// A place in the queue of those that wait to receive, taken when it had to wait behind another. It is given
/// up when it is dropped, because the half that writes keeps the queue, and with it the waker.
struct Turn {
    socket: Rc<Socket>,
    place: Option<u64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.socket.wait_is_over(&mut self.place);
    }
}

// Nothing in it is pinned.
impl<F: Family, S: Side> Unpin for Io<F, S> {}

impl<F: Family, S: Side> Io<F, S> {
    /// Puts the traits on `connection`.
    pub fn new(connection: Connection<F, S>) -> Self {
        let turn = Turn { socket: Rc::clone(connection.socket()), place: None };
        Self { connection, chunk: None, turn, out: None }
    }

    /// The connection, for its options. Receiving on it takes the bytes that follow those that were read
    /// here.
    pub fn get_ref(&self) -> &Connection<F, S> {
        &self.connection
    }

    /// Gives the connection back. Bytes that came and were not read are received next. Flush before: bytes
    /// that are being sent are cut off, and the connection then refuses further sends
    /// ([`ErrorKind::WritePoisoned`](crate::ErrorKind::WritePoisoned)).
    pub fn into_inner(self) -> Connection<F, S> {
        let Self { connection, chunk, out, turn } = self;
        drop((out, turn));
        if let Some(rest) = chunk {
            connection.socket().put_back(rest);
        }
        connection
    }
}

#[cfg_attr(
    not(any(feature = "futures-io", feature = "hyper", feature = "tokio")),
    expect(dead_code, reason = "no feature, no traits")
)]
impl<F: Family, S: Reads> Io<F, S> {
    /// The bytes that can be read without waiting for more; none at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        while self.chunk.as_deref().is_none_or(<[u8]>::is_empty) {
            let Turn { socket, place } = &mut self.turn;
            let came = ready!(Core::with(|core| socket.poll_recv(core, cx, place)));
            socket.wait_is_over(place);
            self.chunk = came?;
            if self.chunk.is_none() {
                return Poll::Ready(Ok(&[]));
            }
        }
        Poll::Ready(Ok(self.chunk.as_deref().unwrap_or_default()))
    }

    /// Says that the first `n` bytes of them were read.
    pub(super) fn advance(&mut self, n: usize) {
        let Some(chunk) = &mut self.chunk else {
            assert_eq!(n, 0, "more was consumed than had been read");
            return;
        };
        chunk.advance(n);
        if chunk.is_empty() {
            // The buffer goes back to the kernel now, and not with the next read.
            self.chunk = None;
        }
    }
}

#[cfg_attr(
    not(any(feature = "futures-io", feature = "hyper", feature = "tokio")),
    expect(dead_code, reason = "no feature, no traits")
)]
impl<F: Family, S: Writes> Io<F, S> {
    /// Takes as much of `slices` as one send takes, and starts that send.
    pub(super) fn poll_send<'a>(
        &mut self,
        cx: &mut Context<'_>,
        slices: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        if slices.clone().all(<[u8]>::is_empty) {
            return Poll::Ready(Ok(0));
        }
        let copied = Copied::of(slices);
        let n = copied.len();
        self.out = Some(SendAll::new(Rc::clone(self.connection.socket()), copied, 0));
        // It is polled now, so that it leaves with this tick of the core.
        match self.poll_sent(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Waits until the kernel has taken the accepted bytes.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(send) = &mut self.out else { return Poll::Ready(Ok(())) };
        let sent = ready!(Pin::new(send).poll(cx));
        self.out = None;
        Poll::Ready(sent.map(drop).map_err(|e| to_io(e.error)))
    }

    /// Waits until the kernel has taken the accepted bytes, and then ends the write side.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        match self.connection.shutdown(Shutdown::Write).map_err(to_io) {
            // The other end has closed both directions, so there is nobody to tell.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}

/// The system's error if there is one.
pub(super) fn to_io(e: Error) -> io::Error {
    match e.io_error().and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(e),
    }
}

impl<F: Family, S: Side> fmt::Debug for Io<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Io").field(&self.connection).finish()
    }
}
