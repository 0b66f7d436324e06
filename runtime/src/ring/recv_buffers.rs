//! The ring of receive buffers, and the ways in which this kernel can use it.

use std::io;

use io_uring::{opcode, squeue, types};

use super::release::version;
use super::setup::{PATIENCE, patiently};
use super::user_data::Tag;
use super::{Ring, not_registered};
use crate::Result;

/// How receives are to use buffers, beyond one whole buffer for each CQE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecvOptions {
    /// The kernel goes on in a buffer where the last bytes ended.
    pub(crate) incremental: bool,
    /// One CQE may name several buffers.
    pub(crate) bundles: bool,
}

/// Bytes after which a bundled receive ends by itself: 64 buffers hold as much.
const BUNDLE_LIMIT: u32 = 512 << 10;

/// A bundled receive into buffers of `group`, until it is cancelled. With `limit` it ends earlier, when it
/// has brought as much as a stream that nobody reads may have (Linux 6.17).
pub(crate) fn bundled(fd: types::Fd, group: u16, limit: bool) -> squeue::Entry {
    /// The offset of `optlen` in `struct io_uring_sqe`. The `io_uring` crate does not have it.
    const OPTLEN: usize = 44;
    let entry = opcode::RecvMultiBundle::new(fd, group).build();
    if !limit {
        return entry;
    }
    // SAFETY: an entry is the kernel's structure of 64 bytes, integers without padding.
    let mut raw: [u8; 64] = unsafe { std::mem::transmute(entry) };
    raw[OPTLEN..OPTLEN + 4].copy_from_slice(&BUNDLE_LIMIT.to_ne_bytes());
    // SAFETY: as above. What is in it is a valid length.
    unsafe { std::mem::transmute::<[u8; 64], squeue::Entry>(raw) }
}

impl Ring {
    /// Registers a ring of buffers as group `group`. It is used as asked, as far as this kernel can; the
    /// report has what the kernel cannot do.
    ///
    /// # Safety
    /// The memory at `address` holds `slots` entries, is page-aligned, and stays until the group is
    /// unregistered.
    pub(crate) unsafe fn register_buf_ring(
        &mut self,
        address: u64,
        slots: u16,
        group: u16,
        options: RecvOptions,
    ) -> Result<()> {
        let register = |flags| {
            // SAFETY: handed on to the caller.
            patiently(PATIENCE, || unsafe { self.queues.register_buf_ring(address, slots, group, flags) })
        };
        let refused =
            |e: io::Error| not_registered("cannot register receive buffers (IORING_REGISTER_PBUF_RING)", e);
        let polled = self.features.sqpoll.is_some();
        let mut incremental = false;
        if options.incremental
            && let Some(why) = not_incremental(polled, rustix::system::uname().release().to_bytes())
        {
            tracing::warn!("receive buffers are not used up incrementally (IOU_PBUF_RING_INC): {why}");
            self.features.lacks.push(format!("incremental buffers: {why}"));
        } else if options.incremental {
            match register(types::IOU_PBUF_RING_INC as u16) {
                Ok(()) => incremental = true,
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::warn!(
                        "receive buffers are not used up incrementally (IOU_PBUF_RING_INC, Linux 6.12): {e}"
                    );
                    self.features.lacks.push(format!("incremental buffers (Linux 6.12): {e}"));
                }
                Err(e) => return Err(refused(e)),
            }
        }
        if !incremental {
            register(0).map_err(refused)?;
        }
        self.features.incremental_buffers = incremental;
        if options.bundles {
            let offered = self.queues.offers_bundles();
            match not_bundled(offered, rustix::system::uname().release().to_bytes(), incremental) {
                None => {
                    self.features.bundles = true;
                    let probe = bundled(types::Fd(-1), group, true).user_data(Tag::Cancel.with(0));
                    // SAFETY: a receive on no descriptor: the kernel accesses no memory.
                    self.features.bundle_limit = unsafe { self.is_known(&probe) }?;
                }
                Some(why) => {
                    tracing::warn!("receives are not bundled (IORING_RECVSEND_BUNDLE): {why}");
                    self.features.lacks.push(format!("bundles: {why}"));
                }
            }
        }
        Ok(())
    }
}

impl Ring {
    /// Whether buffers could be used up incrementally here. It tries with a ring of buffers in the kernel's
    /// own memory (Linux 6.4).
    pub(super) fn may_be_incremental(&self) -> bool {
        let flags = (types::IOU_PBUF_RING_INC | types::IOU_PBUF_RING_MMAP) as u16;
        // SAFETY: no memory of ours is named, and the ring of buffers is empty.
        let tried = unsafe { self.queues.register_buf_ring(0, 1, 0, flags) };
        tried.and_then(|()| self.queues.unregister_buf_ring(0)).is_ok()
    }

    /// Whether receives could be bundled here.
    pub(super) fn may_bundle(&self) -> bool {
        let offered = self.queues.offers_bundles();
        not_bundled(offered, rustix::system::uname().release().to_bytes(), false).is_none()
    }
}

/// Why buffers must not be used up incrementally here; None if they may be.
///
/// The order of CQEs decides where a stream's bytes lie. Before commit 687b2bae0eff (6.15) a receive's last
/// CQE that found the queue full may come behind one of another stream whose bytes came later. Without a
/// submission poller the kernel receives nothing between the two, because it does so only when the core calls
/// (`DEFER_TASKRUN`). This comes from reading the source and was not seen.
fn not_incremental(polled: bool, release: &[u8]) -> Option<&'static str> {
    let may_swap = polled && version(release) < (6, 15);
    may_swap.then_some("before Linux 6.15 not beside sqpoll, where streams may get each other's bytes; ask for one of the two")
}

/// Why receives must not be bundled here; None if they may be.
///
/// From 6.13.11, 6.14.2 and 6.15 on the kernel appended to a bundle whose last buffer was not full, so that
/// bytes lay elsewhere than the CQE says. It was mended in 6.16 and 6.15.5; 6.12 got fault and mending at
/// once (commits 7c71a0af81ba, 3a08988123c8, 178b8ff66ff8; liburing issues 1409 and 1423). In incremental
/// buffers one CQE may use up several only since commit cf9536e550dd (6.15).
fn not_bundled(offered: bool, release: &[u8], incremental: bool) -> Option<&'static str> {
    if !offered {
        return Some("the kernel does not offer them, so it is older than 6.10");
    }
    match version(release) {
        (6, 13..=15) => Some("Linux 6.13 to 6.15 may put a bundle's bytes elsewhere than they say; use 6.16"),
        (0..=5, _) | (6, 0..=15) if incremental => Some(
            "before Linux 6.16 not beside incremental buffers, whose bytes may get lost; ask for one of the two",
        ),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{not_bundled, not_incremental};

    #[test]
    fn incremental_buffers_are_left_out_where_a_poller_may_swap_their_order() {
        for (release, beside) in
            [("6.12.94", false), ("6.14.11", false), ("", false), ("6.15.0", true), ("7.0", true)]
        {
            assert_eq!(not_incremental(true, release.as_bytes()).is_none(), beside, "{release}");
            assert!(not_incremental(false, release.as_bytes()).is_none(), "{release}");
        }
    }

    #[test]
    fn bundles_are_left_out_where_kernels_lose_bytes() {
        let allowed =
            |release: &str, incremental| not_bundled(true, release.as_bytes(), incremental).is_none();
        for release in ["6.10.0", "6.12.94+deb13-amd64", "6.16", "6.18.44-fc-v595", "7.0.0-rc1"] {
            assert!(allowed(release, false), "{release}");
            assert!(not_bundled(false, release.as_bytes(), false).is_some());
        }
        for release in ["6.13.12", "6.14.0-27-generic", "6.15.3"] {
            assert!(!allowed(release, false), "{release}");
        }
        for (release, beside) in
            [("6.12.94", false), ("", false), ("6.16.1", true), ("6.100", true), ("7.1", true)]
        {
            assert_eq!(allowed(release, true), beside, "{release}");
        }
    }
}
