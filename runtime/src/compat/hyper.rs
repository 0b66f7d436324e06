//! The runtime traits of hyper 1.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Read, ReadBufCursor, Timer, Write};

use super::Io;
use crate::core::Core;
use crate::core::shared::CoreShared;
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

    /// A head and a body are copied behind each other and leave in one send.
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

/// hyper's timers, on the wheel of the core that asks.
///
/// # Panics
/// Asked on a thread that is no core's, and its timers when they are polled on another core than the one
/// that asked. Dropping one elsewhere is harmless.
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
    let owner = Core::with(|core| Arc::clone(&core.shared));
    Box::pin(CoreSleep { owner, sleep: ManuallyDrop::new(sleep) })
}

/// A sleep that hyper may carry anywhere, because it asks for `Send`, and that works on its own core only.
struct CoreSleep {
    owner: Arc<CoreShared>,
    sleep: ManuallyDrop<time::Sleep>,
}

// SAFETY: `sleep` is touched on its core's thread only: polled elsewhere it panics before, dropped elsewhere
// it is leaked (a deadline and the number of a timer, which fires in vain). The rest is an `Arc` of a type
// that is `Send` and `Sync`.
unsafe impl Send for CoreSleep {}

// SAFETY: nothing can be done with a shared reference to it.
unsafe impl Sync for CoreSleep {}

impl Future for CoreSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        assert!(Core::is_current(&self.owner), "a timer of core {} was polled elsewhere", self.owner.index);
        Pin::new(&mut *self.sleep).poll(cx)
    }
}

impl hyper::rt::Sleep for CoreSleep {}

impl Drop for CoreSleep {
    fn drop(&mut self) {
        if Core::is_current(&self.owner) {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.sleep) };
        }
    }
}

impl fmt::Debug for CoreSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CoreSleep").field(&*self.sleep).finish()
    }
}

/// Runs what hyper wants run, on the current core: tasks need not be `Send`.
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
