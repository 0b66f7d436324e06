//! Multishot receive from the buffer ring, each block sent from where it lies: the road for small messages.

use super::{Progress, ROAD_OP, State};
use annulus_benches::bare::{Block, Core};
use std::collections::VecDeque;
use std::io;

const SEND: u8 = ROAD_OP;

pub(crate) struct Job {
    peer: usize,
    /// Blocks to send, with the bytes of each that are still to leave. The kernel has the first in hand if
    /// `sending`.
    queue: VecDeque<(Block, usize, usize)>,
    sending: bool,
    eof: bool,
}

impl Job {
    pub(crate) fn new(peer: usize) -> Job {
        Job { peer, queue: VecDeque::new(), sending: false, eof: false }
    }

    pub(crate) fn came(
        &mut self,
        core: &mut Core<State>,
        conn: usize,
        block: Block,
        len: usize,
    ) -> io::Result<Progress> {
        self.queue.push_back((block, 0, len));
        self.send(core, conn)
    }

    pub(crate) fn no_more(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        self.eof = true;
        self.send(core, conn)
    }

    pub(crate) fn sent(&mut self, core: &mut Core<State>, conn: usize, res: i32) -> io::Result<Progress> {
        self.sending = false;
        if res < 0 {
            return Ok(Progress::Broken);
        }
        if let Some((_, from, to)) = self.queue.front_mut() {
            *from += res as usize;
            if from == to
                && let Some((block, ..)) = self.queue.pop_front()
            {
                core.give_back(block)?;
            }
        }
        self.send(core, conn)
    }

    fn send(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        if self.sending || !core.open(conn) {
            return Ok(Progress::Pending);
        }
        match self.queue.front() {
            Some((block, from, to)) => {
                self.sending = true;
                core.send_block(conn, SEND, self.peer, block, (*from, *to))?;
                Ok(Progress::Pending)
            }
            None if self.eof => Ok(Progress::Ended),
            None => Ok(Progress::Pending),
        }
    }

    /// Gives back the blocks of a direction that was broken off.
    pub(crate) fn give_back(self, core: &mut Core<State>) -> io::Result<()> {
        for (block, ..) in self.queue {
            core.give_back(block)?;
        }
        Ok(())
    }
}
