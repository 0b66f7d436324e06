//! Receive datagrams, multishot, into the core's provided buffers: one SQE, a CQE and a buffer for each, with
//! the sender's address before the bytes. Linux 6.0; `recvmsg(2)`, `io_uring_prep_recvmsg_multishot(3)`.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::recv::{self, Receiver};
use crate::buf::Lease;
use crate::buf::ring::BUFFER_GROUP;
use crate::core::Core;
use crate::net::sockaddr;
use crate::op::slots::Outcome;
use crate::op::{Multishot, Sqes};

/// `struct io_uring_recvmsg_out` of linux/io_uring.h: lengths of name, control data and payload, then flags;
/// 32 bits each.
const HEAD: usize = 16;
/// How many bytes lie before those of a datagram in its buffer.
pub(crate) const BEFORE: usize = HEAD + sockaddr::MAX;

/// Receives datagrams until an error, lack of buffers or cancel, or one of no bytes.
pub(crate) struct RecvMsgMulti<R> {
    socket: Rc<R>,
    /// Says how much space the address gets. The kernel copies it when the SQE is submitted.
    message: libc::msghdr,
}

impl<R> RecvMsgMulti<R> {
    pub(crate) fn new(socket: Rc<R>) -> Self {
        // SAFETY: msghdr is plain integers and pointers, for which zeroes are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_namelen = sockaddr::MAX as libc::socklen_t;
        Self { socket, message }
    }
}

// SAFETY: the entry names the descriptor of the receiver (`Socket` of `net/socket/`, the one type that is
// one), which the `Rc` keeps open, points to the message inside `self`, and names a buffer group that the
// core keeps registered for as long as it has operations.
unsafe impl<R: Receiver> Multishot<Core> for RecvMsgMulti<R> {
    const NAME: &'static str = "recvmsg";

    fn sqes(&mut self) -> Sqes {
        // MSG_TRUNC: the kernel reports the true length of a datagram that the buffer cannot hold.
        opcode::RecvMsgMulti::new(
            types::Fd(self.socket.as_fd().as_raw_fd()),
            &raw const self.message,
            BUFFER_GROUP,
        )
        .flags(libc::MSG_TRUNC as u32)
        .build()
        .into()
    }

    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool) {
        recv::on_recv(&self.socket, core, outcome, owned, last);
    }
}

/// Takes what the kernel wrote before a datagram off its buffer: the sender's address, if it has one, and the
/// datagram's true length, of which the lease holds as much as fitted.
pub(crate) fn unwrap(mut lease: Lease) -> (Lease, Option<SocketAddr>, usize) {
    let field = |at: usize| {
        let bytes = lease.get(4 * at..4 * at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes) as usize
    };
    let (name, len) = (field(0), field(2));
    let source = lease.get(HEAD..HEAD + name.min(sockaddr::MAX)).and_then(sockaddr::parse);
    lease.advance(BEFORE.min(lease.len()));
    (lease, source, len)
}
