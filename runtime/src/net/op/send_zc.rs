//! Send without copying, from a block of node memory. Linux 6.0; `io_uring_prep_send_zc(3)`.
//!
//! There are two CQEs: the result at once, and a notification when the network has released the pages. For
//! TCP that is when the peer has acknowledged them, which takes tens of milliseconds with a delayed
//! acknowledgement, so nobody waits for it. The block belongs to the operation until then and goes back to
//! its pool from there.
//!
//! The notification says whether the kernel copied after all (`IORING_SEND_ZC_REPORT_USAGE`, Linux 6.2, and
//! later 6.1). It does on loopback, on veth, and where the network card cannot gather. Then the pages were
//! pinned for nothing, and the socket counts it ([`Socket::zc_notified`]).
//!
//! A peer that never acknowledges keeps the pages until its connection is reset: by [`crate::net::zero_copy`]
//! for a dropped stream, and by [`Operation::force_release`] at the end of the core.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::send::Sender;
use crate::buf::{Block, IoBuf};
use crate::core::Core;
use crate::net::socket::{Socket, ZcGuard};
use crate::op::slots::Outcome;
use crate::op::waits_for::WaitsFor;
use crate::op::{ForceRelease, Operation, Sqes, check};
use crate::ring::user_data::{COPIED, REPORT_USAGE};

/// A block that the kernel and its sender share. Neither writes to it.
#[derive(Clone)]
pub(crate) struct SharedBlock(pub(crate) Rc<Block>);

// SAFETY: the block's bytes do not move, and behind the `Rc` nobody can write them.
unsafe impl IoBuf for SharedBlock {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Sends `block[from..]`.
pub(crate) struct SendZc {
    on: ZcGuard,
    block: SharedBlock,
    from: usize,
    /// Whether the notification can be asked to report (Linux 6.2).
    report: bool,
}

impl SendZc {
    pub(crate) fn new(socket: Rc<Socket>, block: SharedBlock, from: usize, report: bool) -> Self {
        Self { on: ZcGuard::new(socket), block, from, report }
    }
}

// SAFETY: the entry points to the block's bytes, which do not move and which the `Rc` keeps until this value
// is dropped, after the notification. The descriptor is the socket's, which the `Rc` keeps open; the
// registered buffer, if one is named, is the pool that the block came from.
unsafe impl Operation for SendZc {
    const NAME: &'static str = "send_zc";
    type Output = io::Result<usize>;

    fn sqes(&mut self) -> Sqes {
        let bytes = &self.block.bytes()[self.from..];
        // A block is far smaller than 4 GiB.
        opcode::SendZc::new(types::Fd(self.on.socket().fd().as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .buf_index(self.block.0.fixed_index())
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .zc_flags(if self.report { REPORT_USAGE } else { 0 })
            .build()
            .into()
    }

    fn failed(&self, errno: i32) {
        self.on.socket().send_failed(errno);
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Send
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(|n| n as usize)
    }

    fn notified(&self, outcome: Outcome) {
        if self.report {
            Core::try_with(|core| self.on.socket().zc_notified(core, outcome.result & COPIED != 0));
        }
    }

    fn force_release(&self) -> Option<ForceRelease> {
        let socket = Rc::clone(self.on.socket());
        Some(Box::new(move || socket.reset("the core ends")))
    }
}
