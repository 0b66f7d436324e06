//! System calls that bypass the ring.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::Simulation;
use super::network::Found;
use crate::net::played::PlayedCalls;

impl PlayedCalls for Simulation {
    fn shutdown(&self, fd: RawFd, how: Shutdown) -> Option<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        let at = state.conn_at(fd)?;
        let conn = &mut state.conns[at];
        conn.shut_read |= how != Shutdown::Write;
        conn.shut_write |= how != Shutdown::Read;
        state.tell(format_args!("shutdown of connection {at}: {how:?}"));
        Some(Ok(()))
    }

    fn disconnect(&self, fd: RawFd) -> Option<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        let at = state.conn_at(fd)?;
        state.conns[at].reset(None);
        state.tell(format_args!("connection {at} is reset by us"));
        Some(Ok(()))
    }

    fn recv(&self, fd: RawFd, most: usize) -> Option<io::Result<Vec<u8>>> {
        let mut state = self.state.borrow_mut();
        let at = state.conn_at(fd)?;
        let conn = &mut state.conns[at];
        let received = match conn.found() {
            Found::Nothing => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Found::End => Ok(Vec::new()),
            Found::Error => Err(io::Error::from_raw_os_error(conn.tell())),
            Found::Bytes(there) => {
                let n = there.min(most as u64);
                let came: Vec<u8> = (0..n).map(conn.incoming()).collect();
                conn.taken += n;
                Ok(came)
            }
        };
        state.tell(format_args!("recv(2) on connection {at}: {:?}", received.as_ref().map(Vec::len)));
        Some(received)
    }

    fn send(&self, fd: RawFd, bytes: &[u8]) -> Option<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let at = state.conn_at(fd)?;
        let conn = &mut state.conns[at];
        if conn.refuses() {
            return Some(Err(io::Error::from_raw_os_error(conn.refusal())));
        }
        let n = (bytes.len() as u64).min(conn.room()) as usize;
        if n == 0 {
            return Some(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        let sent = conn.send(&bytes[..n]);
        if let Err(wrong) = sent {
            state.fail(format!("{wrong} (send(2))"));
        }
        Some(Ok(n))
    }

    fn is_gone(&self, fd: RawFd) -> Option<bool> {
        let state = self.state.borrow();
        let at = state.conn_at(fd)?;
        Some(state.conns[at].gone)
    }

    fn fin_has_come(&self, fd: RawFd) -> Option<Option<bool>> {
        let state = self.state.borrow();
        let conn = &state.conns[state.conn_at(fd)?];
        Some(conn.gone.then_some(conn.fin))
    }

    fn read_now(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        into: &mut [MaybeUninit<u8>],
    ) -> Option<io::Result<Option<usize>>> {
        let bytes =
            self.state.borrow_mut().in_memory(file.as_raw_fd(), offset).min(into.len() as u64) as usize;
        if bytes == 0 {
            return Some(Ok(None));
        }
        let read = rustix::io::pread(file, &mut into[..bytes], offset);
        Some(read.map(|(read, _)| Some(read.len())).map_err(io::Error::from))
    }

    fn send_file(&self, into: RawFd, file: BorrowedFd<'_>, at: u64, len: usize) -> Option<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let to = state.conn_at(into)?;
        let (conn, most) = (&mut state.conns[to], 64 << 10);
        if conn.refuses() {
            return Some(Err(io::Error::from_raw_os_error(conn.refusal())));
        }
        let mut bytes = vec![0; len.min(conn.room().min(most) as usize)];
        if bytes.is_empty() {
            return Some(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        let n = match rustix::io::pread(file, &mut bytes[..], at) {
            Ok(n) => n,
            Err(e) => return Some(Err(e.into())),
        };
        if let Err(wrong) = conn.send(&bytes[..n]) {
            state.fail(format!("{wrong} (sendfile)"));
        }
        state.tell(format_args!("sendfile(2) into connection {to}: {n} of {len}"));
        Some(Ok(n))
    }

    fn splice(&self, from: RawFd, into: RawFd, len: usize) -> Option<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.conn_at(from).is_none() && state.conn_at(into).is_none() {
            return None;
        }
        Some(state.splice_now(from, into, len as u64))
    }
}
