//! Counters in memory that the processes of a program share.
//!
//! The memory is a memfd: the process that was started makes it and passes it on, and each process maps it.
//! Pages in which nobody counts are not allocated. A program of one process maps plain memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

/// Memory for `counters` counters, all 0, to be mapped by several processes.
///
/// # Errors
/// What `memfd_create(2)`, `ftruncate(2)` and `fcntl(2)` say.
pub(super) fn create(counters: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("annulus-limits", flags)?);
    file.set_len((counters * size_of::<AtomicU64>()) as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Maps `counters` counters, for as long as the process runs: those of `shared`, or this process's own if
/// that is `None`.
///
/// # Errors
/// What `mmap(2)` says; [`io::ErrorKind::InvalidInput`] where `shared` has another size.
pub(super) fn map(counters: usize, shared: Option<BorrowedFd<'_>>) -> io::Result<&'static [AtomicU64]> {
    let len = counters * size_of::<AtomicU64>();
    if let Some(shared) = shared
        && File::from(shared.try_clone_to_owned()?).metadata()?.len() != len as u64
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the counters of the limits have another size",
        ));
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let hint = std::ptr::null_mut();
    // SAFETY: the kernel chooses an unused address, so no other memory of the process changes.
    let mapped = unsafe {
        match shared {
            Some(fd) => mmap(hint, len, access, MapFlags::SHARED, fd.as_fd(), 0)?,
            None => mmap_anonymous(hint, len, access, MapFlags::PRIVATE)?,
        }
    };
    // SAFETY: the mapping has `len` bytes, is aligned to a page and is never unmapped. `create` has sealed
    // the file beneath it against shrinking. All bytes begin as 0, which is a valid counter. Every process
    // uses them as atomics only, through what this function returns.
    Ok(unsafe { std::slice::from_raw_parts(mapped.cast::<AtomicU64>(), counters) })
}
