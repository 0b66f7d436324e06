//! Registrations that the `io_uring` crate lacks, or has not in a form that lasts: it keeps its registered
//! descriptor only in a borrowed value.

use std::io;
use std::os::fd::RawFd;

use io_uring::IoUring;

// The io_uring crate does not export it (linux/io_uring.h).
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update` of linux/io_uring.h.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers the ring's descriptor with its own task and returns the index that enters use instead (Linux
/// 5.18).
pub(super) fn ring_fd(fd: RawFd) -> io::Result<RawFd> {
    let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: fd as u64 };
    register(fd, REGISTER_RING_FDS, &mut update)?;
    Ok(update.offset as RawFd)
}

/// Unregisters it.
pub(super) fn unregister_ring_fd(fd: RawFd, index: RawFd) -> io::Result<()> {
    register(fd, UNREGISTER_RING_FDS, &mut RsrcUpdate { offset: index as u32, resv: 0, data: 0 })
}

fn register(fd: RawFd, opcode: libc::c_uint, update: &mut RsrcUpdate) -> io::Result<()> {
    // SAFETY: io_uring_register(2) with one io_uring_rsrc_update, ours alone while the kernel reads and
    // writes it.
    let rc =
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, std::ptr::from_mut(update), 1u32) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Pins the thread's io-wq workers to `cpu`. On 6.1 they do not inherit the thread's affinity, and on later
/// kernels a worker that was made before the thread was pinned has not inherited it either.
pub(super) fn pin_iowq(ring: &IoUring, cpu: u32) -> bool {
    // SAFETY: cpu_set_t is a bit mask for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu as usize >= libc::CPU_SETSIZE as usize {
        tracing::warn!("io-wq workers are not pinned: CPU {cpu} is beyond cpu_set_t");
        return false;
    }
    // SAFETY: the index is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    match ring.submitter().register_iowq_aff(&set) {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!("io-wq workers are not pinned to CPU {cpu} (IORING_REGISTER_IOWQ_AFF): {e}");
            false
        }
    }
}
