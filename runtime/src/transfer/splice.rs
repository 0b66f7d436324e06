//! Bytes between a pipe and a pipe, a file or a socket, a step at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
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

/// What is known to be in memory is trusted for so many bytes where the kernel tells of one byte only.
const STEP: u64 = 64 << 10;
/// How often in a row both ends may claim to be ready and no byte move: a TCP socket does so before an urgent byte.
const FRUITLESS: u32 = 16;

/// Where a [`splice`] takes bytes: a [`PipeReader`], a connection, or a file at an offset.
#[derive(Clone, Copy)]
pub struct Source<'a>(Origin<'a>);

#[derive(Clone, Copy)]
enum Origin<'a> {
    Pipe(&'a PipeReader),
    Socket(&'a Rc<Socket>),
    File(&'a File, u64),
}

impl<'a> From<&'a PipeReader> for Source<'a> {
    fn from(pipe: &'a PipeReader) -> Self {
        Self(Origin::Pipe(pipe))
    }
}

impl<'a, F: Family, S: Reads> From<&'a Connection<F, S>> for Source<'a> {
    fn from(connection: &'a Connection<F, S>) -> Self {
        Self(Origin::Socket(connection.socket()))
    }
}

/// A file, and the offset (bytes) of the first byte.
impl<'a> From<(&'a File, u64)> for Source<'a> {
    fn from((file, offset): (&'a File, u64)) -> Self {
        Self(Origin::File(file, offset))
    }
}

/// Where a [`splice`] puts bytes: a [`PipeWriter`], a connection, or a file at an offset.
#[derive(Clone, Copy)]
pub struct Target<'a>(Sink<'a>);

#[derive(Clone, Copy)]
enum Sink<'a> {
    Pipe(&'a PipeWriter),
    Socket(&'a Rc<Socket>),
    File(&'a File, u64),
}

impl<'a> From<&'a PipeWriter> for Target<'a> {
    fn from(pipe: &'a PipeWriter) -> Self {
        Self(Sink::Pipe(pipe))
    }
}

impl<'a, F: Family, S: Writes> From<&'a Connection<F, S>> for Target<'a> {
    fn from(connection: &'a Connection<F, S>) -> Self {
        Self(Sink::Socket(connection.socket()))
    }
}

/// A file, and the offset (bytes) of the first byte.
impl<'a> From<(&'a File, u64)> for Target<'a> {
    fn from((file, offset): (&'a File, u64)) -> Self {
        Self(Sink::File(file, offset))
    }
}

/// Moves up to `len` bytes from `from` to `into`, one of which is a pipe, without copying them through user memory.
/// Waits until at least one byte has moved, and returns how many have: 0 when the source has ended. `splice(2)`, Linux
/// 2.6.17.
///
/// Between pipes and sockets, and from file pages that are in memory, it is done on the core; the rest by the ring (Linux
/// 5.7), on an io-wq worker. A connection that bytes are taken from must have been
/// [quieted](Connection::quiesce): a receive that is armed takes them first.
///
/// # Errors
/// [`ErrorKind::Io`] with the system's reason (`EPIPE`: every reader of the pipe has gone, or the peer);
/// those of a connection that bytes are taken from are told by its later receives too;
/// `EAGAIN` when a TCP socket claims to be readable and gives nothing, as it does before an urgent byte (receive that
/// instead); [`ErrorKind::Input`] when neither end is a pipe, and for an offset above 2^63 - 1; [`ErrorKind::WritePoisoned`] as for sends.
///
/// # Cancellation
/// Between pipes and sockets: safe, a future that was not ready has moved nothing. With a file: an unknown number of
/// bytes may have moved, so close the pipe.
pub async fn splice<'a>(
    from: impl Into<Source<'a>>,
    into: impl Into<Target<'a>>,
    len: usize,
) -> Result<usize> {
    let (Source(from), Target(into)) = (from.into(), into.into());
    let failed = |e| Error::io("splice failed", e);
    let len = len.min(1 << 30);
    let mut fruitless = 0;
    let from_offset = if let Origin::File(_, offset) = from { offset } else { 0 };
    let into_offset = if let Sink::File(_, offset) = into { offset } else { 0 };
    refuse_above(OFFSET, "a splice at an offset", from_offset.max(into_offset))?;
    // The kernel tells an error once.
    if let Origin::Socket(socket) = from
        && let Some(Some(errno)) = socket.over()
    {
        return Err(failed(io::Error::from_raw_os_error(errno)));
    }
    // Before any byte moves: a future that is dropped here has moved nothing.
    task::consume_budget().await;
    loop {
        let moved = match (from, into) {
            (Origin::File(file, offset), Sink::Pipe(pipe)) => {
                let mut offset = offset;
                match cached(file.as_fd(), offset, len as u64, STEP) {
                    0 => by_ring(file_end(file), Some(offset), pipe_end(pipe.shared_fd()), None, len).await,
                    known => {
                        now(file.as_fd(), Some(&mut offset), pipe.as_fd(), len.min(known as usize), false)
                    }
                }
            }
            (Origin::Pipe(pipe), Sink::File(file, offset)) => {
                by_ring(pipe_end(pipe.shared_fd()), None, file_end(file), Some(offset), len).await
            }
            (Origin::Pipe(_), _) | (_, Sink::Pipe(_)) => {
                let permit = match into {
                    Sink::Socket(socket) => Some(socket.write_permit().await?),
                    _ => None,
                };
                let moved = now(from.fd(), None, into.fd(), len, false);
                // Nothing is under way: whoever is dropped while it waits leaves the stream whole.
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
        };
        match moved {
            Ok(n) => {
                let cut_off = match from {
                    Origin::Socket(socket) if n == 0 => socket.cut_off(),
                    _ => None,
                };
                return match cut_off {
                    Some(errno) => Err(failed(io::Error::from_raw_os_error(errno))),
                    None => Ok(n),
                };
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && fruitless < FRUITLESS => {
                fruitless += 1;
                from.ready().await.map_err(failed)?;
                into.ready().await.map_err(failed)?;
            }
            Err(e) => {
                match (from, into) {
                    (Origin::Socket(socket), _) | (_, Sink::Socket(socket)) => socket.has_failed(&e),
                    _ => {}
                }
                return Err(failed(e));
            }
        }
    }
}

/// Copies up to `len` bytes from one pipe to another without taking them from the first and without copying memory: the
/// pages are shared. Waits until at least one byte was copied, and returns how many were: 0 when every writer has gone.
/// `tee(2)`, Linux 2.6.17; on the core, which it does not hold up.
///
/// # Errors
/// [`ErrorKind::Io`] with the system's reason: `EPIPE` when every reader of `into` has gone, `EINVAL` when both are the
/// same pipe.
///
/// # Cancellation
/// Safe: a future that was not ready has copied nothing.
pub async fn tee(from: &PipeReader, into: &PipeWriter, len: usize) -> Result<usize> {
    let failed = |e| Error::io("tee failed", e);
    // Before any byte is copied: a future that is dropped here has copied nothing.
    task::consume_budget().await;
    loop {
        match rustix::pipe::tee(from, into, len, SpliceFlags::NONBLOCK).map_err(os) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Origin::Pipe(from).ready().await.map_err(failed)?;
                Sink::Pipe(into).ready().await.map_err(failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

fn pipe_end(fd: &Rc<std::os::fd::OwnedFd>) -> EndFd {
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

impl Origin<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Origin::Pipe(pipe) => pipe.as_fd(),
            Origin::Socket(socket) => socket.fd(),
            Origin::File(file, _) => file.as_fd(),
        }
    }

    async fn ready(&self) -> io::Result<()> {
        match self {
            Origin::Pipe(pipe) => ask(PollOnce { fd: pipe_end(pipe.shared_fd()), ready: Ready::Read }).await,
            Origin::Socket(socket) => socket.ready(Ready::Read).await,
            Origin::File(..) => Ok(()),
        }
    }
}

impl Sink<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Sink::Pipe(pipe) => pipe.as_fd(),
            Sink::Socket(socket) => socket.fd(),
            Sink::File(file, _) => file.as_fd(),
        }
    }

    async fn ready(&self) -> io::Result<()> {
        match self {
            Sink::Pipe(pipe) => ask(PollOnce { fd: pipe_end(pipe.shared_fd()), ready: Ready::Write }).await,
            Sink::Socket(socket) => socket.ready(Ready::Write).await,
            Sink::File(..) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.0.fd())
    }
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({:?})", self.0.fd())
    }
}
