//! Memory that may be locked, where it is short: the memory that every core needs comes first.
//!
//! From Linux 6.14 on the kernel counts rings and rings of buffers towards what their user may lock
//! (`RLIMIT_MEMLOCK`, 8 MiB for most), as it has always counted registered buffers. So the rings of all cores
//! are planned to fit before the first is made, and what is optional is registered only when every core has
//! its own ring.

use std::convert::Infallible;

use crossbeam_channel::{Receiver, Sender};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use crate::privilege::has_any;
use crate::ring::{RingOptions, rings_are_locked};

/// The entries that rings of this many cores can have within `limit` bytes: those asked for, or half of them,
/// and so on.
pub(super) fn planned(asked: RingOptions, cores: usize, limit: Option<u64>) -> RingOptions {
    let Some(limit) = limit else { return asked };
    let mut ring = asked;
    while ring.entries > 64 && ring.locked_bytes().saturating_mul(cores as u64) > limit {
        ring = ring.halved();
    }
    ring
}

/// Whether blocks may be registered. The cores of one runtime always may, because they register after all
/// rings are made. Where the user has `of_user` cores in several processes nobody knows when their rings are
/// made, so there must be memory for all.
pub(super) fn leaves_enough(
    ring: RingOptions,
    pool_bytes: usize,
    cores: usize,
    of_user: usize,
    limit: Option<u64>,
) -> bool {
    let Some(limit) = limit.filter(|_| of_user > cores) else { return true };
    let fits = (ring.locked_bytes() + pool_bytes as u64).saturating_mul(of_user as u64) <= limit;
    if !fits {
        tracing::info!(
            "blocks are not registered with the ring, so zero-copy sends pin their pages each time: {limit} bytes may be locked by \
             {of_user} cores of several processes; raise RLIMIT_MEMLOCK (ulimit -l)"
        );
    }
    fits
}

/// Bytes that the rings of this process may take; None where this kernel holds rings to no limit.
pub(super) fn limit() -> Option<u64> {
    if !rings_are_locked() || has_any(CapabilitySet::IPC_LOCK) {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

/// One core's handle on the question whether every core has what it needs.
#[derive(Clone)]
pub(super) struct Essentials {
    /// Held while this core lacks something.
    missing: Sender<Infallible>,
    /// Disconnected when nobody holds the other end.
    there: Receiver<Infallible>,
}

impl Essentials {
    /// Each core gets a clone and drops it when it has what it needs.
    pub(super) fn new() -> Self {
        let (missing, there) = crossbeam_channel::bounded(0);
        Self { missing, there }
    }

    /// Says that this core has everything, and waits until each of the others has, or is gone.
    pub(super) fn wait_for_others(self) {
        let Self { missing, there } = self;
        drop(missing);
        // Nothing is ever sent: the wait ends when the last sender is dropped.
        let Err(_) = there.recv();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Seen to fail: with the limit taken for each core's.
    #[test]
    fn rings_are_as_large_as_all_of_them_can_be() {
        let asked = RingOptions { buffers: 8192, ..RingOptions::for_entries(4096) };
        assert_eq!(planned(asked, 64, None).entries, 4096);
        for (cores, limit, entries) in [
            (12, 8 << 20, 4096),
            (13, 8 << 20, 2048),
            (64, 64 << 20, 4096),
            (32, 8 << 20, 512),
            (64, 8 << 20, 64),
            (1000, 0, 64),
        ] {
            let ring = planned(asked, cores, Some(limit));
            assert_eq!((ring.entries, ring.asked), (entries, 4096), "{cores} cores in {limit} bytes");
        }
        // An entry count below the least is not raised.
        assert_eq!(planned(RingOptions::for_entries(8), 1000, Some(0)).entries, 8);
    }

    /// Seen to fail: with `cores` in the place of `of_user` in the product.
    #[test]
    fn blocks_are_registered_where_those_of_all_processes_fit() {
        let ring = RingOptions::for_entries(1024);
        let each = ring.locked_bytes() + (1 << 20);
        assert!(leaves_enough(ring, 1 << 20, 2, 0, Some(0)), "one process: blocks come after rings");
        assert!(leaves_enough(ring, 1 << 20, 2, 4, None));
        assert!(leaves_enough(ring, 1 << 20, 2, 4, Some(4 * each)));
        assert!(!leaves_enough(ring, 1 << 20, 2, 4, Some(4 * each - 1)));
    }

    /// Seen to fail: with `wait_for_others` that does not wait.
    #[test]
    fn what_is_optional_waits_until_each_core_has_its_own_or_is_gone() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let essentials = Essentials::new();
        let have = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for core in 0..4 {
                let (mine, have) = (essentials.clone(), &have);
                scope.spawn(move || {
                    if core == 3 {
                        // It fails before it has anything.
                        return drop(mine);
                    }
                    have.fetch_add(1, Ordering::Relaxed);
                    mine.wait_for_others();
                    assert_eq!(have.load(Ordering::Relaxed), 3, "core {core} went on too early");
                });
            }
            drop(essentials);
        });
    }
}
