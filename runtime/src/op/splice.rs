//! Splice: bytes from a file or a socket into a pipe, or from a pipe into a file or a socket. Linux 5.7;
//! `splice(2)`.
//!
//! The kernel always runs it on an io-wq worker. A splice that waited there would hold a kernel thread. So a
//! splice with a socket end is linked behind a poll of that end, and the socket is `O_NONBLOCK`: a wrong poll
//! costs an `EAGAIN`, not a thread. No `LinkTimeout` is used, because it does not fire on a running io-wq
//! operation on 6.12 and 6.18. A cancelled splice answers `EINTR` or one of the kernel's restart codes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, types};

use super::poll::Ready;
use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};

/// One splice. `I` and `O` keep the descriptors open. The owner of the pipe counts the bytes in it by the
/// result.
pub(crate) struct Splice<I, O> {
    pub(crate) from: I,
    /// Offset in a file; `None` for a pipe or a socket.
    pub(crate) offset: Option<u64>,
    pub(crate) into: O,
    /// As `offset`, at the other end.
    pub(crate) into_offset: Option<u64>,
    pub(crate) len: u32,
    /// Which end to poll first, if one may not be ready.
    pub(crate) wait: Option<Ready>,
    /// More bytes follow at once: a last short segment is not sent yet.
    pub(crate) more: bool,
}

/// `SPLICE_F_MOVE | SPLICE_F_NONBLOCK`, and `SPLICE_F_MORE` where more follows.
pub(crate) fn flags(more: bool) -> u32 {
    libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | if more { libc::SPLICE_F_MORE } else { 0 }
}

impl<I: AsFd, O: AsFd> Splice<I, O> {
    fn entries(&self) -> Sqes {
        let (from, into) = (self.from.as_fd().as_raw_fd(), self.into.as_fd().as_raw_fd());
        let place = |offset: Option<u64>| offset.map_or(-1, |offset| offset as i64);
        let (from_at, into_at) = (place(self.offset), place(self.into_offset));
        let main = opcode::Splice::new(types::Fd(from), from_at, types::Fd(into), into_at, self.len)
            .flags(flags(self.more))
            .build();
        let after = self.wait.map(|ready| {
            let fd = if ready == Ready::Read { from } else { into };
            opcode::PollAdd::new(types::Fd(fd), ready.events()).build()
        });
        Sqes { after, main }
    }
}

// SAFETY: the entries name descriptors that `from` and `into` keep open, and point to nothing.
unsafe impl<I: AsFd + 'static, O: AsFd + 'static> Operation for Splice<I, O> {
    const NAME: &'static str = "splice";
    const LINKED: bool = true;
    type Output = io::Result<u32>;

    fn sqes(&mut self) -> Sqes {
        self.entries()
    }

    fn runs_on_iowq(&self) -> bool {
        true
    }

    fn waits_for(&self) -> WaitsFor {
        self.wait.map_or(WaitsFor::Disk, Ready::waits_for)
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome)
    }
}
