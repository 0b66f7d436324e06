//! Wait until a descriptor is ready. Linux 5.1; `poll(2)`.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Bytes, end of stream or an error can be read.
    Read,
    /// Bytes can be written, or writing would fail.
    Write,
    /// The connection has ended: an error, or the end of both directions.
    Gone,
}

impl Ready {
    /// The events to ask `poll(2)` for; errors and hang-ups always come with them.
    pub(crate) fn events(self) -> u32 {
        (match self {
            Ready::Read => libc::POLLIN | libc::POLLRDHUP,
            Ready::Write => libc::POLLOUT,
            Ready::Gone => 0,
        }) as u32
    }

    /// What waits for it waits for.
    pub(super) fn waits_for(self) -> WaitsFor {
        match self {
            Ready::Read | Ready::Gone => WaitsFor::Receive,
            Ready::Write => WaitsFor::Send,
        }
    }
}

/// One wait. `F` keeps the descriptor open.
pub(crate) struct PollOnce<F> {
    pub(crate) fd: F,
    pub(crate) ready: Ready,
}

// SAFETY: the entry names a descriptor that `fd` keeps open, and points to nothing.
unsafe impl<F: AsFd + 'static> Operation for PollOnce<F> {
    const NAME: &'static str = "poll";
    type Output = io::Result<()>;

    fn sqes(&mut self) -> Sqes {
        opcode::PollAdd::new(types::Fd(self.fd.as_fd().as_raw_fd()), self.ready.events()).build().into()
    }

    fn waits_for(&self) -> WaitsFor {
        self.ready.waits_for()
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(drop)
    }
}

/// One wait for any of some events. `F` keeps the descriptor open.
pub(crate) struct PollEvents<F> {
    pub(crate) fd: F,
    /// As for `poll(2)`.
    pub(crate) events: u32,
}

// SAFETY: as for `PollOnce`.
unsafe impl<F: AsFd + 'static> Operation for PollEvents<F> {
    const NAME: &'static str = "poll";
    /// The events that came.
    type Output = io::Result<u32>;

    fn sqes(&mut self) -> Sqes {
        opcode::PollAdd::new(types::Fd(self.fd.as_fd().as_raw_fd()), self.events).build().into()
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome)
    }
}
