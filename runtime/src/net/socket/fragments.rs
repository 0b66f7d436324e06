//! Receiving where a CQE need not bring exactly one buffer ([fragments](crate::buf::fragments)).

use std::io;
use std::rc::Rc;

use super::Socket;
use crate::buf::brought::Brought;
use crate::core::Core;
use crate::net::op::recv_fragments::RecvFragments;
use crate::op::slots::Key;

// Cold: without the options this code is not called, and costs nothing.
impl Socket {
    #[cold]
    pub(super) fn arm_fragments(socket: Rc<Self>, core: &Core) -> Key {
        let limit = core.ring.features().bundle_limit;
        core.ops
            .submit_multi(&core.ring, RecvFragments { socket, bundles: core.bufs.come_in_bundles(), limit })
    }

    /// Chunks that nobody has taken yet.
    #[cold]
    pub(super) fn fragments_waiting(&self) -> u32 {
        self.rare.get().map_or(0, |rare| rare.rest.borrow().len() as u32)
    }

    /// As [`received`](Self::received). Bytes that follow directly on the last chunk are joined to it.
    pub(crate) fn received_fragments(
        self: &Rc<Self>,
        core: &Core,
        brought: Option<Brought<'_>>,
        result: io::Result<u32>,
        last: bool,
    ) {
        let was_ending = self.receiving.answered(last);
        match (result, brought) {
            (Ok(n), Some(mut brought)) if n > 0 => {
                core.shared.counters.recv_bytes.add(n.into());
                let mut waiting = self.rare().rest.borrow_mut();
                for lease in brought.by_ref() {
                    let next = match waiting.back_mut() {
                        Some(before) => before.join(lease),
                        None => Some(lease),
                    };
                    waiting.extend(next);
                }
                let many = waiting.len() >= self.hold_back_at() as usize;
                drop(waiting);
                if many || core.bufs.are_few() {
                    self.inspect_later(core);
                }
                // Last, because dropping it may log an event.
                drop(brought);
            }
            (Ok(_), _) => self.ended(),
            (Err(e), _) => self.failed(core, &e, was_ending),
        }
        self.wake_reader();
    }
}
