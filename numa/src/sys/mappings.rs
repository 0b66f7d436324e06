//! Mappings: made, filled, protected, given back.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use libc::c_int;

use super::check;

/// A fresh private mapping of zeroes, with the calling thread's policy.
pub(crate) fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// A fresh private mapping of reserved huge pages of 2 MiB, with the calling thread's policy (MAP_HUGETLB).
/// `len` is a multiple of 2 MiB. The error is ENOMEM when the machine has not so many free.
pub(crate) fn map_huge(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// Asks for huge pages or against them (MADV_HUGEPAGE, MADV_NOHUGEPAGE). It changes no byte.
pub(crate) fn advise(range: Range<usize>, advice: c_int) -> io::Result<()> {
    assert!(matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE));
    // SAFETY: the two pieces of advice allowed above change the size of pages, not what they hold.
    check(unsafe { libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), advice) }.into())
        .map(drop)
}

/// Makes a mapping read-only and moves it over another of the same length, which is unmapped by that
/// (mprotect(2), mremap(2)). A reader sees either the one or the other, never a gap: the kernel does it under
/// the lock that page faults take.
///
/// The kernel unmaps what is there before it moves, and can run out of memory in between (mm/mremap.c,
/// `mremap_to`). Then nothing is mapped there any more, and this function ends the process.
///
/// # Safety
/// `fresh` is a private anonymous mapping of `range.len()` bytes that nobody else uses. `range` is pages of a
/// mapping that nobody can write to, and `fresh` holds the same bytes. No other thread maps, unmaps or
/// protects anything in `range` meanwhile.
pub(crate) unsafe fn put_in_place(fresh: NonNull<u8>, range: Range<usize>) -> io::Result<()> {
    // SAFETY: the caller owns `fresh`, and what is replaced held the same bytes under the same rights, so no
    // reference notices.
    unsafe {
        check(libc::mprotect(fresh.as_ptr().cast(), range.len(), libc::PROT_READ).into())?;
        let at = std::ptr::without_provenance_mut::<c_void>(range.start);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // The text is copied before the move, because the constants may be gone when it is needed.
        let last_words = Vec::from(b"annulus: out of memory while the program's constants were moved\n");
        if libc::mremap(fresh.as_ptr().cast(), range.len(), range.len(), flags, at) == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            if !is_mapped(range) {
                libc::write(libc::STDERR_FILENO, last_words.as_ptr().cast(), last_words.len());
                libc::abort();
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Whether all pages of a range are mapped, whatever they hold (mincore(2)).
pub(crate) fn is_mapped(range: Range<usize>) -> bool {
    let mut resident = vec![0; range.len().div_ceil(4096)];
    // SAFETY: a byte is written for each page of the range, whose pages are at least that large.
    let failed = unsafe {
        libc::mincore(std::ptr::without_provenance_mut(range.start), range.len(), resident.as_mut_ptr())
    };
    failed == 0
}

/// Writes memory to a descriptor without reading it here, and returns how much was written. The error is
/// EFAULT where nothing is mapped (write(2)). It does not use the C library's function, because the address
/// sanitizer forbids that one to read between variables.
pub(crate) fn write_from(to: impl AsFd, range: Range<usize>) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel checks the addresses that it reads; nothing of ours is written.
        let rc = unsafe { libc::syscall(libc::SYS_write, to.as_fd().as_raw_fd(), range.start, range.len()) };
        match check(rc) {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            other => return other.map(|n| n as usize),
        }
    }
}

/// Unmaps pages.
///
/// # Safety
/// The range is pages of one mapping of the caller's, and nobody uses them any more.
pub(crate) unsafe fn unmap(range: Range<usize>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    // SAFETY: the caller promises that the range is its own and unused.
    check(unsafe { libc::munmap(std::ptr::without_provenance_mut(range.start), range.len()) }.into())
        .map(drop)
}

/// Makes pages inaccessible and gives their memory back.
///
/// # Safety
/// The range is pages of a private anonymous mapping of the caller's, and nobody uses them any more.
pub(crate) unsafe fn seal(range: Range<usize>) -> io::Result<()> {
    // SAFETY: the caller promises that the range is its own and unused.
    unsafe {
        check(
            libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), libc::MADV_DONTNEED)
                .into(),
        )?;
        check(
            libc::mprotect(std::ptr::without_provenance_mut(range.start), range.len(), libc::PROT_NONE)
                .into(),
        )
        .map(drop)
    }
}

/// Keeps a range out of children of fork(2), in which a write to a page under I/O would be copied away from
/// the device.
pub(crate) fn dont_fork(range: Range<usize>) -> io::Result<()> {
    // SAFETY: MADV_DONTFORK changes nothing in this process.
    check(
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), libc::MADV_DONTFORK)
        }
        .into(),
    )
    .map(drop)
}

/// Gives every page of a range memory, as a write would, without changing a byte (MADV_POPULATE_WRITE, Linux
/// 5.14).
pub(crate) fn populate(range: Range<usize>) -> io::Result<()> {
    loop {
        // SAFETY: MADV_POPULATE_WRITE faults pages in and keeps their contents.
        let rc = unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(range.start),
                range.len(),
                libc::MADV_POPULATE_WRITE,
            )
        };
        match check(rc.into()) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
            other => return other.map(drop),
        }
    }
}
