//! A second mapping of a ring's memory, only to ask on which node its pages lie.
//!
//! The crate does not show the addresses of its own mappings. A ring's descriptor may be mapped any number of
//! times, and every mapping shows the same pages. `io_uring_setup(2)`.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::contained::told;
use crate::error::os;

/// `IORING_OFF_SQ_RING` and `IORING_OFF_SQES` of linux/io_uring.h.
const RINGS: u64 = 0;
const SQES: u64 = 0x1000_0000;
const SQE_SIZE: usize = 64;
const CQE_SIZE: usize = 16;
const PAGE: usize = 4096;

/// One mapping. It is never read or written.
pub(super) struct View {
    start: *mut std::ffi::c_void,
    len: usize,
}

impl View {
    /// The heads, tails and completions of both queues. The kernel refuses a length beyond its own.
    /// Completions fill whole pages (from 256 entries on), and the fields before them take less than one.
    pub(super) fn of_queues(fd: BorrowedFd<'_>, cq_entries: u32) -> io::Result<Self> {
        Self::map(fd, RINGS, cq_entries as usize * CQE_SIZE + 1)
    }

    /// The submissions.
    pub(super) fn of_submissions(fd: BorrowedFd<'_>, sq_entries: u32) -> io::Result<Self> {
        Self::map(fd, SQES, sq_entries as usize * SQE_SIZE)
    }

    fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(PAGE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd,
                offset,
            )
        };
        let view = Self { start: start.map_err(os)?, len };
        // SAFETY: the advice keeps our own mapping out of children and changes nothing in this process.
        unsafe { madvise(view.start, view.len, Advice::LinuxDontFork) }.map_err(os)?;
        Ok(view)
    }

    /// Its addresses.
    pub(super) fn addresses(&self) -> Range<usize> {
        self.start.addr()..self.start.addr() + self.len
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, nobody has a reference into it, and it is unmapped once.
        if let Err(e) = unsafe { munmap(self.start, self.len) } {
            told(|| tracing::warn!("cannot unmap the view of a ring: {e}"));
        }
    }
}
