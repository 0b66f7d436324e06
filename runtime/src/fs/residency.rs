//! Whether a stretch of a file is in the page cache. If it is, splicing it on the core does not wait for a
//! disk.
//!
//! `cachestat(2)` counts a stretch's pages in 0.4 us (Linux 6.5). It counts those that are being read ahead
//! too, which have no bytes yet (mm/filemap.c, `filemap_cachestat`): who sends them waits for the disk. The
//! system reads ahead in the order of offsets, so `preadv2(2)` with `RWF_NOWAIT` is asked about the last
//! byte.
//!
//! Where `cachestat` is missing, or refused (since 6.14 and in stable kernels before, it demands that the
//! file be ours or writable), `preadv2(2)` is asked about the first and the last byte of one step. On
//! overlayfs `cachestat` sees an empty mapping and finds everything cold: such files are read in by the ring,
//! 1 MiB at a time, whether they are in memory or not.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

const SYS_CACHESTAT: libc::c_long = 451;
const PAGE: u64 = 4096;

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct Range {
    off: u64,
    len: u64,
}

/// `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

static NO_CACHESTAT: AtomicBool = AtomicBool::new(false);

/// Whether the kernel has `cachestat(2)` and no filter hides it: the call then answers `EBADF` for an invalid
/// descriptor.
pub(crate) fn has_cachestat() -> bool {
    let (range, mut stat) = (Range { off: 0, len: 0 }, CacheStat::default());
    // SAFETY: cachestat(2) reads one range and fills one result, both ours and alive.
    let rc = unsafe {
        libc::syscall(SYS_CACHESTAT, -1, std::ptr::from_ref(&range), std::ptr::from_mut(&mut stat), 0)
    };
    rc == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}

/// How many bytes from `offset` on, at most `len`, are in memory, as far as the kernel tells: all, one
/// `step`, or none.
pub(crate) fn cached(file: BorrowedFd<'_>, offset: u64, len: u64, step: u64) -> u64 {
    // preadv2(2) takes an offset beyond that for something else, and no file has bytes there.
    if len == 0 || offset >= i64::MAX as u64 {
        return 0;
    }
    if !NO_CACHESTAT.load(Ordering::Relaxed) {
        let range = Range { off: offset, len };
        let mut stat = CacheStat::default();
        // SAFETY: cachestat(2) reads one range and fills one result, both ours and alive.
        let rc = unsafe {
            libc::syscall(
                SYS_CACHESTAT,
                file.as_raw_fd(),
                std::ptr::from_ref(&range),
                std::ptr::from_mut(&mut stat),
                0,
            )
        };
        if rc == 0 {
            let pages = offset.saturating_add(len).div_ceil(PAGE) - offset / PAGE;
            let is_here = stat.nr_cache >= pages && byte_is_cached(file, offset.saturating_add(len - 1));
            return if is_here { len } else { 0 };
        }
        // A refusal (EPERM) concerns this file; a missing call is missing for all.
        if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            NO_CACHESTAT.store(true, Ordering::Relaxed);
        }
    }
    let step = len.min(step);
    if byte_is_cached(file, offset) && byte_is_cached(file, offset + step - 1) { step } else { 0 }
}

/// Reads what is in memory, on the core. `None` where the read would wait, or the file system cannot promise
/// that it does not.
pub(super) fn read_now(
    file: BorrowedFd<'_>,
    offset: u64,
    spare: &mut [MaybeUninit<u8>],
) -> std::io::Result<Option<usize>> {
    let vector = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
    // SAFETY: preadv2(2) fills at most the free part, which is ours for the call.
    let rc = unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, offset as i64, libc::RWF_NOWAIT) };
    if rc >= 0 {
        return Ok(Some(rc as usize));
    }
    let e = std::io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR) => Ok(None),
        _ => Err(e),
    }
}

fn byte_is_cached(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = 0u8;
    let vector = libc::iovec { iov_base: std::ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    // SAFETY: preadv2(2) fills one byte of ours.
    let rc = unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, offset as i64, libc::RWF_NOWAIT) };
    // Where the file system does not know RWF_NOWAIT (EOPNOTSUPP), such as tmpfs, there is no disk to wait
    // for.
    rc >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    /// Seen to fail: with the fields of `CacheStat` swapped, or `nr_cache` compared with bytes, the first
    /// assertion does.
    #[test]
    fn what_was_just_written_is_cached_and_what_was_dropped_is_not() {
        let path = std::env::temp_dir().join(format!("annulus-residency-{}", std::process::id()));
        let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        // All of it where cachestat counts; one step where only the first byte is known.
        let known = cached(file.as_fd(), 0, 1 << 20, 4096);
        assert_eq!(known, if NO_CACHESTAT.load(Ordering::Relaxed) { 4096 } else { 1 << 20 });
        assert!(byte_is_cached(file.as_fd(), 0));
        if rustix::fs::fstatfs(&file).unwrap().f_type as u64 == 0x0102_1994 {
            return; // tmpfs: its pages are the file
        }
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(cached(file.as_fd(), 0, 1 << 20, 4096), 0);
        assert!(!byte_is_cached(file.as_fd(), 0));
    }

    /// Pages that are being read ahead are in the page cache and have no bytes yet.
    ///
    /// Seen to fail: without the question about the last byte.
    #[test]
    fn what_is_being_read_ahead_is_not_taken_for_cached() {
        use rustix::fs::{Advice, fadvise};
        const LEN: u64 = 32 << 20;
        let path = std::env::temp_dir().join(format!("annulus-read-ahead-{}", std::process::id()));
        let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&vec![7; LEN as usize]).unwrap();
        file.sync_all().unwrap();
        for _ in 0..8 {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            fadvise(&file, 0, None, Advice::WillNeed).unwrap();
            // What has bytes keeps them, so an answer that was true is still true after it.
            for at in (0..LEN).step_by(64 << 10) {
                if cached(file.as_fd(), at, 64 << 10, 4096) == 64 << 10 {
                    assert!(byte_is_cached(file.as_fd(), at + (64 << 10) - 1), "at {at}");
                }
            }
        }
    }
}
