//! An SQE, taken apart (`struct io_uring_sqe`, linux/io_uring.h).

use io_uring::squeue;

use crate::ring::user_data::Tag;

/// Opcodes (`enum io_uring_op`).
pub(super) mod code {
    pub(crate) const NOP: u8 = 0;
    pub(crate) const WRITEV: u8 = 2;
    pub(crate) const FSYNC: u8 = 3;
    pub(crate) const POLL_ADD: u8 = 6;
    pub(crate) const SENDMSG: u8 = 9;
    pub(crate) const RECVMSG: u8 = 10;
    pub(crate) const ACCEPT: u8 = 13;
    pub(crate) const ASYNC_CANCEL: u8 = 14;
    pub(crate) const CONNECT: u8 = 16;
    pub(crate) const FALLOCATE: u8 = 17;
    pub(crate) const CLOSE: u8 = 19;
    pub(crate) const STATX: u8 = 21;
    pub(crate) const READ: u8 = 22;
    pub(crate) const WRITE: u8 = 23;
    pub(crate) const FADVISE: u8 = 24;
    pub(crate) const SEND: u8 = 26;
    pub(crate) const RECV: u8 = 27;
    pub(crate) const OPENAT2: u8 = 28;
    pub(crate) const SPLICE: u8 = 30;
    pub(crate) const RENAMEAT: u8 = 35;
    pub(crate) const UNLINKAT: u8 = 36;
    pub(crate) const MKDIRAT: u8 = 37;
    pub(crate) const SEND_ZC: u8 = 47;
    pub(crate) const FTRUNCATE: u8 = 55;
}

/// `IOSQE_IO_LINK` and `IOSQE_CQE_SKIP_SUCCESS`.
const LINK: u8 = 1 << 2;
const SKIP_SUCCESS: u8 = 1 << 6;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sqe {
    pub(super) opcode: u8,
    flags: u8,
    pub(super) ioprio: u16,
    pub(super) fd: i32,
    /// An offset, or a second address.
    pub(super) off: u64,
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    /// The other end of a splice, or the most bytes of a receive.
    pub(super) splice_from: i32,
}

impl Sqe {
    pub(super) fn of(entry: &squeue::Entry) -> Self {
        // SAFETY: an entry is the kernel's structure of 64 bytes, integers without padding.
        let raw: [u8; 64] = unsafe { std::mem::transmute(entry.clone()) };
        let u16_at = |at: usize| u16::from_ne_bytes([raw[at], raw[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            opcode: raw[0],
            flags: raw[1],
            ioprio: u16_at(2),
            fd: u32_at(4) as i32,
            off: u64_at(8),
            addr: u64_at(16),
            len: u32_at(24),
            op_flags: u32_at(28),
            user_data: u64_at(32),
            splice_from: u32_at(44) as i32,
        }
    }

    /// The next SQE begins when this one has succeeded.
    pub(super) fn is_linked(self) -> bool {
        self.flags & LINK != 0
    }

    /// It posts no CQE when it succeeds.
    pub(super) fn skips_success(self) -> bool {
        self.flags & SKIP_SUCCESS != 0
    }

    /// The key of the operation that it belongs to, if it belongs to one.
    pub(super) fn key(self) -> Option<u64> {
        key_of(self.user_data)
    }

    pub(super) fn name(self) -> &'static str {
        match self.opcode {
            code::NOP => "nop",
            code::WRITEV => "writev",
            code::FSYNC => "fsync",
            code::POLL_ADD => "poll",
            code::SENDMSG => "sendmsg",
            code::RECVMSG => "recvmsg",
            code::ACCEPT => "accept",
            code::ASYNC_CANCEL => "cancel",
            code::CONNECT => "connect",
            code::FALLOCATE => "fallocate",
            code::CLOSE => "close",
            code::STATX => "statx",
            code::READ => "read",
            code::WRITE => "write",
            code::FADVISE => "fadvise",
            code::SEND => "send",
            code::RECV => "recv",
            code::OPENAT2 => "openat2",
            code::SPLICE => "splice",
            code::RENAMEAT => "renameat",
            code::UNLINKAT => "unlinkat",
            code::MKDIRAT => "mkdirat",
            code::SEND_ZC => "send_zc",
            code::FTRUNCATE => "ftruncate",
            _ => "?",
        }
    }
}

/// The key of an operation of the table that a `user_data` speaks of.
pub(super) fn key_of(user_data: u64) -> Option<u64> {
    match Tag::split(user_data) {
        Some((Tag::Op | Tag::LinkHead, bits)) => Some(bits),
        _ => None,
    }
}
