//! The provided-buffer ring of a core: node-local memory that the kernel picks from when bytes come.
//!
//! The descriptors' ring and the buffers are carved out of the core's share of its node's pool. The ring has
//! slots for all buffers that there can be, so that the pool may [grow](crate::core::growth). Only the core's
//! thread moves the ring's tail. A buffer whose last lease is dropped on another thread comes back through
//! the [list of returns](super::returns). Linux 5.19; `io_uring_register_buf_ring(3)`.

use std::cell::Cell;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use io_uring::types::BufRingEntry;

use super::chain::{Chain, Links};
use super::fragments::Fragments;
use super::free_buffers::FreeBuffers;
use super::memory::{BufferMemory, WakeOwner};
use super::returns::{BlockRef, Owner};
use super::shares::Shares;
use crate::current::{Current, Entered};
use crate::metrics::counters::Cells;
use crate::numa::pool::{Carved, Share};
use crate::ring::{RecvOptions, Ring};
use crate::{Error, ErrorKind, Result};

/// The one buffer group of a core.
pub(crate) const BUFFER_GROUP: u16 = 0;
/// Bytes of a buffer. Two pages hold a request with its headers; a bulk receive takes several buffers at
/// once.
pub(crate) const BUFFER_SIZE: usize = 8 << 10;
/// The kernel's limit on the entries of a buffer ring.
const MAX_BUFFERS: usize = 1 << 15;
const PAGE: usize = 4096;

thread_local! {
    static CURRENT: Current<BufRing> = const { Current::none() };
}

/// The receive buffers of a core.
pub(crate) struct BufRing {
    pub(super) owner: Owner<BufferMemory>,
    descriptors: Carved,
    /// Slots of the ring: a power of two.
    slots: u16,
    /// Buffers with consecutive numbers and addresses, by which the ring grows: a power of two.
    per_extent: u16,
    /// Extents that exist, and extents that there can be.
    extents: Cell<u16>,
    most_extents: u16,
    /// Buffers that exist.
    count: Cell<u16>,
    tail: Cell<u16>,
    /// The free buffers: those that the kernel may pick, and those that wait to be put into the ring.
    free: FreeBuffers,
    /// The most that were out at once.
    most_out: Cell<u16>,
    links: Links,
    /// Present where a CQE need not bring exactly one buffer.
    pub(super) fragments: Option<Fragments>,
    /// Bytes of copied chunks that nobody has taken yet.
    pub(super) copied_bytes: Arc<AtomicUsize>,
    /// Chunks in all chains.
    #[cfg(debug_assertions)]
    pub(super) chained: Cell<u16>,
}

impl BufRing {
    /// Carves the ring and its buffers out of half of what `share` has left, and registers them with the
    /// core's ring. They are used as `options` say, as far as the kernel can. The pool may grow to a limit,
    /// by `step` bytes at a time. `sleeper` is woken when a buffer comes back that it waits for.
    pub(crate) fn new(
        ring: &mut Ring,
        share: &mut Share,
        sleeper: Arc<dyn WakeOwner>,
        (limit, step): (usize, usize),
        options: RecvOptions,
    ) -> Result<Self> {
        let too_small = || {
            let what = format!(
                "{} bytes of node memory are too few for receive buffers; give each core more, or free some on the node",
                share.left()
            );
            Error::new(ErrorKind::Platform, what)
        };
        let fit = share.left() / 2 / BUFFER_SIZE;
        let count =
            if fit == 0 { return Err(too_small()) } else { 1 << fit.ilog2().min(MAX_BUFFERS.ilog2()) };
        let more = limit.saturating_sub(share.len()) / BUFFER_SIZE;
        // The descriptors take at most a sixteenth of the initial share, so that the smallest pool has space
        // for a block.
        let affordable = 1 << (share.left() / 16 / size_of::<BufRingEntry>()).max(1).ilog2();
        let slots = (count + more).min(MAX_BUFFERS).next_power_of_two().min(affordable).max(count);
        let per_extent = (step / BUFFER_SIZE).min(slots);
        let most_extents =
            (MAX_BUFFERS / per_extent).min(count.div_ceil(per_extent) + more.div_ceil(per_extent));
        let too_small = too_small();
        let carved =
            share.carve(slots * size_of::<BufRingEntry>(), PAGE).zip(share.carve(count * BUFFER_SIZE, PAGE));
        let Some((descriptors, memory)) = carved else { return Err(too_small) };
        let numbers = per_extent * most_extents;
        let shares = (0..numbers).map(|_| Shares::none()).collect();
        let region = BufferMemory::new(shares, sleeper, None);
        let owner = Owner::new(BUFFER_SIZE, per_extent as u32, most_extents as u32, region);
        let address = descriptors.as_ptr().as_ptr().expose_provenance() as u64;
        // SAFETY: the descriptors' memory is page-aligned, large enough, and ours until `close` has
        // unregistered it.
        unsafe { ring.register_buf_ring(address, slots as u16, BUFFER_GROUP, options) }?;
        let features = ring.features();
        let this = Self {
            owner,
            descriptors,
            slots: slots as u16,
            per_extent: per_extent as u16,
            extents: Cell::new(0),
            most_extents: most_extents as u16,
            count: Cell::new(0),
            tail: Cell::new(0),
            free: FreeBuffers::new(),
            most_out: Cell::new(0),
            links: Links::new(numbers),
            fragments: Fragments::new(features.incremental_buffers, features.bundles, numbers),
            copied_bytes: Arc::default(),
            #[cfg(debug_assertions)]
            chained: Cell::new(0),
        };
        this.extend(memory);
        Ok(this)
    }

    /// Makes these the buffers of the calling thread's core.
    pub(crate) fn enter(&self) -> Entered<'_, Self> {
        Current::enter(&CURRENT, self)
    }

    /// Runs `f` with the buffers of the calling thread's core; `None` on a thread that is no core's.
    #[inline(always)]
    pub(super) fn try_with<R>(f: impl FnOnce(&Self) -> R) -> Option<R> {
        Current::try_with(&CURRENT, f)
    }

    /// The most entries that the ring can have, with a pool that may grow to `limit` bytes.
    pub(crate) fn slots_within(limit: usize) -> u16 {
        (limit / BUFFER_SIZE).clamp(1, MAX_BUFFERS).next_power_of_two() as u16
    }

    /// Buffers that one growth step may add.
    pub(crate) fn spare_capacity(&self) -> usize {
        let spare = if self.extents.get() < self.most_extents { self.per_extent } else { 0 };
        spare.min(self.slots - self.count.get()).into()
    }

    /// Cuts `memory` into buffers, as many as there are slots and numbers for. Returns how many. Where the
    /// memory is too short for a whole number of extents, the last numbers stay unused.
    pub(crate) fn extend(&self, memory: Carved) -> usize {
        let base = memory.as_ptr();
        let spare =
            (self.slots - self.count.get()).min((self.most_extents - self.extents.get()) * self.per_extent);
        let count = (memory.len() / BUFFER_SIZE).min(spare.into()) as u16;
        // Only this thread takes the lock until the core has ended. The list is consistent at every moment.
        self.owner.region().memory.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        let first = self.extents.get() * self.per_extent;
        for number in (0..count).step_by(self.per_extent.into()) {
            // SAFETY: the offset is below `count` buffers, hence inside the memory, which the region now has.
            // The extents are new. Numbers of buffers that do not fit are not handed out, and never get to
            // the kernel.
            unsafe {
                let base = base.add(usize::from(number) * BUFFER_SIZE);
                self.owner.add((first + number).into(), base);
            }
        }
        self.extents.set(self.extents.get() + count.div_ceil(self.per_extent));
        self.count.set(self.count.get() + count);
        for number in 0..count {
            self.recycle(first + number);
        }
        count.into()
    }

    /// The size of a buffer in bytes, and how many buffers there are.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (BUFFER_SIZE, self.count.get().into())
    }

    /// The memory of the descriptors, for the report.
    pub(crate) fn descriptors(&self) -> std::ops::Range<usize> {
        let start = self.descriptors.as_ptr().addr().get();
        start..start + self.descriptors.len()
    }

    /// Puts a free buffer at the tail of the ring.
    fn give_to_kernel(&self, index: u16) {
        let entries: *mut BufRingEntry = self.descriptors.as_ptr().cast().as_ptr();
        let tail = self.tail.get();
        // SAFETY: the buffer's extent was added. The slot is inside the descriptors, and the kernel reads it
        // only after the tail has passed it. The address is that of a whole buffer, which is free. The first
        // entry's last field is the tail (io_uring_register_buf_ring(3)), which no setter of an entry
        // touches.
        unsafe {
            let entry = &mut *entries.add((tail & (self.slots - 1)).into());
            entry.set_addr(self.owner.address(index.into()).as_ptr().expose_provenance() as u64);
            entry.set_len(BUFFER_SIZE as u32);
            entry.set_bid(index);
            let shared_tail = BufRingEntry::tail(entries).cast_mut().cast::<AtomicU16>();
            (*shared_tail).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
        self.free.offer();
    }

    /// Moves `count` buffers from the stack to the ring.
    #[inline(never)]
    fn unstack(&self, count: u16) {
        for index in (0..count).map_while(|_| self.links.unstack()) {
            self.free.unstack();
            self.give_to_kernel(index);
        }
    }

    /// The slot that is filled next.
    pub(super) fn tail(&self) -> u16 {
        self.tail.get()
    }

    /// The buffer that was last put into a slot, and its length as the kernel has it.
    pub(super) fn placed_at(&self, slot: u16) -> (u16, u32) {
        let entries: *const BufRingEntry = self.descriptors.as_ptr().cast().as_ptr();
        // SAFETY: the slot is inside the descriptors. The kernel does not write the buffer's number, and does
        // not write its length after it has used the buffer up.
        let entry = unsafe { &*entries.add((slot & (self.slots - 1)).into()) };
        (entry.bid(), entry.len())
    }

    /// The kernel has picked a buffer, which its CQE names.
    #[inline(always)]
    pub(crate) fn picked(&self) {
        self.free.take();
    }

    /// Reports how many buffers are out, and the most that ever were. It is called when
    /// a tick's completions have been handled: only they take buffers out.
    #[inline(always)]
    pub(crate) fn tell(&self, counters: &Cells) {
        let out = self.out();
        self.most_out.set(self.most_out.get().max(out));
        counters.recv_buffers_out.set(out.into());
        counters.recv_buffers_peak.set(self.most_out.get().into());
    }

    /// Buffers that are not free.
    fn out(&self) -> u16 {
        self.count.get() - self.free.len()
    }

    /// A buffer that nobody holds any more becomes available to the kernel, now or
    /// [later](super::free_buffers).
    pub(crate) fn recycle(&self, index: u16) {
        if self.free.wants_more() {
            self.give_to_kernel(index);
        } else {
            self.links.stack(index);
            self.free.stack();
        }
    }

    /// A chunk of `bytes` bytes in buffer `index` came for the stream of `chain`, which becomes the one that
    /// is returned.
    #[inline(always)]
    pub(crate) fn push(&self, chain: Chain, index: u16, bytes: u32) -> Chain {
        #[cfg(debug_assertions)]
        self.chained.set(self.chained.get() + 1);
        self.links.push(chain, index, bytes)
    }

    /// Takes the oldest chunk off a chain: what is left of it, and the chunk's buffer and bytes.
    #[inline(always)]
    pub(super) fn next_of(&self, chain: Chain) -> Option<(Chain, u16, u32)> {
        self.links.next_of(chain)
    }

    /// Takes a buffer whose last lease was dropped on a thread that may be this core's.
    pub(super) fn take_back(&self, block: BlockRef<BufferMemory>) {
        match self.owner.take_back(block) {
            Ok(index) => self.recycle(index as u16),
            // It is another core's: dropping it puts it on that core's list.
            Err(block) => drop(block),
        }
    }

    /// Whether there is a free buffer.
    pub(crate) fn has_some(&self) -> bool {
        self.free.len() > 0
    }

    /// Free buffers that are in the ring.
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    pub(crate) fn offered(&self) -> u16 {
        self.free.offered()
    }

    /// Whether at most an eighth of the buffers is free.
    #[inline(always)]
    pub(crate) fn are_few(&self) -> bool {
        self.free.len() <= self.count.get() / 8
    }

    /// Free buffers.
    pub(crate) fn free_buffers(&self) -> u16 {
        self.free.len()
    }

    /// The tasks of this tick have run: fetches the buffers that came back from other threads, and offers the
    /// kernel as many as it needs. `short`: a receive found none.
    #[inline(always)]
    pub(crate) fn refill(&self, short: bool) {
        if self.owner.has_returns() {
            self.collect_returns();
        }
        let more = self.free.tick(self.count.get(), short);
        if more > 0 {
            self.unstack(more);
        }
    }

    #[inline(never)]
    fn collect_returns(&self) {
        for index in self.owner.drain() {
            self.recycle(index as u16);
        }
    }

    /// Offers the kernel all free buffers.
    pub(crate) fn offer_all(&self) {
        self.unstack(u16::MAX);
    }

    /// The last step of a tick: nothing goes to the ring before the next one.
    #[inline(always)]
    pub(crate) fn end_of_tick(&self, counters: &Cells) {
        if let Some(fragments) = &self.fragments {
            fragments.note(self.tail(), |slot| self.placed_at(slot).0);
        }
        counters.recv_buffers_ready.set(self.free.offered().into());
        #[cfg(debug_assertions)]
        self.assert_conserved();
    }

    /// Asserts that every buffer is in one place: free, in a chain, or handed out. A buffer in which the
    /// kernel goes on is handed out, and counts as free until the kernel is done with it.
    ///
    /// Seen to fail: with `copy_out` keeping the first buffer of those that it copied (`tests/crowd.rs`).
    #[cfg(debug_assertions)]
    fn assert_conserved(&self) {
        let begun = self.fragments.as_ref().map_or(0, Fragments::begun);
        let (free, chained, out) = (self.free.len(), self.chained.get(), self.owner.taken());
        assert_eq!(
            u32::from(free) + u32::from(chained) + out,
            u32::from(self.count.get()) + u32::from(begun),
            "{free} buffers are free, {chained} in chains, {out} handed out, and in {begun} the kernel goes on"
        );
    }

    /// Asked before the core sleeps while streams wait for a buffer: whether some are free, or have come back
    /// from other threads. Otherwise the next return wakes the core.
    pub(crate) fn has_some_or_waits(&self) -> bool {
        self.free.len() > 0 || !self.owner.starve()
    }

    /// Ends the buffers after every operation has been reaped. The memory is freed with the last lease.
    pub(crate) fn close(self, ring: &Ring) {
        if let Err(e) = ring.unregister_buf_ring(BUFFER_GROUP) {
            // Leaked before the event, because a subscriber that panics must not free them.
            self.leak();
            return tracing::error!("cannot unregister receive buffers, so their memory is leaked: {e}");
        }
        // The kernel does not go on in any buffer from here on.
        for index in self.fragments.iter().flat_map(Fragments::take_begun) {
            if self.owner.region().shares[usize::from(index)].give_up() {
                // SAFETY: the buffer is out, and the core's share was the last.
                let ours = self.owner.take_back(unsafe { self.owner.handle(index.into()) });
                debug_assert!(ours.is_ok(), "a handle of the owner itself");
            }
        }
        // SAFETY: the ring is unregistered, and every operation that could write into a buffer was reaped
        // before.
        let out = unsafe { self.owner.close() };
        if out > 0 {
            tracing::debug!("{out} leases outlive their core");
        }
    }

    /// Ends the buffers when the kernel may still write into them.
    pub(crate) fn leak(self) {
        std::mem::forget(self.descriptors);
        self.owner.leak();
    }
}
