//! Accept: one connection, or multishot, with a CQE for each connection. Linux 5.19; `accept4(2)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use crate::core::Core;
use crate::op::slots::Outcome;
use crate::op::{Multishot, Sqes, check};

pub(crate) const NAME: &str = "accept";

/// A listening socket, which takes its accepted connections.
pub(crate) trait Accepting: 'static {
    /// The socket. It stays open for as long as this value lives.
    fn fd(&self) -> BorrowedFd<'_>;
    /// A CQE of the accept; `last` if no other follows.
    fn accepted(&self, core: &Core, result: io::Result<OwnedFd>, last: bool);
}

/// Accepts one connection, or many until it is cancelled or fails.
pub(crate) struct Accept<L> {
    pub(crate) listener: Rc<L>,
    pub(crate) many: bool,
}

// SAFETY: the entry names the listener's descriptor only. `Shared` of `net/listener.rs`, the one type that
// is `Accepting`, owns it until it is dropped, and the `Rc` keeps that.
unsafe impl<L: Accepting> Multishot<Core> for Accept<L> {
    const NAME: &'static str = NAME;

    fn sqes(&mut self) -> Sqes {
        // Every socket is O_NONBLOCK: the ring poll-arms them nevertheless, and splice(2) must never wait.
        let (fd, flags) =
            (types::Fd(self.listener.fd().as_raw_fd()), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if self.many {
            opcode::AcceptMulti::new(fd).flags(flags).build().into()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build().into()
        }
    }

    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool) {
        let accepted = check(outcome).map(|fd| {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            unsafe { OwnedFd::from_raw_fd(fd as i32) }
        });
        // After the listener has gone a late connection is dropped here, which closes it.
        if owned {
            self.listener.accepted(core, accepted, last);
        }
    }
}
