//! Receive, multishot, into parts of the core's provided buffers (see [fragments](crate::buf::fragments)):
//! incremental buffers (Linux 6.12) need nothing else than a plain receive, bundles (Linux 6.10) a flag.
//! `io_uring_prep_recv(3)`.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::recv::Receiver;
use crate::buf::ring::BUFFER_GROUP;
use crate::core::Core;
use crate::op::slots::Outcome;
use crate::op::{Multishot, Sqes, check};
use crate::ring::{Cqe, bundled};

/// Receives until end of stream, error, lack of buffers or cancel.
pub(crate) struct RecvFragments<R> {
    pub(crate) socket: Rc<R>,
    /// Whether one CQE may name several buffers.
    pub(crate) bundles: bool,
    /// Whether it ends when it has brought much.
    pub(crate) limit: bool,
}

// SAFETY: the entry names the descriptor of the receiver (`Socket` of `net/socket/`, the one type that is
// one), which the `Rc` keeps open, and a buffer group that the core keeps registered for as long as it has
// operations.
unsafe impl<R: Receiver> Multishot<Core> for RecvFragments<R> {
    const NAME: &'static str = "recv";

    fn sqes(&mut self) -> Sqes {
        let fd = types::Fd(self.socket.as_fd().as_raw_fd());
        if self.bundles {
            bundled(fd, BUFFER_GROUP, self.limit).into()
        } else {
            opcode::RecvMulti::new(fd, BUFFER_GROUP).build().into()
        }
    }

    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool) {
        let cqe = Cqe { user_data: 0, result: outcome.result, flags: outcome.flags };
        let result = check(outcome);
        let bytes = *result.as_ref().unwrap_or(&0);
        let brought = cqe.buffer().and_then(|first| core.bufs.brought(first, bytes, cqe.buffer_goes_on()));
        // Nobody reads any more, so what came is dropped, which gives the buffers back.
        if owned {
            self.socket.received_fragments(core, brought, result, last);
        }
    }
}
