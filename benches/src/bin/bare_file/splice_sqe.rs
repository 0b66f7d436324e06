//! File to pipe and pipe to socket by splice SQEs. The kernel runs each on an io-wq worker; the second is
//! linked behind a poll, so that a full socket is waited for in the ring and never holds a worker.

use super::{Progress, ROAD_OP, Server, State};
use annulus_benches::bare::{Core, Pipe};
use rustix::fd::AsFd;
use std::io;

const HEAD: u8 = ROAD_OP;
const FILL: u8 = ROAD_OP + 1;
const WAIT: u8 = ROAD_OP + 2;
const DRAIN: u8 = ROAD_OP + 3;

/// One answer on its way.
pub(crate) struct Job {
    pipe: Pipe,
    step: usize,
    offset: u64,
    in_pipe: usize,
    /// Operations the kernel has in hand for this answer.
    pending: u8,
}

impl Job {
    pub(crate) fn start(
        server: &mut Server,
        core: &mut Core<State>,
        conn: usize,
        step: usize,
    ) -> io::Result<Job> {
        let mut job = Job { pipe: server.pipes.take()?, step, offset: 0, in_pipe: 0, pending: 1 };
        // The two do not wait for each other: the head is on its way while a worker fills the pipe.
        core.send_static(conn, HEAD, server.head, libc::MSG_MORE | libc::MSG_WAITALL)?;
        job.fill(server, core, conn)?;
        Ok(job)
    }

    /// The pipe, which is empty once the answer is finished.
    pub(crate) fn into_pipe(self) -> Pipe {
        self.pipe
    }

    pub(crate) fn completed(
        &mut self,
        server: &mut Server,
        core: &mut Core<State>,
        conn: usize,
        op: u8,
        res: i32,
    ) -> io::Result<Progress> {
        self.pending -= 1;
        let well = match op {
            HEAD => res as usize == server.head.len(),
            FILL => {
                self.in_pipe = res.max(0) as usize;
                self.offset += self.in_pipe as u64;
                res > 0
            }
            WAIT => res >= 0,
            DRAIN => {
                self.in_pipe -= res.max(0) as usize;
                res > 0 || res == -libc::EAGAIN
            }
            _ => false,
        };
        if !well {
            return Ok(Progress::Broken);
        }
        if self.pending > 0 {
            return Ok(Progress::Pending);
        }
        if self.in_pipe > 0 {
            self.drain(server, core, conn)?;
        } else if self.offset < server.len {
            self.fill(server, core, conn)?;
        } else {
            return Ok(Progress::Finished);
        }
        Ok(Progress::Pending)
    }

    fn fill(&mut self, server: &Server, core: &mut Core<State>, conn: usize) -> io::Result<()> {
        self.pending += 1;
        let len = (self.step as u64).min(server.len - self.offset) as usize;
        core.splice_file(conn, FILL, (server.file.as_fd(), self.offset), self.pipe.write.as_fd(), len)
    }

    fn drain(&mut self, server: &Server, core: &mut Core<State>, conn: usize) -> io::Result<()> {
        self.pending += 2;
        let more = self.offset < server.len;
        core.splice_to_writable(conn, (WAIT, DRAIN), self.pipe.read.as_fd(), conn, self.in_pipe, more)
    }
}
