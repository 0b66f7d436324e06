//! Socket to pipe and pipe to socket by splice SQEs, each linked behind a poll so that none holds an io-wq
//! worker.

use super::{Progress, ROAD_OP, State};
use annulus_benches::bare::{Core, Pipe};
use rustix::fd::AsFd;
use std::io;

const WAIT: u8 = ROAD_OP;
const FILL: u8 = ROAD_OP + 1;
const DRAIN: u8 = ROAD_OP + 2;

pub(crate) struct Job {
    pipe: Pipe,
    peer: usize,
    step: usize,
    in_pipe: usize,
}

impl Job {
    pub(crate) fn new(pipe: Pipe, peer: usize, step: usize) -> Job {
        Job { pipe, peer, step, in_pipe: 0 }
    }

    /// The pipe, if the next transfer may use it.
    pub(crate) fn into_empty_pipe(self) -> Option<Pipe> {
        (self.in_pipe == 0).then_some(self.pipe)
    }

    pub(crate) fn fill(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        core.splice_from_readable(conn, (WAIT, FILL), conn, self.pipe.write.as_fd(), self.step)?;
        Ok(Progress::Pending)
    }

    fn drain(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        let pipe = self.pipe.read.as_fd();
        core.splice_to_writable(conn, (WAIT, DRAIN), pipe, self.peer, self.in_pipe, false)?;
        Ok(Progress::Pending)
    }

    pub(crate) fn completed(
        &mut self,
        core: &mut Core<State>,
        conn: usize,
        op: u8,
        res: i32,
    ) -> io::Result<Progress> {
        const AGAIN: i32 = -libc::EAGAIN;
        match (op, res) {
            (WAIT, 0..) => Ok(Progress::Pending),
            (FILL, 0) => Ok(Progress::Ended),
            (FILL, AGAIN) => self.fill(core, conn),
            (FILL, 1..) => {
                self.in_pipe = res as usize;
                self.drain(core, conn)
            }
            (DRAIN, AGAIN | 1..) => {
                self.in_pipe -= res.max(0) as usize;
                if self.in_pipe > 0 { self.drain(core, conn) } else { self.fill(core, conn) }
            }
            _ => Ok(Progress::Broken),
        }
    }
}
