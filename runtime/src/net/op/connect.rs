//! Connect. Linux 5.5; `connect(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, types};
use rustix::net::SocketAddrAny;

use crate::op::slots::Outcome;
use crate::op::waits_for::WaitsFor;
use crate::op::{Operation, Sqes, check};

/// Connects a new socket. The operation owns the socket until it is done.
pub(crate) struct Connect {
    socket: OwnedFd,
    address: SocketAddrAny,
}

impl Connect {
    pub(crate) fn new(socket: OwnedFd, address: SocketAddrAny) -> Self {
        Self { socket, address }
    }
}

// SAFETY: the entry points to the address inside `self` and names the descriptor that `self` owns.
unsafe impl Operation for Connect {
    const NAME: &'static str = "connect";
    type Output = io::Result<OwnedFd>;

    fn sqes(&mut self) -> Sqes {
        opcode::Connect::new(
            types::Fd(self.socket.as_raw_fd()),
            self.address.as_ptr().cast(),
            self.address.addr_len(),
        )
        .build()
        .into()
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Connect
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(|_| self.socket)
    }
}
