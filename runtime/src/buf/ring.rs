//! The provided-buffer ring of a core: node-local memory that the kernel picks from when something comes.
//!
//! The descriptors' ring and the buffers are carved out of the core's share of its node's pool. The ring has room for all
//! buffers that there can be, so that the pool may [grow](super::growth). Only the core's thread
//! moves the ring's tail; a buffer whose last lease is dropped elsewhere comes back through the
//! [list of returns](super::returns). Linux 5.19; `io_uring_register_buf_ring(3)`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::types::BufRingEntry;

use super::chain::{Chain, Links};
use super::growth::Terms;
use super::home::Home;
use super::lease::Lease;
use super::parts::Parts;
use super::returns::{Held, Keeper, Owner};
use super::shares::Shares;
use super::spill::{Hoards, Spilt};
use crate::core::Core;
use crate::core::counters::CoreCounters;
use crate::core::shared::CoreShared;
use crate::net::socket::Socket;
use crate::numa::pool::{Carved, Share};
use crate::ring::{RecvOptions, Ring};
use crate::{Error, ErrorKind, Result};

/// The one buffer group of a core.
pub(crate) const BUFFER_GROUP: u16 = 0;
/// Bytes of a buffer: two pages hold a request with its headers, and a bulk receive takes several at a time.
pub(crate) const BUFFER_SIZE: usize = 8 << 10;
/// The kernel's limit on the entries of a buffer ring.
const MAX_BUFFERS: usize = 1 << 15;
const PAGE: usize = 4096;

/// What keeps the buffers' memory until the last lease is gone.
pub(crate) struct Keep {
    /// The buffers' memory. Locked when it grows, and when it goes.
    memory: Mutex<Vec<Carved>>,
    /// Who shares each buffer that is out.
    pub(super) shares: Box<[Shares]>,
    core: Arc<CoreShared>,
    /// Memory of another kind: see [`spill`](super::spill).
    _spilt: Option<Spilt>,
}

impl Keep {
    pub(super) fn new(
        memory: Mutex<Vec<Carved>>,
        shares: Box<[Shares]>,
        core: Arc<CoreShared>,
        spilt: Option<Spilt>,
    ) -> Self {
        Self { memory, shares, core, _spilt: spilt }
    }
}

impl Keeper for Keep {
    fn wake_owner(&self) {
        self.core.ring();
    }
}

/// The buffers of a core.
pub(crate) struct BufRing {
    owner: Owner<Keep>,
    descriptors: Carved,
    /// Slots of the ring, a power of two.
    slots: u16,
    /// Buffers with consecutive numbers and addresses, a power of two: what it grows by.
    per_extent: u16,
    /// Extents that there are, and that there can be.
    extents: Cell<u16>,
    most_extents: u16,
    /// Buffers that there are.
    count: Cell<u16>,
    tail: Cell<u16>,
    /// Buffers at home: for the kernel to pick, or waiting for their turn in the ring.
    home: Home,
    /// The most that were out at once.
    most_out: Cell<u16>,
    links: Links,
    /// Where a CQE need not bring one buffer whole.
    pub(super) parts: Option<Parts>,
    /// Streams that found no buffer, in the order in which they will get one.
    hungry: RefCell<VecDeque<Weak<Socket>>>,
    /// Streams that held too much when it came; looked at again when the turn ends.
    overfull: RefCell<Vec<Rc<Socket>>>,
    pub(super) hoards: Hoards,
}

impl BufRing {
    /// Carves the ring and its buffers out of half of what `share` has left, and registers them with the core's ring, to be
    /// used as asked as far as the kernel can.
    pub(crate) fn new(
        ring: &mut Ring,
        share: &mut Share,
        core: &Arc<CoreShared>,
        growth: &Terms,
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
        let more = growth.limit.saturating_sub(share.len()) / BUFFER_SIZE;
        // The descriptors take no more than a sixteenth of what there is to begin with: the smallest pool keeps room for a block.
        let affordable = 1 << (share.left() / 16 / size_of::<BufRingEntry>()).max(1).ilog2();
        let slots = (count + more).min(MAX_BUFFERS).next_power_of_two().min(affordable).max(count);
        let per_extent = (growth.step() / BUFFER_SIZE).min(slots);
        let most_extents =
            (MAX_BUFFERS / per_extent).min(count.div_ceil(per_extent) + more.div_ceil(per_extent));
        let too_small = too_small();
        let carved =
            share.carve(slots * size_of::<BufRingEntry>(), PAGE).zip(share.carve(count * BUFFER_SIZE, PAGE));
        let Some((descriptors, memory)) = carved else { return Err(too_small) };
        let numbers = per_extent * most_extents;
        let shares = (0..numbers).map(|_| Shares::none()).collect();
        let keep = Keep::new(Mutex::default(), shares, Arc::clone(core), None);
        let owner = Owner::new(BUFFER_SIZE, per_extent as u32, most_extents as u32, keep);
        let address = descriptors.as_ptr().as_ptr().expose_provenance() as u64;
        // SAFETY: the descriptors' memory is page-aligned, large enough and ours until `close` has unregistered it.
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
            home: Home::new(),
            most_out: Cell::new(0),
            links: Links::new(numbers),
            parts: Parts::new(features.incremental_buffers, features.bundles, numbers),
            hungry: RefCell::default(),
            overfull: RefCell::default(),
            hoards: Hoards::default(),
        };
        this.extend(memory);
        Ok(this)
    }

    /// Buffers by which it may grow in one step.
    pub(crate) fn room(&self) -> usize {
        let room = if self.extents.get() < self.most_extents { self.per_extent } else { 0 };
        room.min(self.slots - self.count.get()).into()
    }

    /// Cuts `memory` into buffers, as many as there are slots and numbers for, and returns how many. Where it is too short for
    /// a whole number of extents, the last numbers stay unused.
    pub(crate) fn extend(&self, memory: Carved) -> usize {
        let base = memory.as_ptr();
        let room =
            (self.slots - self.count.get()).min((self.most_extents - self.extents.get()) * self.per_extent);
        let count = (memory.len() / BUFFER_SIZE).min(room.into()) as u16;
        // Locked by this thread alone until the core has ended. A list is whole at every moment.
        self.owner.keeper().memory.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        let first = self.extents.get() * self.per_extent;
        for number in (0..count).step_by(self.per_extent.into()) {
            // SAFETY: the offset is below `count` buffers, hence inside the memory, which the keeper now has. The extents are
            // new, and numbers of buffers that do not fit are not handed out: they never get to the kernel.
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

    /// Bytes of a buffer, and how many there are.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (BUFFER_SIZE, self.count.get().into())
    }

    /// Where the descriptors lie, for the report.
    pub(crate) fn descriptors(&self) -> std::ops::Range<usize> {
        let start = self.descriptors.as_ptr().addr().get();
        start..start + self.descriptors.len()
    }

    /// Puts a buffer that is at home at the tail of the ring.
    fn give_to_kernel(&self, index: u16) {
        let entries: *mut BufRingEntry = self.descriptors.as_ptr().cast().as_ptr();
        let tail = self.tail.get();
        // SAFETY: the buffer's extent was added. The slot is inside the descriptors; the kernel reads it only after the tail has passed it. The
        // address is that of a whole buffer, which is at home. The first entry's last field is the tail
        // (io_uring_register_buf_ring(3)), which no setter of an entry touches.
        unsafe {
            let entry = &mut *entries.add((tail & (self.slots - 1)).into());
            entry.set_addr(self.owner.address(index.into()).as_ptr().expose_provenance() as u64);
            entry.set_len(BUFFER_SIZE as u32);
            entry.set_bid(index);
            let shared_tail = BufRingEntry::tail(entries).cast_mut().cast::<AtomicU16>();
            (*shared_tail).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
        self.home.put();
    }

    /// Gives the kernel so many from the stack.
    #[inline(never)]
    fn unstack(&self, count: u16) {
        for index in (0..count).map_while(|_| self.links.unstack()) {
            self.home.unstacked();
            self.give_to_kernel(index);
        }
    }

    /// The slot that is filled next.
    pub(super) fn tail(&self) -> u16 {
        self.tail.get()
    }

    /// The buffer that was last put into a slot, and the bytes that the kernel takes it to have.
    pub(super) fn placed_at(&self, slot: u16) -> (u16, u32) {
        let entries: *const BufRingEntry = self.descriptors.as_ptr().cast().as_ptr();
        // SAFETY: the slot is inside the descriptors. Who it is for the kernel does not write, and its length no more when it has
        // used it up.
        let entry = unsafe { &*entries.add((slot & (self.slots - 1)).into()) };
        (entry.bid(), entry.len())
    }

    /// The kernel has picked a buffer: its CQE names it.
    pub(crate) fn picked(&self) {
        self.home.took();
        self.most_out.set(self.most_out.get().max(self.out()));
    }

    /// A lease on `bytes` bytes of a buffer, `from` on, that the kernel has just written. `ends`: it is done with the buffer.
    pub(super) fn lend(&self, index: u16, from: u16, bytes: u32, ends: bool) -> Lease {
        let shares = &self.owner.keeper().shares[usize::from(index)];
        if from == 0 {
            // The first of it: the core's own share.
            // SAFETY: the kernel had the buffer until this CQE, and writes what is filled no more.
            std::mem::forget(unsafe { self.owner.hand_out(index.into()) });
            shares.begin();
        }
        if ends {
            // The core's share goes over to the lease.
            self.picked();
        } else {
            shares.add();
        }
        // SAFETY: the buffer is out since its first bytes came, and the handle is a share that is counted.
        Lease::part(unsafe { self.owner.handle(index.into()) }, from.into(), bytes)
    }

    /// Tells how many buffers are out, and how many were at most.
    pub(crate) fn tell(&self, counters: &CoreCounters) {
        counters.recv_buffers_out.set(self.out().into());
        counters.recv_buffers_peak.set(self.most_out.get().into());
    }

    /// Buffers that are not at home.
    fn out(&self) -> u16 {
        self.count.get() - self.home.len()
    }

    /// A buffer that nobody holds any more goes back to the kernel, now or [later](super::home).
    pub(crate) fn recycle(&self, index: u16) {
        if self.home.wants_more() {
            self.give_to_kernel(index);
        } else {
            self.links.stack(index);
            self.home.stacked();
        }
    }

    /// Lets as many of the streams that found no buffer receive as there are buffers, in turn.
    ///
    /// `ENOBUFS` does not mean that bytes wait: the kernel looks for a buffer first. A stream that is fed and has nothing
    /// to receive leaves its buffer in the ring, for the next turn; so a core with buffers and hungry streams does not
    /// sleep ([`must_not_sleep`](Self::must_not_sleep)).
    fn feed(&self, core: &Core) {
        let mut meals = self.home.len();
        while meals > 0 {
            let next = self.hungry.borrow_mut().pop_front();
            let Some(socket) = next else { return };
            // Otherwise it was dropped, or quiesced, while it stood in the queue.
            let Some(socket) = socket.upgrade() else { continue };
            socket.left_queue();
            if socket.fed(core) {
                meals -= 1;
            }
        }
    }

    /// A chunk of `bytes` bytes in buffer `index` came for the stream of `chain`.
    pub(crate) fn push(&self, chain: &mut Chain, index: u16, bytes: u32) {
        self.links.push(chain, index, bytes);
    }

    /// Takes the oldest chunk off a chain: its buffer and its bytes.
    pub(super) fn next_of(&self, chain: &mut Chain) -> Option<(u16, u32)> {
        self.links.next_of(chain)
    }

    /// The bytes of a chunk in a chain.
    pub(super) fn chunk(&self, index: u16, bytes: u32) -> &[u8] {
        // SAFETY: the kernel wrote them and has given the buffer up with its CQE; it stands in a chain, so nobody else has it.
        unsafe { std::slice::from_raw_parts(self.owner.address(index.into()).as_ptr(), bytes as usize) }
    }

    /// The oldest chunk of a chain, as a lease.
    pub(crate) fn pop(&self, chain: &mut Chain) -> Option<Lease> {
        let (index, bytes) = self.next_of(chain)?;
        // SAFETY: the kernel has given the buffer up with its CQE, it stood in one chain only, and it goes back to the
        // kernel only through `recycle`, when it has come home.
        let held = unsafe { self.owner.hand_out(index.into()) };
        Some(Lease::new(held, bytes))
    }

    /// A buffer whose last lease was dropped on some thread that may be this core's.
    pub(super) fn take_back(&self, held: Held<Keep>) {
        match self.owner.take_back(held) {
            Ok(index) => self.recycle(index as u16),
            // Another core's: dropping it sends it home.
            Err(held) => drop(held),
        }
    }

    /// A stream that found no buffer waits for its turn.
    pub(crate) fn wait_for_buffer(&self, socket: &Rc<Socket>) {
        self.hungry.borrow_mut().push_back(Rc::downgrade(socket));
    }

    /// Entries in the queue of streams that wait for a buffer.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn queue_len(&self) -> usize {
        self.hungry.borrow().len()
    }

    /// Whether there is a buffer at home.
    pub(crate) fn has_some(&self) -> bool {
        self.home.len() > 0
    }

    /// Whether streams wait for buffers.
    pub(crate) fn is_short(&self) -> bool {
        !self.hungry.borrow().is_empty()
    }

    /// Whether streams wait for buffers and there is none.
    pub(crate) fn is_starving(&self) -> bool {
        self.home.len() == 0 && self.is_waited_for()
    }

    /// Whether a stream waits that is still there and still wants to receive. Forgets those before it that do not.
    fn is_waited_for(&self) -> bool {
        let mut hungry = self.hungry.borrow_mut();
        while let Some(first) = hungry.front() {
            if let Some(socket) = first.upgrade() {
                if socket.is_starved() {
                    return true;
                }
                socket.left_queue();
            }
            hungry.pop_front();
        }
        false
    }

    /// A stream holds much that nobody took: look again when its task has had its chance.
    #[inline(always)]
    pub(crate) fn look_later(&self, socket: Rc<Socket>) {
        self.overfull.borrow_mut().push(socket);
    }

    /// The tasks of this turn have run: fetches what came back from other threads, and switches off streams that are
    /// not being read.
    pub(crate) fn end_of_turn(&self, core: &Core) {
        if self.owner.has_returns() {
            for index in self.owner.drain() {
                self.recycle(index as u16);
            }
        }
        let short = self.is_short();
        let more = self.home.turn(self.count.get(), short);
        if more > 0 {
            self.unstack(more);
        }
        if short {
            self.feed(core);
        }
        if !self.overfull.borrow().is_empty() {
            self.hold_back(core);
        }
        if self.home.len() == 0 && self.has_hoards() && self.is_waited_for() && self.make_room(core) {
            self.unstack(u16::MAX);
            self.feed(core);
        }
        if let Some(parts) = &self.parts {
            parts.note(self);
        }
        core.shared.counters.recv_buffers_ready.set(self.home.offered().into());
    }

    /// Apart from the turn, which is lighter without it.
    #[inline(never)]
    fn hold_back(&self, core: &Core) {
        // Index by index: nothing here adds to the list, and its capacity is kept.
        let mut overfull = self.overfull.take();
        for socket in overfull.drain(..) {
            socket.hold_back(core);
        }
        let mut empty = self.overfull.borrow_mut();
        if empty.capacity() < overfull.capacity() {
            overfull.append(&mut empty);
            *empty = overfull;
        }
    }

    /// Before the core sleeps. True: there are buffers, or some have come back from elsewhere, for streams that wait for
    /// one. Otherwise, if any wait, the next return rings the doorbell.
    pub(crate) fn must_not_sleep(&self) -> bool {
        !self.hungry.borrow().is_empty() && (self.home.len() > 0 || !self.owner.starve())
    }

    /// The end: every operation has been reaped. The memory goes when the last lease does.
    pub(crate) fn close(self, ring: &Ring) {
        self.hungry.borrow_mut().clear();
        if let Err(e) = ring.submitter().unregister_buf_ring(BUFFER_GROUP) {
            tracing::error!("cannot unregister receive buffers, so their memory is leaked: {e}");
            return self.leak();
        }
        // Where the kernel went on it does not any more.
        for index in self.parts.iter().flat_map(Parts::take_begun) {
            if self.owner.keeper().shares[usize::from(index)].give_up() {
                // SAFETY: the buffer is out, and the core's was the last share.
                let ours = self.owner.take_back(unsafe { self.owner.handle(index.into()) });
                debug_assert!(ours.is_ok(), "a handle of the owner itself");
            }
        }
        // SAFETY: the ring is unregistered and every operation that could write into a buffer was reaped before.
        let out = unsafe { self.owner.close() };
        if out > 0 {
            tracing::debug!("{out} leases outlive their core");
        }
    }

    /// The end, when the kernel may still write into the buffers.
    pub(crate) fn leak(self) {
        std::mem::forget(self.descriptors);
        self.owner.leak();
    }
}
