//! How a connection moves from core to core.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::{Socket, Writing};
use crate::buf::Lease;
use crate::core::Core;
use crate::net::ownership::{CloseNotice, Ownership};

/// What a socket has beside its descriptor when it moves from core to core.
pub(crate) struct DetachedState {
    /// Chunks that came and were not taken.
    pub(crate) chunks: VecDeque<Lease>,
    /// How receiving has ended, if it has.
    end: Option<Option<i32>>,
    /// What a send was told of the connection's end, if receiving has not come to it: bytes may lie before
    /// it.
    cut_off: Option<i32>,
    poisoned: bool,
    notice: Option<CloseNotice>,
    pub(crate) lingers: bool,
}

impl Socket {
    /// What goes with the descriptor to another core, with the chunks that were just taken.
    pub(crate) fn leave(&self, mut chunks: VecDeque<Lease>) -> DetachedState {
        // Their holder on the other core does not know when this core waits for their buffers.
        Core::try_with(|core| {
            if core.bufs.are_few() {
                let copied = core.bufs.copy_out(core.shared.clone(), &mut chunks, false);
                core.shared.counters.recv_spilt.add(copied as u64);
            }
        });
        // Nobody can still be sending, because the connection was given up. If somebody is, it is unknown
        // what has left.
        let poisoned = !self.is_between_sends();
        let notice =
            self.rare.get().and_then(|rare| rare.ownership.borrow_mut().hand_on(rare.lent.get() > 0));
        DetachedState {
            chunks,
            end: self.over(),
            cut_off: self.cut_off(),
            poisoned,
            notice,
            lingers: self.lingers.get(),
        }
    }

    /// The connection stays on this core after all.
    pub(crate) fn stay(&self, state: DetachedState) {
        if self.rare.get().is_none() && state.chunks.is_empty() && state.notice.is_none() {
            return;
        }
        let rare = self.rare();
        *rare.rest.borrow_mut() = state.chunks;
        *rare.ownership.borrow_mut() = Ownership::Ours(state.notice);
    }

    /// A socket that came from another core.
    pub(crate) fn arrived(fd: OwnedFd, state: DetachedState) -> Rc<Self> {
        let socket = Self::new(fd);
        socket.receiving.arrived(state.end, state.cut_off);
        if state.poisoned {
            socket.writing.set(Writing::Poisoned);
        }
        socket.lingers.set(state.lingers);
        socket.stay(state);
        socket
    }
}
