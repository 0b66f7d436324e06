//! Send from several owned buffers at once. Linux 5.3; `sendmsg(2)`.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::send::Sender;
use crate::buf::IoBufs;
use crate::buf::owned::vectors_of;
use crate::op::slots::Outcome;
use crate::op::waits_for::WaitsFor;
use crate::op::{Operation, Sqes, check};

/// Sends the bytes after the first `from` bytes of all buffers together. `S` keeps the descriptor open.
pub(crate) struct SendVectored<S, V> {
    socket: S,
    bufs: V,
    from: usize,
    /// The rest of each buffer. It is filled in `sqes` and kept until the end, and its allocation does not
    /// move.
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl<S, V: IoBufs> SendVectored<S, V> {
    /// `vectors` is what an earlier send of the same stream left, so that one allocation serves them all.
    pub(crate) fn new(socket: S, bufs: V, from: usize, vectors: Vec<libc::iovec>) -> Self {
        // SAFETY: msghdr is plain integers and pointers, for which zeroes are a value.
        Self { socket, bufs, from, vectors, message: unsafe { std::mem::zeroed() } }
    }
}

// SAFETY: the entry points to `message` inside `self`; that points to the vectors' own allocation, and those
// to the buffers' bytes, which `IoBufs` promises not to move. The descriptor is one that `socket` keeps
// open.
unsafe impl<S: Sender, V: IoBufs> Operation for SendVectored<S, V> {
    const NAME: &'static str = "sendmsg";
    type Output = (io::Result<usize>, V, Vec<libc::iovec>);

    fn sqes(&mut self) -> Sqes {
        vectors_of(&self.bufs, self.from, &mut self.vectors);
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len();
        opcode::SendMsg::new(types::Fd(self.socket.as_fd().as_raw_fd()), &raw const self.message)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
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
        (check(outcome).map(|n| n as usize), self.bufs, self.vectors)
    }
}
