//! Send from an owned buffer. Linux 5.6; `send(2)`.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{opcode, types};

use crate::buf::IoBuf;
use crate::net::socket::Socket;
use crate::op::slots::Outcome;
use crate::op::{Operation, Sqes, check};

/// Sends `buf[from..]`.
pub(crate) struct Send<B> {
    pub(crate) socket: Rc<Socket>,
    pub(crate) buf: B,
    pub(crate) from: usize,
    /// `MSG_MORE`, or nothing.
    pub(crate) flags: i32,
}

// SAFETY: the entry points to the buffer's bytes, which `IoBuf` promises not to move, and names the socket's
// descriptor, which the `Rc` keeps open.
unsafe impl<B: IoBuf> Operation for Send<B> {
    const NAME: &'static str = "send";
    type Output = (io::Result<usize>, B);

    fn sqes(&mut self) -> Sqes {
        let bytes = &self.buf.bytes()[self.from..];
        // A longer buffer goes in several sends; MSG_WAITALL lets the kernel do the waiting for room within
        // each.
        let len = bytes.len().min(1 << 30) as u32;
        opcode::Send::new(types::Fd(self.socket.fd().as_raw_fd()), bytes.as_ptr(), len)
            .flags(self.flags | libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .into()
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.buf)
    }
}
