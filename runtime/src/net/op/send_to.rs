//! Send a datagram from an owned buffer to an address. Linux 5.3; `sendmsg(2)`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, types};

use crate::buf::IoBuf;
use crate::net::sockaddr::SockAddr;
use crate::op::slots::Outcome;
use crate::op::waits_for::WaitsFor;
use crate::op::{Operation, Sqes, check};

/// Sends all of a buffer as one datagram. `S` keeps the descriptor open.
pub(crate) struct SendTo<S, B> {
    socket: S,
    buf: B,
    address: SockAddr,
    // Filled in `sqes`.
    vector: libc::iovec,
    message: libc::msghdr,
}

impl<S, B: IoBuf> SendTo<S, B> {
    pub(crate) fn new(socket: S, buf: B, address: SocketAddr) -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: msghdr is plain integers and pointers, for which zeroes are a value.
        let message = unsafe { std::mem::zeroed() };
        Self { socket, buf, address: address.into(), vector, message }
    }
}

// SAFETY: the entry points to `message` inside `self`; that points to `address` and `vector` beside it, and
// `vector` to the buffer's bytes, which `IoBuf` promises not to move. The descriptor is one that `socket`
// keeps open.
unsafe impl<S: AsFd + 'static, B: IoBuf> Operation for SendTo<S, B> {
    const NAME: &'static str = "sendmsg to an address";
    type Output = (io::Result<usize>, B);

    fn sqes(&mut self) -> Sqes {
        let bytes = self.buf.bytes();
        // The kernel only reads what these point to.
        self.vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        self.message.msg_iov = &raw mut self.vector;
        self.message.msg_iovlen = 1;
        self.message.msg_name = self.address.as_ptr().cast_mut();
        self.message.msg_namelen = self.address.len();
        opcode::SendMsg::new(types::Fd(self.socket.as_fd().as_raw_fd()), &raw const self.message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .into()
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Send
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.buf)
    }
}
