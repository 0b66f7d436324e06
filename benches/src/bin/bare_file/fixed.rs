//! READ_FIXED linked to SEND or SEND_ZC, from registered blocks.

use super::{Job as AnyJob, Progress, ROAD_OP, Server, State};
use annulus_benches::bare::{Core, SendSlot};
use rustix::fd::AsFd;
use std::io;

/// Space before the file's bytes in each block, so that the head leaves in one send with the first of them. A
/// page, so that the file's bytes begin on a page.
pub(crate) const HEAD_ROOM: usize = 4096;

const READ: u8 = ROAD_OP;
/// The last completion of this operation frees the block whose number it carries.
pub(crate) const SEND: u8 = ROAD_OP + 1;

/// One answer on its way.
pub(crate) struct Job {
    step: usize,
    zero_copy: bool,
    offset: u64,
    /// What the read and the send under way must return.
    read: usize,
    send: usize,
    /// No block was free: woken when one is.
    waiting: bool,
}

impl Job {
    pub(crate) fn start(
        server: &mut Server,
        core: &mut Core<State>,
        conn: usize,
        step: usize,
        zero_copy: bool,
    ) -> io::Result<Job> {
        let mut job = Job { step, zero_copy, offset: 0, read: 0, send: 0, waiting: false };
        job.next_step(server, core, conn)?;
        Ok(job)
    }

    fn next_step(&mut self, server: &mut Server, core: &mut Core<State>, conn: usize) -> io::Result<()> {
        let Some(mut slot) = server.pool.take() else {
            self.waiting = true;
            server.waiting.push_back(conn);
            return Ok(());
        };
        self.waiting = false;
        let head = if self.offset == 0 { server.head } else { &[] };
        let from = HEAD_ROOM - head.len();
        server.pool.write(&mut slot, from, head);
        self.read = (self.step as u64).min(server.len - self.offset) as usize;
        self.send = head.len() + self.read;
        let last = self.offset + self.read as u64 == server.len;
        // The notification of a zero-copy send comes with the peer's acknowledgement, which a segment held
        // back for more bytes would delay: with every block out that would be a stall.
        let more = !last && !self.zero_copy;
        let what = SendSlot { from, len: self.send, zero_copy: self.zero_copy, more };
        let file = (server.file.as_fd(), self.offset);
        core.read_then_send(conn, (READ, SEND), (&server.pool, &slot), file, (HEAD_ROOM, self.read), what)?;
        self.offset += self.read as u64;
        let number = usize::from(slot.index());
        server.held[number] = Some(slot);
        Ok(())
    }

    pub(crate) fn completed(
        &mut self,
        server: &mut Server,
        core: &mut Core<State>,
        conn: usize,
        op: u8,
        res: i32,
    ) -> io::Result<Progress> {
        let due = if op == READ { self.read } else { self.send };
        if res < 0 || res as usize != due {
            return Ok(Progress::Broken);
        }
        if op == READ {
            return Ok(Progress::Pending);
        }
        if self.offset == server.len {
            return Ok(Progress::Finished);
        }
        self.next_step(server, core, conn)?;
        Ok(Progress::Pending)
    }
}

/// Goes on with the answer of `conn` if it still waits for a block.
pub(crate) fn wake(server: &mut Server, core: &mut Core<State>, conn: usize) -> io::Result<bool> {
    match core.conn(conn).state.job.take() {
        Some(AnyJob::Fixed(mut job)) if job.waiting => {
            job.next_step(server, core, conn)?;
            core.conn(conn).state.job = Some(AnyJob::Fixed(job));
            Ok(true)
        }
        other => {
            core.conn(conn).state.job = other;
            Ok(false)
        }
    }
}
