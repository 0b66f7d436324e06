//! Moving bytes between a pipe and a pipe, a file or a socket, one step at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::pipe::SpliceFlags;

use super::pipe::now;
use crate::core::ask::ask;
use crate::error::os;
use crate::fs::{File, cached};
use crate::limits::{OFFSET, refuse_above};
use crate::net::socket::Socket;
use crate::net::{Connection, Family, Reads, Writes};
use crate::op::poll::{PollOnce, Ready};
use crate::op::splice::Splice;
use crate::pipe::{EndFd, PipeReader, PipeWriter};
use crate::{Error, ErrorKind, Result, task};

/// Bytes that count as in memory where the kernel is asked about one byte only.
const STEP: u64 = 64 << 10;
/// How often in a row both ends may be reported ready without a byte moving. A TCP socket before an urgent
/// byte does that.
const FRUITLESS: u32 = 16;

/// One end of a [`splice`].
#[derive(Clone, Copy)]
enum End<'a> {
    Pipe(&'a Rc<OwnedFd>),
    Socket(&'a Rc<Socket>),
    File(&'a File, u64),
}

/// Where a [`splice`] takes bytes: a [`PipeReader`], a connection, or a file at an offset.
#[derive(Clone, Copy)]
pub struct Source<'a>(End<'a>);

/// Where a [`splice`] puts bytes: a [`PipeWriter`], a connection, or a file at an offset.
#[derive(Clone, Copy)]
pub struct Target<'a>(End<'a>);

/// What a side can be made from.
macro_rules! side {
    ($side:ident, $pipe:ident, $half:ident) => {
        impl<'a> From<&'a $pipe> for $side<'a> {
            fn from(pipe: &'a $pipe) -> Self {
                Self(End::Pipe(pipe.shared_fd()))
            }
        }

        impl<'a, F: Family, S: $half> From<&'a Connection<F, S>> for $side<'a> {
            fn from(connection: &'a Connection<F, S>) -> Self {
                Self(End::Socket(connection.socket()))
            }
        }

        /// A file, and the offset (bytes) of the first byte.
        impl<'a> From<(&'a File, u64)> for $side<'a> {
            fn from((file, offset): (&'a File, u64)) -> Self {
                Self(End::File(file, offset))
            }
        }

        impl std::fmt::Debug for $side<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($side), "({:?})"), self.0.fd())
            }
        }
    };
}

side!(Source, PipeReader, Reads);
side!(Target, PipeWriter, Writes);

/// Moves up to `len` bytes from `from` to `into`, one of which is a pipe, without copying them through user
/// memory. It waits until at least one byte has moved, and returns how many have: 0 when the source has
/// ended. `splice(2)`, Linux 2.6.17.
///
/// Between pipes and sockets, and from file pages that are in memory, the core does it. The ring does the
/// rest (Linux 5.7), on an io-wq worker. A connection that bytes are taken from must have been
/// [quieted](Connection::quiesce), because a receive that is armed would take them first.
///
/// # Errors
/// [`ErrorKind::Io`] with the system's reason (`EPIPE`: every reader of the pipe has gone, or the peer);
/// later receives of a connection that bytes are taken from return its errors too; `EAGAIN` when a TCP socket
/// is reported readable and gives nothing, as before an urgent byte (receive that instead);
/// [`ErrorKind::Input`] when neither end is a pipe, and for an offset above 2^63 - 1;
/// [`ErrorKind::WritePoisoned`] as for sends.
///
/// # Cancellation
/// Safe between pipes and sockets: a future that was not ready has moved nothing. With a file an unknown
/// number of bytes may have moved, so close the pipe.
pub async fn splice<'a>(
    from: impl Into<Source<'a>>,
    into: impl Into<Target<'a>>,
    len: usize,
) -> Result<usize> {
    let (Source(from), Target(into)) = (from.into(), into.into());
    let failed = |e| Error::io("splice failed", e);
    let len = len.min(1 << 30);
    let mut fruitless = 0;
    refuse_above(OFFSET, "a splice at an offset", from.offset().max(into.offset()))?;
    // The kernel reports an error once.
    if let End::Socket(socket) = from
        && let Some(Some(errno)) = socket.over()
    {
        return Err(failed(io::Error::from_raw_os_error(errno)));
    }
    // This comes before any byte moves, so a future that is dropped here has moved nothing.
    task::consume_budget().await;
    loop {
        match (step(from, into, len).await?, from) {
            (Ok(0), End::Socket(socket)) if len > 0 => {
                // As in `Connection::recv_into`: the completion of a send that was told of a reset comes
                // before that of this poll.
                let looked = socket.ready(Ready::Read).await;
                let failure = socket.failure().map(io::Error::from_raw_os_error);
                return looked.err().or(failure).map_or(Ok(0), |e| Err(failed(e)));
            }
            (Ok(n), _) => return Ok(n),
            (Err(e), _) if e.kind() == io::ErrorKind::Interrupted => {}
            (Err(e), _) if e.kind() == io::ErrorKind::WouldBlock && fruitless < FRUITLESS => {
                fruitless += 1;
                from.ready(Ready::Read).await.map_err(failed)?;
                into.ready(Ready::Write).await.map_err(failed)?;
            }
            (Err(e), _) => {
                if let (End::Socket(socket), _) | (_, End::Socket(socket)) = (from, into) {
                    socket.has_failed(&e);
                }
                return Err(failed(e));
            }
        }
    }
}

/// One step of a splice: on the core where nothing can make it wait, else by the ring. The outer error is the
/// caller's fault.
async fn step(from: End<'_>, into: End<'_>, len: usize) -> Result<io::Result<usize>> {
    Ok(match (from, into) {
        (End::File(file, offset), End::Pipe(pipe)) => {
            let mut offset = offset;
            match cached(file.as_fd(), offset, len as u64, STEP) {
                0 => by_ring(file_end(file), Some(offset), pipe_end(pipe), None, len).await,
                known => now(file.as_fd(), Some(&mut offset), pipe.as_fd(), len.min(known as usize), false),
            }
        }
        (End::Pipe(pipe), End::File(file, offset)) => {
            by_ring(pipe_end(pipe), None, file_end(file), Some(offset), len).await
        }
        (End::Pipe(_), _) | (_, End::Pipe(_)) => {
            let permit = match into {
                End::Socket(socket) => Some(socket.write_permit().await?),
                _ => None,
            };
            let moved = now(from.fd(), None, into.fd(), len, false);
            // Nothing is under way, so a future that is dropped while it waits leaves the stream whole.
            if let Some(permit) = permit {
                permit.done();
            }
            moved
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Input,
                "one end of a splice must be a pipe; use transfer::send_file or transfer::relay",
            ));
        }
    })
}

/// Copies up to `len` bytes from one pipe to another without taking them from the first and without copying
/// memory: the pages are shared. It waits until at least one byte was copied, and returns how many were: 0
/// when every writer has gone. The core makes the call, which does not hold it up. `tee(2)`, Linux 2.6.17.
///
/// # Errors
/// [`ErrorKind::Io`] with the system's reason: `EPIPE` when every reader of `into` has gone, `EINVAL` when
/// both are the same pipe.
///
/// # Cancellation
/// Safe: a future that was not ready has copied nothing.
pub async fn tee(from: &PipeReader, into: &PipeWriter, len: usize) -> Result<usize> {
    let failed = |e| Error::io("tee failed", e);
    // This comes before any byte is copied, so a future that is dropped here has copied nothing.
    task::consume_budget().await;
    loop {
        match rustix::pipe::tee(from, into, len, SpliceFlags::NONBLOCK).map_err(os) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                End::Pipe(from.shared_fd()).ready(Ready::Read).await.map_err(failed)?;
                End::Pipe(into.shared_fd()).ready(Ready::Write).await.map_err(failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

fn pipe_end(fd: &Rc<OwnedFd>) -> EndFd {
    EndFd(Rc::clone(fd))
}

fn file_end(file: &File) -> EndFd {
    EndFd(Rc::clone(file.shared_fd()))
}

/// One splice SQE between a file, whose offset is given, and a pipe, which is polled first.
async fn by_ring(
    from: EndFd,
    offset: Option<u64>,
    into: EndFd,
    into_offset: Option<u64>,
    len: usize,
) -> io::Result<usize> {
    let wait = Some(if offset.is_some() { Ready::Write } else { Ready::Read });
    let len = len as u32;
    ask(Splice { from, offset, into, into_offset, len, wait, more: false }).await.map(|n| n as usize)
}

impl End<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            End::Pipe(pipe) => pipe.as_fd(),
            End::Socket(socket) => socket.fd(),
            End::File(file, _) => file.as_fd(),
        }
    }

    /// The offset of a file, else 0.
    fn offset(&self) -> u64 {
        if let End::File(_, offset) = self { *offset } else { 0 }
    }

    /// Waits until it is ready on that side. A file is always ready.
    async fn ready(&self, side: Ready) -> io::Result<()> {
        match self {
            End::Pipe(pipe) => ask(PollOnce { fd: pipe_end(pipe), ready: side }).await,
            End::Socket(socket) => socket.ready(side).await,
            End::File(..) => Ok(()),
        }
    }
}
