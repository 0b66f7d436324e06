//! RECV into a block of the direction, then SEND of what came, one operation at a time.

use super::{Progress, ROAD_OP, Relay, State};
use annulus_benches::bare::{Core, SendSlot, Slot};
use std::io;

const RECV: u8 = ROAD_OP;
const SEND: u8 = ROAD_OP + 1;

pub(crate) struct Job {
    slot: Slot,
    peer: usize,
    step: usize,
    /// Bytes that the send under way must move.
    due: usize,
}

impl Job {
    pub(crate) fn new(relay: &mut Relay, peer: usize, step: usize) -> io::Result<Job> {
        let slot = relay.pool.take().ok_or_else(|| io::Error::other("no block is left: raise --pool"))?;
        Ok(Job { slot, peer, step, due: 0 })
    }

    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }

    pub(crate) fn receive(
        &mut self,
        relay: &Relay,
        core: &mut Core<State>,
        conn: usize,
    ) -> io::Result<Progress> {
        core.recv_slot(conn, RECV, &relay.pool, &self.slot, self.step)?;
        Ok(Progress::Pending)
    }

    pub(crate) fn completed(
        &mut self,
        relay: &Relay,
        core: &mut Core<State>,
        conn: usize,
        op: u8,
        res: i32,
    ) -> io::Result<Progress> {
        match (op, res) {
            (RECV, 0) => Ok(Progress::Ended),
            (RECV, 1..) => {
                self.due = res as usize;
                let what = SendSlot { from: 0, len: self.due, zero_copy: false, more: false };
                core.send_slot(conn, SEND, self.peer, &relay.pool, &self.slot, what)?;
                Ok(Progress::Pending)
            }
            (SEND, n) if n as usize == self.due => self.receive(relay, core, conn),
            _ => Ok(Progress::Broken),
        }
    }
}
