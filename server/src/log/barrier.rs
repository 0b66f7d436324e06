//! A memory barrier of which one side pays for both: threads that log often need none, and the thread that is
//! about to sleep has the kernel make one on every CPU where the process runs (`membarrier(2)`, Linux 4.14).
//!
//! A thread that stores what it queued and then loads whether somebody sleeps needs a full fence between the
//! two, which waits for all stores before it: those of a log line go to memory that no cache of the core has.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

use rustix::thread::{MembarrierCommand, membarrier};

/// The kernel makes the barriers of [`light`] when somebody calls [`heavy`].
static IS_ASYMMETRIC: AtomicBool = AtomicBool::new(false);

/// Prepares the process; without it, or where a filter refuses the call, each side has its own fence. Call it
/// before [`heavy`], on the thread that calls that.
pub(super) fn register() {
    match membarrier(MembarrierCommand::RegisterPrivateExpedited) {
        Ok(()) => IS_ASYMMETRIC.store(true, Ordering::SeqCst),
        Err(errno) => tracing::debug!(%errno, "no membarrier(2): each log line costs a fence"),
    }
}

/// The side of those who do it often.
pub(super) fn light() {
    if IS_ASYMMETRIC.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The side of the one who does it rarely.
pub(super) fn heavy() {
    fence(Ordering::SeqCst);
    if IS_ASYMMETRIC.load(Ordering::Relaxed)
        && let Err(errno) = membarrier(MembarrierCommand::PrivateExpedited)
    {
        // What a process has registered for, the kernel does.
        tracing::error!(%errno, "membarrier(2) fails: a log line may lie until the next one comes");
    }
}
