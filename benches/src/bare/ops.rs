//! The operations that servers push, each naming only memory that is never unmapped.

use super::blocks::{BlockPool, Slot};
use super::bufring::Block;
use super::core::Core;
use io_uring::{opcode, squeue, types::Fd};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;

/// How a block is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct SendSlot {
    /// Offset of the first byte in the block.
    pub from: usize,
    /// Bytes to send, all of them by one completion.
    pub len: usize,
    /// Without copying; the block must be registered, and is ours again only after the notification.
    pub zero_copy: bool,
    /// More bytes follow at once.
    pub more: bool,
}

fn raw(fd: BorrowedFd<'_>) -> Fd {
    Fd(fd.as_raw_fd())
}

fn poll_entry(fd: Fd, events: i16) -> squeue::Entry {
    opcode::PollAdd::new(fd, events as u16 as u32).build()
}

fn send_entry(fd: Fd, pool: &BlockPool, slot: &Slot, what: SendSlot) -> squeue::Entry {
    let start = pool.ptr_at(slot, what.from, what.len);
    // Without MSG_WAITALL a short send would count as done, and would not break a link.
    let flags = libc::MSG_WAITALL | if what.more { libc::MSG_MORE } else { 0 };
    if what.zero_copy {
        opcode::SendZc::new(fd, start.as_ptr(), what.len as u32)
            .flags(flags)
            .buf_index(Some(slot.index()))
            .build()
    } else {
        opcode::Send::new(fd, start.as_ptr(), what.len as u32).flags(flags).build()
    }
}

/// All return an error only when the ring itself failed; what becomes of the operation comes as
/// [`Event::Done`](super::Event::Done).
impl<S> Core<S> {
    fn fd_of(&mut self, conn: usize) -> Fd {
        Fd(self.conn(conn).fd().as_raw_fd())
    }

    /// Sends bytes that are never changed.
    ///
    /// # Errors
    /// The ring failed.
    pub fn send_static(&mut self, conn: usize, op: u8, bytes: &'static [u8], flags: i32) -> io::Result<()> {
        let fd = self.fd_of(conn);
        let entry = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(flags).build();
        // SAFETY: the bytes are 'static.
        unsafe { self.push_for(conn, 0, [(op, entry)]) }
    }

    /// Sends `from..to` of a received block to `to_conn`. The caller keeps the block until the operation is
    /// done.
    ///
    /// # Errors
    /// The ring failed.
    ///
    /// # Panics
    /// The range is not in the block.
    pub fn send_block(
        &mut self,
        conn: usize,
        op: u8,
        to_conn: usize,
        block: &Block,
        (from, to): (usize, usize),
    ) -> io::Result<()> {
        let fd = self.fd_of(to_conn);
        let start = self.bufs.ptr_at(block, from, to);
        let entry = opcode::Send::new(fd, start.as_ptr(), (to - from) as u32).build();
        // SAFETY: blocks are never unmapped, and `ptr_at` checked the range.
        unsafe { self.push_for(conn, 0, [(op, entry)]) }
    }

    /// Receives once, at most `len` bytes, into a block that the caller keeps until the operation is done.
    ///
    /// # Errors
    /// The ring failed.
    ///
    /// # Panics
    /// `len` is larger than the block.
    pub fn recv_slot(
        &mut self,
        conn: usize,
        op: u8,
        pool: &BlockPool,
        slot: &Slot,
        len: usize,
    ) -> io::Result<()> {
        let fd = self.fd_of(conn);
        let start = pool.ptr_at(slot, 0, len);
        let entry = opcode::Recv::new(fd, start.as_ptr(), len as u32).build();
        // SAFETY: blocks are never unmapped, and `ptr_at` checked the range.
        unsafe { self.push_for(conn, 0, [(op, entry)]) }
    }

    /// Sends from a block that the caller keeps until the operation is done, to `to_conn`.
    ///
    /// # Errors
    /// The ring failed.
    ///
    /// # Panics
    /// The range is not in the block.
    pub fn send_slot(
        &mut self,
        conn: usize,
        op: u8,
        to_conn: usize,
        pool: &BlockPool,
        slot: &Slot,
        what: SendSlot,
    ) -> io::Result<()> {
        let fd = self.fd_of(to_conn);
        let entry = send_entry(fd, pool, slot, what);
        // SAFETY: blocks are never unmapped, and `send_entry` checked the range.
        unsafe { self.push_for(conn, slot.index(), [(op, entry)]) }
    }

    /// Reads `len` bytes of `file` at `offset` into the registered block at `at`, and then, linked, sends
    /// `what` of it to `conn`. Both completions carry the block's number; a short read cancels the send.
    ///
    /// # Errors
    /// The ring failed.
    ///
    /// # Panics
    /// A range is not in the block.
    pub fn read_then_send(
        &mut self,
        conn: usize,
        (read_op, send_op): (u8, u8),
        (pool, slot): (&BlockPool, &Slot),
        (file, offset): (BorrowedFd<'_>, u64),
        (at, len): (usize, usize),
        what: SendSlot,
    ) -> io::Result<()> {
        let fd = self.fd_of(conn);
        let start = pool.ptr_at(slot, at, len);
        let read = opcode::ReadFixed::new(raw(file), start.as_ptr(), len as u32, slot.index()).offset(offset);
        let read = read.build().flags(squeue::Flags::IO_LINK);
        let send = send_entry(fd, pool, slot, what);
        // SAFETY: blocks are never unmapped, and `ptr_at` and `send_entry` checked the ranges.
        unsafe { self.push_for(conn, slot.index(), [(read_op, read), (send_op, send)]) }
    }

    /// Waits until the socket of `on` has one of `events` (POLLIN, POLLOUT).
    ///
    /// # Errors
    /// The ring failed.
    pub fn poll(&mut self, conn: usize, op: u8, on: usize, events: i16) -> io::Result<()> {
        let entry = poll_entry(self.fd_of(on), events);
        // SAFETY: a poll names no memory.
        unsafe { self.push_for(conn, 0, [(op, entry)]) }
    }

    /// Splices from a file at an offset into a pipe, on an io-wq worker.
    ///
    /// # Errors
    /// The ring failed.
    pub fn splice_file(
        &mut self,
        conn: usize,
        op: u8,
        (file, offset): (BorrowedFd<'_>, u64),
        pipe: BorrowedFd<'_>,
        len: usize,
    ) -> io::Result<()> {
        let entry = opcode::Splice::new(raw(file), offset as i64, raw(pipe), -1, len as u32)
            .flags(libc::SPLICE_F_NONBLOCK)
            .build();
        // SAFETY: a splice names no memory.
        unsafe { self.push_for(conn, 0, [(op, entry)]) }
    }

    /// Waits until the socket of `to` takes bytes and then, linked, splices out of a pipe into it on an io-wq
    /// worker, which so never blocks. `more` says that more bytes follow at once.
    ///
    /// # Errors
    /// The ring failed.
    pub fn splice_to_writable(
        &mut self,
        conn: usize,
        (poll_op, splice_op): (u8, u8),
        pipe: BorrowedFd<'_>,
        to: usize,
        len: usize,
        more: bool,
    ) -> io::Result<()> {
        let socket = self.fd_of(to);
        let flags = libc::SPLICE_F_NONBLOCK | if more { libc::SPLICE_F_MORE } else { 0 };
        let poll = poll_entry(socket, libc::POLLOUT).flags(squeue::Flags::IO_LINK);
        let splice = opcode::Splice::new(raw(pipe), -1, socket, -1, len as u32).flags(flags).build();
        // SAFETY: polls and splices name no memory.
        unsafe { self.push_for(conn, 0, [(poll_op, poll), (splice_op, splice)]) }
    }

    /// Waits until the socket of `from` has bytes or has ended and then, linked, splices into a pipe on an
    /// io-wq worker, which so never blocks.
    ///
    /// # Errors
    /// The ring failed.
    pub fn splice_from_readable(
        &mut self,
        conn: usize,
        (poll_op, splice_op): (u8, u8),
        from: usize,
        pipe: BorrowedFd<'_>,
        len: usize,
    ) -> io::Result<()> {
        let socket = self.fd_of(from);
        let poll = poll_entry(socket, libc::POLLIN).flags(squeue::Flags::IO_LINK);
        let splice =
            opcode::Splice::new(socket, -1, raw(pipe), -1, len as u32).flags(libc::SPLICE_F_NONBLOCK).build();
        // SAFETY: polls and splices name no memory.
        unsafe { self.push_for(conn, 0, [(poll_op, poll), (splice_op, splice)]) }
    }
}
