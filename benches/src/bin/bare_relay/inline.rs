//! splice(2) from the loop: socket to pipe, pipe to socket, until one of the two would block; then a ring
//! poll.

use super::{Progress, ROAD_OP, Relay, State};
use annulus_benches::bare::{Core, Pipe};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use std::io;

const POLL: u8 = ROAD_OP;

/// Bytes that one direction may move before the others get their turn.
const SHARE: usize = 2 << 20;

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

    pub(crate) fn go_on(
        &mut self,
        relay: &mut Relay,
        core: &mut Core<State>,
        conn: usize,
    ) -> io::Result<Progress> {
        const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK;
        let mut moved = 0;
        while moved < SHARE {
            // The socket is only read into an empty pipe, so that EAGAIN can only mean that the socket is
            // empty.
            if self.in_pipe == 0 {
                let from = core.conn(conn).fd();
                match splice(from, None, &self.pipe.write, None, self.step, FLAGS) {
                    Ok(0) => return Ok(Progress::Ended),
                    Ok(n) => self.in_pipe = n,
                    Err(Errno::AGAIN) => {
                        core.poll(conn, POLL, conn, libc::POLLIN)?;
                        return Ok(Progress::Pending);
                    }
                    Err(e) => return Ok(broken(relay, e)),
                }
            }
            let to = core.conn(self.peer).fd();
            match splice(&self.pipe.read, None, to, None, self.in_pipe, FLAGS) {
                Ok(n) => {
                    self.in_pipe -= n;
                    moved += n;
                }
                Err(Errno::AGAIN) => {
                    core.poll(conn, POLL, self.peer, libc::POLLOUT)?;
                    return Ok(Progress::Pending);
                }
                Err(e) => return Ok(broken(relay, e)),
            }
        }
        relay.ready.push_back(conn);
        Ok(Progress::Pending)
    }
}

fn broken(relay: &Relay, error: Errno) -> Progress {
    if !matches!(error, Errno::PIPE | Errno::CONNRESET) {
        eprintln!("{}: {error}", relay.road);
    }
    Progress::Broken
}
