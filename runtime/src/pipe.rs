//! Pipes.
//!
//! Both ends never wait in the kernel (`O_NONBLOCK`). A read or write that can be done is done on the core,
//! which is one copy of memory; for others the ring reports when they can be. So a read that is dropped loses
//! no byte. [`transfer::splice`](crate::transfer::splice) and [`tee`](crate::transfer::tee) move bytes
//! between a pipe and a file or a socket without copying them.
//!
//! ```
//! # annulus::Runtime::builder().pool_bytes(1 << 20).build()?.run(|| async {
//! let (reader, writer) = annulus::pipe::pipe()?;
//! writer.write_all("through a pipe").await?;
//! drop(writer);
//! let (n, buf) = reader.read(Vec::with_capacity(100)).await?;
//! assert_eq!(buf[..n], *b"through a pipe");
//! let (n, _) = reader.read(buf).await?;
//! assert_eq!(n, 0, "every writer has gone");
//! # Ok(())
//! # })?;
//! # Ok::<(), annulus::Error>(())
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::pipe_pool::{Ends, make};
use crate::error::os;
use crate::limits::{INT, refuse_above};
use crate::op::poll::{PollOnce, Ready};
use crate::{Error, Result, task};

/// Makes a pipe of the kernel's usual size, 64 KiB (`pipe2(2)`, Linux 2.6.27).
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io): no descriptor is left (`EMFILE`, `ENFILE`).
pub fn pipe() -> Result<(PipeReader, PipeWriter)> {
    let made = Core::with(|core| make(None).inspect(|_| core.shared.counters.pipes_made.add(1)));
    let Ends { read, write, .. } = made.map_err(|e| Error::io("cannot make a pipe", e))?;
    Ok((PipeReader { fd: Rc::new(read) }, PipeWriter { fd: Rc::new(write) }))
}

/// The end of a pipe that bytes are read from. It is not `Send`. Dropping it closes it.
#[derive(Debug)]
pub struct PipeReader {
    fd: Rc<OwnedFd>,
}

/// The end of a pipe that bytes are written to. It is not `Send`. Dropping it closes it. When every writer
/// has gone the reader sees the end.
#[derive(Debug)]
pub struct PipeWriter {
    fd: Rc<OwnedFd>,
}

macro_rules! both_ends {
    ($($end:ident),+) => {$(
        impl $end {
            /// Takes over an end that was made elsewhere: a child's output, a FIFO. It is made close-on-exec
            /// and non-blocking (`O_NONBLOCK`). The latter holds for every copy of the descriptor, in other
            /// processes too.
            ///
            /// # Errors
            /// [`ErrorKind::Io`](crate::ErrorKind::Io) when it is no pipe (`EBADF`).
            pub fn from_fd(fd: OwnedFd) -> Result<Self> {
                let failed = |e| Error::io("cannot take over a pipe", os(e));
                fcntl_getpipe_size(&fd).map_err(failed)?;
                let flags = fcntl_getfl(&fd).map_err(failed)?;
                fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(failed)?;
                fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(failed)?;
                Ok(Self { fd: Rc::new(fd) })
            }

            /// Bytes that the pipe holds at most (`F_GETPIPE_SZ`, Linux 2.6.35).
            ///
            /// # Errors
            /// What `fcntl(2)` says.
            pub fn size(&self) -> Result<usize> {
                fcntl_getpipe_size(&self.fd).map_err(os).map_err(|e| Error::io("cannot read a pipe's size", e))
            }

            /// Asks for a capacity of this many bytes and returns the new capacity (`F_SETPIPE_SZ`, Linux
            /// 2.6.35).
            ///
            /// # Errors
            /// `EPERM` past `/proc/sys/fs/pipe-max-size` or the user's share of all pipes (`pipe(7)`);
            /// `EBUSY` when it holds more. [`ErrorKind::Input`](crate::ErrorKind::Input) for more than 2^31 -
            /// 1 bytes.
            pub fn set_size(&self, bytes: usize) -> Result<usize> {
                refuse_above(INT, "a pipe", bytes as u64)?;
                fcntl_setpipe_size(&self.fd, bytes)
                    .map_err(os)
                    .map_err(|e| Error::io(format!("cannot give a pipe {bytes} bytes"), e))?;
                self.size()
            }

            pub(crate) fn shared_fd(&self) -> &Rc<OwnedFd> {
                &self.fd
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }
    )+};
}

both_ends!(PipeReader, PipeWriter);

impl PipeReader {
    /// Reads the available bytes, as many as fit into the free part of `buf`, and waits until there is one.
    /// Returns how many were read, and the buffer; 0 when every writer has gone or the buffer has no free
    /// part. `read(2)`; the ring waits, Linux 5.1.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: no byte is lost.
    pub async fn read<B: IoBufMut>(&self, mut buf: B) -> Result<(usize, B), BufError<B>> {
        // This comes before the bytes are taken, because after that there must be no await in which they
        // could be dropped.
        task::consume_budget().await;
        loop {
            let read = rustix::io::read(&self.fd, buf.spare_capacity()).map(|(filled, _)| filled.len());
            match read.map_err(os) {
                Ok(n) => {
                    // SAFETY: read(2) has filled the first `n` bytes of the free part.
                    unsafe { buf.filled(n) };
                    return Ok((n, buf));
                }
                Err(e) => {
                    if let Err(e) = wait(&self.fd, Ready::Read, e).await {
                        return Err(BufError::io("read from a pipe failed", e, buf));
                    }
                }
            }
        }
    }
}

impl PipeWriter {
    /// Writes from the beginning of `buf` as much as the pipe takes, and waits until it takes something.
    /// Returns how many bytes were written, and the buffer. Up to 4,096 bytes are written whole or not at all
    /// (`pipe(7)`, PIPE_BUF). `write(2)`; the ring waits, Linux 5.1.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, `EPIPE` when every reader has gone;
    /// the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: a future that was not ready has written nothing.
    pub async fn write<B: IoBuf>(&self, buf: B) -> Result<(usize, B), BufError<B>> {
        match self.write_from(&buf, 0).await {
            Ok(n) => Ok((n, buf)),
            Err(e) => Err(BufError::io("write to a pipe failed", e, buf)),
        }
    }

    /// Writes all of `buf` and gives it back (`write(2)`), as [`write`](Self::write) does.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and a prefix may have been written.
    ///
    /// # Cancellation
    /// An unknown prefix has been written.
    pub async fn write_all<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        let mut from = 0;
        while from < buf.bytes().len() {
            match self.write_from(&buf, from).await {
                Ok(n) => from += n,
                Err(e) => return Err(BufError::io("write to a pipe failed", e, buf)),
            }
        }
        Ok(buf)
    }

    async fn write_from(&self, buf: &impl IoBuf, from: usize) -> io::Result<usize> {
        // This comes before the bytes are written, so a future that is dropped here has written nothing.
        task::consume_budget().await;
        loop {
            match rustix::io::write(&self.fd, &buf.bytes()[from..]).map_err(os) {
                Ok(n) => return Ok(n),
                Err(e) => wait(&self.fd, Ready::Write, e).await?,
            }
        }
    }
}

/// An end that an operation keeps open.
pub(crate) struct EndFd(pub(crate) Rc<OwnedFd>);

impl AsFd for EndFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until an attempt that ended in `error` is worth another, or gives the error back.
async fn wait(fd: &Rc<OwnedFd>, ready: Ready, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => ask(PollOnce { fd: EndFd(Rc::clone(fd)), ready }).await,
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
