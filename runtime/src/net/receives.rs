//! A socket as seen through traits: by a core's [`Fairness`](crate::core::fairness::Fairness), and by the
//! [operations](super::op) that receive for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::op::recv::Receiver;
use super::op::send::Sender;
use super::socket::Socket;
use crate::buf::brought::Brought;
use crate::core::Core;
use crate::core::fairness::Receives;

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Sender for Rc<Socket> {
    fn send_failed(&self, errno: i32) {
        self.has_failed(&io::Error::from_raw_os_error(errno));
    }
}

impl Receiver for Socket {
    #[inline(always)]
    fn received(self: &Rc<Self>, core: &Core, buffer: u16, bytes: u32, last: bool) {
        Socket::received(self, core, buffer, bytes, last);
    }

    fn received_none(self: &Rc<Self>, core: &Core, buffer: Option<u16>, result: io::Result<u32>, last: bool) {
        Socket::received_none(self, core, buffer, result, last);
    }

    fn received_fragments(
        self: &Rc<Self>,
        core: &Core,
        brought: Option<Brought<'_>>,
        result: io::Result<u32>,
        last: bool,
    ) {
        Socket::received_fragments(self, core, brought, result, last);
    }
}

impl Receives<Core> for Socket {
    fn is_starved(&self) -> bool {
        self.is_starved()
    }

    fn left_queue(&self) {
        self.left_queue();
    }

    fn receive_again(self: Rc<Self>, core: &Core) -> bool {
        Socket::receive_again(&self, core)
    }

    fn hold_back(self: Rc<Self>, core: &Core) {
        Socket::hold_back(&self, core);
    }

    fn evict(&self, core: &Core) -> bool {
        self.evict(core)
    }
}
