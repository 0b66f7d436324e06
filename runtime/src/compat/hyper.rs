//! The runtime traits of hyper 1.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Read, ReadBufCursor, Timer, Write};

use super::{Io, OnCore};
use crate::net::{Family, Reads, Writes};
use crate::time;

impl<F: Family, S: Reads> Read for Io<F, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let filled = ready!(self.poll_fill(cx))?;
        let n = filled.len().min(buf.remaining());
        buf.put_slice(&filled[..n]);
        self.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<F: Family, S: Writes> Write for Io<F, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, std::iter::once(buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }

    /// A head and a body are copied one after the other and leave in one send.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs.iter().map(|slice| &**slice))
    }
}

/// hyper's timers, on the wheel of the current core.
///
/// # Panics
/// When a timer is made on a thread that is no core's, and when it is polled on another core than the one
/// that made it. Dropping it elsewhere is harmless.
#[derive(Debug, Clone, Copy, Default)]
pub struct HyperTimer;

impl Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        on_this_core(time::sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        on_this_core(time::sleep_until(deadline))
    }
}

fn on_this_core(sleep: time::Sleep) -> Pin<Box<dyn hyper::rt::Sleep>> {
    Box::pin(OnCore::new(sleep))
}

/// hyper may carry it anywhere, because it asks for `Send`. It works only on its own core.
impl hyper::rt::Sleep for OnCore<time::Sleep> {}

/// Spawns hyper's tasks on the current core. They need not be `Send`.
///
/// # Panics
/// On a thread that is no core's.
#[derive(Debug, Clone, Copy, Default)]
pub struct HyperExecutor;

impl<T> Executor<T> for HyperExecutor
where
    T: Future + 'static,
    T::Output: 'static,
{
    fn execute(&self, task: T) {
        crate::spawn(task).detach();
    }
}
