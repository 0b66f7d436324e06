//! Receive, multishot, into the core's provided buffers: one SQE, a CQE and a buffer for everything that
//! comes. Linux 6.0; `recv(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use crate::buf::brought::Brought;
use crate::buf::ring::BUFFER_GROUP;
use crate::core::Core;
use crate::op::slots::Outcome;
use crate::op::{Multishot, Sqes, check};
use crate::ring::Cqe;

/// Takes the results of a receive, and keeps the descriptor open.
pub(crate) trait Receiver: AsFd + 'static {
    /// So many bytes came in `buffer`. `last`: the operation has ended.
    fn received(self: &Rc<Self>, core: &Core, buffer: u16, bytes: u32, last: bool);

    /// The end, or an error, and a buffer without bytes. `last` as above.
    fn received_none(self: &Rc<Self>, core: &Core, buffer: Option<u16>, result: io::Result<u32>, last: bool);

    /// The same where what comes lies in [fragments](crate::buf::brought) of buffers.
    fn received_fragments(
        self: &Rc<Self>,
        core: &Core,
        brought: Option<Brought<'_>>,
        result: io::Result<u32>,
        last: bool,
    );
}

/// Receives until end of stream, error, lack of buffers or cancel.
pub(crate) struct RecvMulti<R> {
    pub(crate) socket: Rc<R>,
}

// SAFETY: the entry names the descriptor of the receiver (`Socket` of `net/socket/`, the one type that is
// one), which the `Rc` keeps open, and a buffer group that the core keeps registered for as long as it has
// operations.
unsafe impl<R: Receiver> Multishot<Core> for RecvMulti<R> {
    const NAME: &'static str = "recv";

    fn sqes(&mut self) -> Sqes {
        opcode::RecvMulti::new(types::Fd(self.socket.as_fd().as_raw_fd()), BUFFER_GROUP).build().into()
    }

    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool) {
        on_recv(&self.socket, core, outcome, owned, last);
    }
}

/// Handles a result of a socket's receive. `owned` is false once nobody reads any more: then only the buffer
/// matters.
#[inline(always)]
pub(super) fn on_recv<R: Receiver>(socket: &Rc<R>, core: &Core, outcome: Outcome, owned: bool, last: bool) {
    let cqe = Cqe { user_data: 0, result: outcome.result, flags: outcome.flags };
    let buffer = cqe.buffer();
    if buffer.is_some() {
        core.bufs.picked();
    }
    match buffer {
        Some(buffer) if owned && outcome.result > 0 => {
            socket.received(core, buffer, outcome.result as u32, last);
        }
        buffer if owned => socket.received_none(core, buffer, check(outcome), last),
        Some(buffer) => core.bufs.recycle(buffer),
        None => {}
    }
}
