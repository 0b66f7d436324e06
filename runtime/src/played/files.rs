//! Operations on files: the kernel's own calls, made when the play says so, often late, and for fewer bytes
//! than were asked for. And polls of descriptors that nobody plays.

use std::os::fd::{BorrowedFd, RawFd};

use super::network::inode;
use super::ops::{Goes, Op};
use super::sqe::{Sqe, code};
use super::state::State;

/// `IORING_FSYNC_DATASYNC` in an fsync's flags.
const DATASYNC: u32 = 1 << 0;

/// A descriptor that an open gave to the core, and the file behind it.
pub(super) struct Opened {
    fd: RawFd,
    inode: u64,
}

impl Opened {
    /// Whether the core has left it open: its number, where it still stands for the same file.
    pub(super) fn left_open(&self) -> Option<RawFd> {
        (inode(self.fd) == Some(self.inode)).then_some(self.fd)
    }
}

/// Whether an operation is one on files.
pub(super) fn is_of_files(opcode: u8) -> bool {
    use code::*;
    let all = [
        READ, WRITE, WRITEV, FSYNC, FALLOCATE, STATX, OPENAT2, RENAMEAT, UNLINKAT, MKDIRAT, FTRUNCATE,
        FADVISE,
    ];
    all.contains(&opcode)
}

impl State {
    /// A worker takes an operation on a file up, and does it to its end. One that is cancelled may have been
    /// taken up before.
    pub(super) fn file(&mut self, op: &Op) -> Goes {
        if op.cancelled && self.random.once_in(2) {
            return self.end(op, -libc::ECANCELED, 0);
        }
        let moves = matches!(op.sqe.opcode, code::READ | code::WRITE | code::WRITEV);
        if moves && self.random.once_in(40) {
            return self.end(op, -libc::EINTR, 0);
        }
        if op.sqe.opcode == code::OPENAT2 && self.random.once_in(40) {
            return self.end(op, -libc::EMFILE, 0);
        }
        let result = self.call(op.sqe);
        if op.sqe.opcode == code::READ
            && let Some(inode) = inode(op.sqe.fd)
        {
            self.cached.insert(inode, u64::MAX);
        }
        if op.sqe.opcode == code::OPENAT2
            && let Some(inode) = inode(result)
        {
            self.opened.push(Opened { fd: result, inode });
        }
        self.end(op, result, 0)
    }

    /// A few bytes less, now and then.
    pub(super) fn shorter(&self, len: usize) -> usize {
        if len > 1 && self.random.once_in(3) { self.random.between(1, len as u64) as usize } else { len }
    }

    /// Bytes of a file from an offset on that are in memory: all, or its beginning only, until it is read by
    /// the ring.
    pub(super) fn in_memory(&mut self, fd: RawFd, offset: u64) -> u64 {
        let Some(inode) = inode(fd) else { return 0 };
        let random = &self.random;
        let drawn = || if random.once_in(3) { random.below(14_000) } else { u64::MAX };
        self.cached.entry(inode).or_insert_with(drawn).saturating_sub(offset)
    }

    fn call(&self, sqe: Sqe) -> i32 {
        let (fd, len, at) = (sqe.fd, sqe.len as usize, sqe.off as i64);
        let (path, other) = (sqe.addr as *const libc::c_char, sqe.off as *const libc::c_char);
        // SAFETY: whoever pushed the SQE keeps what it points to until the last CQE, as for sends
        // (`Op::bytes`), and the descriptor open.
        let result = unsafe {
            match sqe.opcode {
                code::READ => libc::pread(fd, sqe.addr as *mut libc::c_void, self.shorter(len), at) as i64,
                code::WRITE => {
                    libc::pwrite(fd, sqe.addr as *const libc::c_void, self.shorter(len), at) as i64
                }
                code::WRITEV => self.write_vectors(sqe),
                code::FSYNC if sqe.op_flags & DATASYNC != 0 => libc::fdatasync(fd).into(),
                code::FSYNC => libc::fsync(fd).into(),
                code::FALLOCATE => libc::fallocate(fd, sqe.len as i32, at, sqe.addr as i64).into(),
                code::FADVISE => 0,
                code::FTRUNCATE => libc::ftruncate(fd, at).into(),
                code::STATX => {
                    libc::statx(fd, path, sqe.op_flags as i32, sqe.len, sqe.off as *mut libc::statx).into()
                }
                code::OPENAT2 => libc::syscall(libc::SYS_openat2, fd, path, other, len),
                code::RENAMEAT => {
                    libc::syscall(libc::SYS_renameat2, fd, path, sqe.len as i32, other, sqe.op_flags)
                }
                code::UNLINKAT => libc::unlinkat(fd, path, sqe.op_flags as i32).into(),
                code::MKDIRAT => libc::mkdirat(fd, path, sqe.len).into(),
                _ => unreachable!("not on a file"),
            }
        };
        if result < 0 {
            -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
        } else {
            result as i32
        }
    }

    /// Some of the vectors, and the last of them in part.
    ///
    /// # Safety
    /// The SQE points to its vectors, and those to bytes.
    unsafe fn write_vectors(&self, sqe: Sqe) -> i64 {
        // SAFETY: the caller's promise.
        let vectors = unsafe { std::slice::from_raw_parts(sqe.addr as *const libc::iovec, sqe.len as usize) };
        let mut some = vectors[..self.shorter(vectors.len())].to_vec();
        if let Some(last) = some.last_mut() {
            last.iov_len = self.shorter(last.iov_len);
        }
        // SAFETY: the caller's promise.
        unsafe { libc::pwritev(sqe.fd, some.as_ptr(), some.len() as i32, sqe.off as i64) as i64 }
    }
}

/// What poll(2) says of a descriptor that nobody plays.
pub(super) fn ready_events(fd: RawFd, mask: u32) -> u32 {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if inode(fd).is_none() {
        return libc::POLLNVAL as u32;
    }
    // SAFETY: whoever asked for the poll keeps the descriptor open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut polled = [PollFd::new(&fd, PollFlags::from_bits_truncate(mask as u16))];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(1..) => polled[0].revents().bits().into(),
        _ => 0,
    }
}
