//! Send from an owned buffer. Linux 5.6; `send(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, types};

use crate::buf::IoBuf;
use crate::op::slots::Outcome;
use crate::op::waits_for::WaitsFor;
use crate::op::{Operation, Sqes, check};

/// A socket that sends, and keeps the descriptor open.
pub(crate) trait Sender: AsFd + 'static {
    /// The kernel has reported this errno to a send. It reports an error of the connection once.
    fn send_failed(&self, errno: i32);
}

/// Sends `buf[from..]`. `S` keeps the descriptor open.
pub(crate) struct Send<S, B> {
    pub(crate) socket: S,
    pub(crate) buf: B,
    pub(crate) from: usize,
    /// `MSG_MORE`, or nothing.
    pub(crate) flags: i32,
}

// SAFETY: the entry points to the buffer's bytes, which `IoBuf` promises not to move, and names the
// descriptor that `socket` keeps open.
unsafe impl<S: Sender, B: IoBuf> Operation for Send<S, B> {
    const NAME: &'static str = "send";
    type Output = (io::Result<usize>, B);

    fn sqes(&mut self) -> Sqes {
        let bytes = &self.buf.bytes()[self.from..];
        // A longer buffer takes several sends. MSG_WAITALL lets the kernel wait for space within each.
        let len = bytes.len().min(1 << 30) as u32;
        opcode::Send::new(types::Fd(self.socket.as_fd().as_raw_fd()), bytes.as_ptr(), len)
            .flags(self.flags | libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .into()
    }

    fn failed(&self, errno: i32) {
        self.socket.send_failed(errno);
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Send
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.buf)
    }
}
