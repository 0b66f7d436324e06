//! Servers that the core connects to: some answer, some refuse, and some never reply.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::network::Peer;
use super::ops::{Goes, Op};
use super::sqe::Sqe;
use super::state::State;
use crate::net::sockaddr;

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Answers,
    Refuses(i32),
    Silent,
}

/// A server at an address of its own.
pub(super) struct Serving {
    pub(super) address: SocketAddr,
    pub(super) behaviour: Behaviour,
    /// What it does with each connection, the last first.
    pub(super) peers: Vec<Peer>,
}

impl State {
    /// The server that a connect is for, by the address that the SQE points to.
    pub(super) fn server_of(&self, sqe: Sqe) -> Option<usize> {
        // SAFETY: the kernel reads the address when it takes the SQE, and whoever pushed it keeps it until
        // then.
        let address = unsafe { std::slice::from_raw_parts(sqe.addr as *const u8, sqe.off as usize) };
        let address = sockaddr::parse(address)?;
        self.serving.iter().position(|one| one.address == address)
    }

    /// Whether a connect has an answer.
    pub(super) fn answers(&self, op: &Op) -> bool {
        op.server.is_none_or(|at| self.serving[at].behaviour != Behaviour::Silent)
    }

    pub(super) fn connects(&mut self, op: &Op) -> Goes {
        // A connect that was answered before the cancel came is connected.
        if op.cancelled && !(self.answers(op) && self.random.once_in(3)) {
            return self.end(op, -libc::ECANCELED, 0);
        }
        let Some(at) = op.server else { return self.end(op, -libc::ENETUNREACH, 0) };
        let server = &mut self.serving[at];
        match (server.behaviour, server.peers.pop()) {
            (Behaviour::Refuses(errno), _) => self.end(op, -errno, 0),
            (_, None) => self.end(op, -libc::ECONNREFUSED, 0),
            (_, Some(peer)) => {
                self.establish(op.sqe.fd, peer);
                self.end(op, 0, 0)
            }
        }
    }

    /// The socket of this number stands for a connection from now on.
    fn establish(&mut self, fd: i32, peer: Peer) {
        let ours = self.connect(peer);
        // SAFETY: whoever asked for the connect keeps the socket open until the last CQE. What it stands for
        // is replaced, as connecting does in the kernel; its number stays.
        let number = unsafe { BorrowedFd::borrow_raw(fd) }.as_raw_fd();
        // SAFETY: as above.
        let rc = unsafe { libc::dup3(ours.as_raw_fd(), number, libc::O_CLOEXEC) };
        assert_eq!(rc, number, "a socket of the core is open");
    }
}
