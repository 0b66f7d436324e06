//! A descriptor as a stream: read(2) and write(2) on the core, and a poll by the ring where they would wait.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::core::Core;
use crate::core::ask::{Finished, InFlight};
use crate::error::os;
use crate::fd::Shared;
use crate::op::poll::{PollOnce, Ready};
use crate::{Error, Result};

/// A descriptor that has the traits of other crates: an end of a [pipe](crate::pipe), a terminal, a device, a
/// library's descriptor. Reading and writing are one copy, by `read(2)` and `writev(2)` on the core. Where
/// they would wait, the ring reports readiness (`poll(2)`; Linux 5.1).
///
/// Closing drops the descriptor, which ends a pipe.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::compat::FdIo;
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
///
/// let (reader, writer) = annulus::pipe::pipe()?;
/// let mut writer = FdIo::new(writer)?;
/// writer.write_all(b"one\ntwo\n").await?;
/// writer.shutdown().await?;
/// let mut lines = BufReader::new(FdIo::new(reader)?).lines();
/// assert_eq!(lines.next_line().await?.as_deref(), Some("one"));
/// assert_eq!(lines.next_line().await?.as_deref(), Some("two"));
/// assert_eq!(lines.next_line().await?, None);
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Cancellation
/// Safe: a read or write that is waiting has moved no byte.
///
/// # Panics
/// Its polls panic on a thread that is no core's.
pub struct FdIo<T: AsFd + 'static> {
    /// `None` once it was closed.
    fd: Option<Rc<T>>,
    reads: Option<InFlight<PollOnce<Shared<T>>>>,
    writes: Option<InFlight<PollOnce<Shared<T>>>>,
}

// Nothing in it is pinned.
impl<T: AsFd + 'static> Unpin for FdIo<T> {}

impl<T: AsFd + 'static> FdIo<T> {
    /// Puts the traits on `fd`, and makes it non-blocking (`O_NONBLOCK`). That holds for every copy of the
    /// descriptor, in other processes too. A regular file is never reported as waiting, so it is read on the
    /// core, and one that is not in memory holds the core up.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the reason of `fcntl(2)`.
    pub fn new(fd: T) -> Result<Self> {
        let failed = |e| Error::io("cannot take a descriptor for a stream", os(e));
        let flags = fcntl_getfl(&fd).map_err(failed)?;
        if !flags.contains(OFlags::NONBLOCK) {
            fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        }
        Ok(Self { fd: Some(Rc::new(fd)), reads: None, writes: None })
    }

    /// The descriptor. `None` once it was closed.
    pub fn get_ref(&self) -> Option<&T> {
        self.fd.as_deref()
    }
}

#[cfg_attr(
    not(any(feature = "futures-io", feature = "tokio")),
    expect(dead_code, reason = "no feature, no traits")
)]
impl<T: AsFd + 'static> FdIo<T> {
    /// Reads the available bytes into `spare`; 0 at the end.
    pub(super) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        spare: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Ok(0)) };
        attempts(fd, Ready::Read, &mut self.reads, cx, |fd| rustix::io::read(fd, &mut *spare))
    }

    /// Writes as much of `slices` as the descriptor takes.
    pub(super) fn poll_write_from(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        // writev(2) takes 1,024 at a time. The next write takes the rest.
        let slices = &slices[..slices.len().min(1024)];
        attempts(fd, Ready::Write, &mut self.writes, cx, |fd| rustix::io::writev(fd, slices))
    }

    pub(super) fn close(&mut self) {
        (self.fd, self.reads, self.writes) = (None, None, None);
    }
}

/// Tries, and waits for readiness after `EAGAIN`.
fn attempts<T: AsFd + 'static>(
    fd: &Rc<T>,
    side: Ready,
    waits: &mut Option<InFlight<PollOnce<Shared<T>>>>,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&T) -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    Core::with(|core| {
        loop {
            if let Some(wait) = waits {
                let Finished::Whole(polled) = ready!(wait.poll(core, cx.waker())) else {
                    unreachable!("a poll has no notification")
                };
                *waits = None;
                polled?;
            }
            ready!(core.budget.poll(cx));
            match attempt(fd) {
                Ok(n) => {
                    core.budget.spend();
                    return Poll::Ready(Ok(n));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let poll = PollOnce { fd: Shared(Rc::clone(fd)), ready: side };
                    *waits = Some(InFlight::new(core, poll, cx.waker()));
                }
                Err(e) => return Poll::Ready(Err(os(e))),
            }
        }
    })
}

impl<T: AsFd + fmt::Debug + 'static> fmt::Debug for FdIo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FdIo").field(&self.fd).finish()
    }
}
