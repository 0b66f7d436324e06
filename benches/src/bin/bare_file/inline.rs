//! The roads that move bytes by system calls from the loop: pread + send, sendfile, splice. The ring is only
//! asked when a full socket can take bytes again.

use super::{Progress, Server, State, WRITABLE};
use annulus_benches::bare::{Core, FileRoad, Pipe};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{SpliceFlags, splice};
use std::io;

/// Bytes that one connection may move before the others get their turn. nginx's `sendfile_max_chunk` is the
/// same.
const SHARE: u64 = 2 << 20;

/// One answer on its way.
pub(crate) struct Job {
    /// What of the head has not left.
    head: &'static [u8],
    /// The next byte of the file to fetch.
    offset: u64,
    /// For the splice road.
    pipe: Option<Pipe>,
    in_pipe: usize,
    /// For the read road: bytes fetched, and from where they have not left.
    buffer: Vec<u8>,
    sent: usize,
}

/// Whether there is more to do, or the socket is full.
enum Step {
    Again,
    Full,
}

impl Job {
    pub(crate) fn new(server: &mut Server) -> io::Result<Job> {
        let pipe = match server.road {
            FileRoad::InlineSplice(_) => Some(server.pipes.take()?),
            _ => None,
        };
        Ok(Job { head: server.head, offset: 0, pipe, in_pipe: 0, buffer: Vec::new(), sent: 0 })
    }

    /// The pipe, which is empty once the answer is finished.
    pub(crate) fn into_pipe(self) -> Option<Pipe> {
        self.pipe
    }

    /// Moves bytes until the answer is finished, the socket is full or the share of this turn is used up.
    pub(crate) fn go_on(
        &mut self,
        server: &mut Server,
        core: &mut Core<State>,
        conn: usize,
    ) -> io::Result<Progress> {
        let begun = self.offset;
        loop {
            let socket = core.conn(conn).fd();
            match self.step(server, socket) {
                Ok(Step::Again) => {}
                Ok(Step::Full) => {
                    core.poll(conn, WRITABLE, conn, libc::POLLOUT)?;
                    return Ok(Progress::Pending);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Progress::Broken),
                Err(e) => {
                    eprintln!("{} on connection {conn}: {e}", server.road);
                    return Ok(Progress::Broken);
                }
            }
            if self.finished(server) {
                return Ok(Progress::Finished);
            }
            if self.offset - begun >= SHARE {
                server.ready.push_back(conn);
                return Ok(Progress::Pending);
            }
        }
    }

    fn finished(&self, server: &Server) -> bool {
        self.head.is_empty()
            && self.offset == server.len
            && self.in_pipe == 0
            && self.sent == self.buffer.len()
    }

    fn step(&mut self, server: &Server, socket: BorrowedFd<'_>) -> Result<Step, Errno> {
        let rest = server.len - self.offset;
        let at_most = |step: usize| (step as u64).min(rest) as usize;
        match server.road {
            FileRoad::ReadSend(step) => self.read_send(server, socket, at_most(step)),
            FileRoad::Sendfile(step) => self.sendfile(server, socket, at_most(step.unwrap_or(1 << 30))),
            FileRoad::InlineSplice(step) => self.splice(server, socket, at_most(step)),
            _ => unreachable!("a ring road has no inline job"),
        }
    }

    /// The head goes out with the first bytes in one send.
    fn read_send(&mut self, server: &Server, socket: BorrowedFd<'_>, step: usize) -> Result<Step, Errno> {
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.buffer.extend_from_slice(self.head);
            let head = self.head.len();
            self.head = &[];
            self.buffer.resize(head + step, 0);
            let n = rustix::io::pread(&server.file, &mut self.buffer[head..], self.offset)?;
            enough(n)?;
            self.buffer.truncate(head + n);
            self.offset += n as u64;
            self.sent = 0;
        }
        let flags = if self.offset < server.len { SendFlags::MORE } else { SendFlags::empty() };
        let unsent = &self.buffer[self.sent..];
        Ok(match full_or(send(socket, unsent, flags | SendFlags::NOSIGNAL))? {
            Some(n) => {
                self.sent += n;
                Step::Again
            }
            None => Step::Full,
        })
    }

    fn sendfile(&mut self, server: &Server, socket: BorrowedFd<'_>, step: usize) -> Result<Step, Errno> {
        if !self.head.is_empty() {
            return self.send_head(socket);
        }
        let sent = rustix::fs::sendfile(socket, &server.file, Some(&mut self.offset), step);
        Ok(match full_or(sent)? {
            Some(n) => {
                enough(n)?;
                Step::Again
            }
            None => Step::Full,
        })
    }

    fn splice(&mut self, server: &Server, socket: BorrowedFd<'_>, step: usize) -> Result<Step, Errno> {
        if !self.head.is_empty() {
            return self.send_head(socket);
        }
        let Some(pipe) = &self.pipe else { return Err(Errno::BADF) };
        if self.in_pipe == 0 {
            let offset = Some(&mut self.offset);
            self.in_pipe = splice(&server.file, offset, &pipe.write, None, step, SpliceFlags::NONBLOCK)?;
            enough(self.in_pipe)?;
        }
        let more = if self.offset < server.len { SpliceFlags::MORE } else { SpliceFlags::empty() };
        let moved = splice(&pipe.read, None, socket, None, self.in_pipe, SpliceFlags::NONBLOCK | more);
        Ok(match full_or(moved)? {
            Some(n) => {
                self.in_pipe -= n;
                Step::Again
            }
            None => Step::Full,
        })
    }

    /// With MSG_MORE, so that the head leaves in one segment with the first bytes of the file.
    fn send_head(&mut self, socket: BorrowedFd<'_>) -> Result<Step, Errno> {
        Ok(match full_or(send(socket, self.head, SendFlags::MORE | SendFlags::NOSIGNAL))? {
            Some(n) => {
                self.head = &self.head[n..];
                Step::Again
            }
            None => Step::Full,
        })
    }
}

/// `None` when the socket is full.
fn full_or(result: Result<usize, Errno>) -> Result<Option<usize>, Errno> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file that ends before its length says so was cut while it was served.
fn enough(n: usize) -> Result<(), Errno> {
    if n == 0 { Err(Errno::IO) } else { Ok(()) }
}
