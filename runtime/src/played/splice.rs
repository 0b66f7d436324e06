//! Splices between a played connection and a pipe, which is the kernel's own: on behalf of SQEs, and of calls
//! on the core.

use std::io;
use std::os::fd::BorrowedFd;

use super::network::Found;
use super::ops::{Goes, Op};
use super::sqe::Sqe;
use super::state::State;

/// Bytes that one splice moves, at most.
const MOST: u64 = 64 << 10;

impl State {
    pub(super) fn splice_is_ready(&self, _: Sqe) -> bool {
        // A worker takes it up at some time; what it finds then is its answer.
        true
    }

    pub(super) fn splice(&mut self, op: &mut Op) -> Goes {
        if let Some(result) = op.come_to {
            return self.end(op, result, 0);
        }
        if op.cancelled {
            let errno = self.random.pick(&[libc::ECANCELED, libc::ECANCELED, libc::EINTR, 512]);
            if errno != libc::ECANCELED || self.random.once_in(2) {
                return self.end(op, -errno, 0);
            }
        }
        let moved = match op.conn {
            Some(_) => self.splice_now(op.sqe.splice_from, op.sqe.fd, op.sqe.len.into()),
            None => by_kernel(op.sqe, self.shorter(op.sqe.len as usize)),
        };
        let result = match moved {
            Ok(n) => n as i32,
            Err(e) => -e.raw_os_error().unwrap_or(libc::EIO),
        };
        if self.random.once_in(3) {
            op.come_to = Some(result);
            return Goes::On;
        }
        self.end(op, result, 0)
    }

    /// Moves what it can, without waiting.
    pub(super) fn splice_now(&mut self, from: i32, into: i32, len: u64) -> io::Result<usize> {
        let (source, target) = (self.conn_at(from), self.conn_at(into));
        let len = len.min(MOST);
        let len = if self.random.once_in(3) { self.random.between(1, len) } else { len };
        if self.random.once_in(100) {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        let moved = match (source, target) {
            (Some(conn), None) => self.fill_pipe(conn, into, len),
            (None, Some(conn)) => self.empty_pipe(from, conn, len),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        self.tell(format_args!("splices from {from} into {into}: {moved:?}"));
        moved
    }

    fn fill_pipe(&mut self, at: usize, pipe: i32, len: u64) -> io::Result<usize> {
        match self.conns[at].found() {
            Found::Nothing => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Found::End => Ok(0),
            Found::Error => Err(io::Error::from_raw_os_error(self.conns[at].tell())),
            Found::Bytes(there) => {
                let incoming = self.conns[at].incoming();
                let bytes: Vec<u8> = (0..there.min(len)).map(incoming).collect();
                let n = rustix::io::write(borrowed(pipe), &bytes).map_err(io::Error::from)?;
                self.conns[at].taken += n as u64;
                Ok(n)
            }
        }
    }

    fn empty_pipe(&mut self, pipe: i32, at: usize, len: u64) -> io::Result<usize> {
        if self.conns[at].refuses() {
            return Err(io::Error::from_raw_os_error(self.conns[at].refusal()));
        }
        let len = len.min(self.conns[at].room());
        if len == 0 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let mut bytes = vec![0; len as usize];
        let n = rustix::io::read(borrowed(pipe), &mut bytes[..]).map_err(io::Error::from)?;
        if let Err(wrong) = self.conns[at].send(&bytes[..n]) {
            self.fail(format!("{wrong} (splice)"));
        }
        Ok(n)
    }
}

/// Between a file and a pipe: neither is played.
fn by_kernel(sqe: Sqe, len: usize) -> io::Result<usize> {
    let place = |at: u64| (at != u64::MAX).then_some(at);
    let (mut from_at, mut into_at) = (place(sqe.addr), place(sqe.off));
    let (from, into) = (borrowed(sqe.splice_from), borrowed(sqe.fd));
    let flags = rustix::pipe::SpliceFlags::NONBLOCK;
    rustix::pipe::splice(from, from_at.as_mut(), into, into_at.as_mut(), len, flags).map_err(io::Error::from)
}

fn borrowed<'a>(fd: i32) -> BorrowedFd<'a> {
    // SAFETY: the pipe, or the file, is kept open by the splice that is played.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
