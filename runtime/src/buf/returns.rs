//! Blocks that come back from other threads, and the end of the region that they lie in.
//!
//! A core cuts its memory into blocks of one size, numbered from 0, and hands them out ([`Owner::hand_out`]).
//! It may [add](Owner::add) memory while blocks are out. All its memory together is called the region. The
//! holder of a [`BlockRef`] has the block to itself. Most blocks come back on the owner's thread
//! ([`Owner::take_back`]): that path touches plain memory only. A block that is dropped on another thread
//! goes onto a list, which the owner drains when it likes. Returning never waits, never needs memory and
//! never fails. So it may happen in any destructor on any thread, long after the core has ended.
//!
//! # The list
//!
//! `head` is one 32-bit word: the number of the block returned last, or one of three marks.
//!
//! - The link of a returned block is the number of the block returned before it. It is stored in the block's
//!   own first four bytes, which are plain memory. The returning thread writes them while it still holds the
//!   block alone, and gives the block away with the compare-and-swap that publishes it (*release*). The owner
//!   reads them after it took the whole list with one swap (*acquire*). Every return is a read-modify-write
//!   of `head`, so all returns on the list belong to one release sequence, and the one swap synchronises with
//!   each of them.
//! - Only the owner removes, and it removes everything at once. So ABA does no harm: if `head` still holds
//!   the number that was read, that block is the top of the list now, and linking to it is right.
//! - `EMPTY`: the list is empty. `STARVING`: the list is empty, and the owner is going to sleep and needs a
//!   block; the thread that replaces it must wake the owner. It is a value of `head` and not a flag beside
//!   it. So reading it and returning the block are one step, and exactly one return answers each request.
//!   `CLOSED`: the owner is gone, and returns are only counted.
//!
//! # Who frees the region
//!
//! The [`SharedRegion`] (which owns the region) lives in a shared allocation. A thread that has put its block
//! on the list must not touch that allocation again: the owner may take the block, end and free it at once.
//! `holders` counts what keeps the allocation alive, but not on the hot path:
//!
//! - While the owner lives, `holders` is `OWNER` (more than there can be blocks) plus the *pins*. The owner
//!   counts the blocks that are out in a plain cell.
//! - A thread that sees `STARVING` needs the region *after* it gave its block away, to wake the owner. So it
//!   pins: it adds 1 while its block still keeps everything alive, and subtracts it after the wake.
//! - [`Owner::close`] swaps `CLOSED` into `head`. From then on nothing gets onto the list, and each block
//!   that is still out will subtract 1 from `holders`, perhaps before the owner goes on. The owner counts the
//!   blocks that came back. In one step it adds the number of those still out, less `OWNER`.
//!
//! Before that step `holders` cannot reach zero, because fewer than `OWNER` blocks can subtract. After it,
//! `holders` is exactly the number of blocks out and pins. Each subtraction stands for one of them. So
//! exactly one party, the closing owner or the last holder, brings it to zero, and that party frees the
//! region. Every change of `holders` that may be the last is *acquire-release*, so every access to a block or
//! to the region happens before the region is freed.
//!
//! An owner that is dropped without `close` never frees anything. Closing is only right when the kernel is
//! known to be done with the blocks; blocks that are not known to be back are leaked.

use std::cell::Cell;
use std::fmt;
use std::iter;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

mod block_ref;
mod links;
mod whose;
pub(crate) use block_ref::BlockRef;
use links::Links;
use whose::{Holder, Whose};

/// `head`: the list is empty.
const EMPTY: u32 = u32::MAX;
/// `head`: the list is empty, and the next return must wake the owner.
const STARVING: u32 = u32::MAX - 1;
/// `head`: the owner has ended, and nothing goes onto the list any more.
const CLOSED: u32 = u32::MAX - 2;
/// Block numbers lie below this.
const MARKS: u32 = CLOSED;
/// What the living owner adds to `holders`: more than there can be blocks and pins. A block makes at most one
/// pin.
const OWNER: u64 = 1 << 40;

/// Owns the region and can reach its core. The region is freed when this is dropped, on whichever thread is
/// last.
pub(crate) trait SharedRegion: Send + Sync {
    /// Wakes the owner if it sleeps, because it ran out of blocks and one came back. Called on the returning
    /// thread.
    fn wake_owner(&self);
}

struct Shared<R> {
    links: Links,
    whose: Whose,
    region: R,
    ends: Ends,
}

/// The words that other threads write. They have a cache line of their own (two, because CPUs fetch lines in
/// pairs), because every [`BlockRef::as_ptr`] reads the words before them.
#[repr(align(128))]
struct Ends {
    head: AtomicU32,
    holders: AtomicU64,
}

/// The core's side: hands blocks out and takes them back. It stays on its thread.
pub(crate) struct Owner<R: SharedRegion> {
    shared: NonNull<Shared<R>>,
    blocks: u32,
    /// Blocks that are handed out and not yet back with the owner. Those on the list and in `detached` count.
    taken: Cell<u32>,
    /// The top of a list that was taken from `head` and is not used up yet; `EMPTY` for none.
    detached: Cell<u32>,
    region: PhantomData<R>,
}

impl<R: SharedRegion> Owner<R> {
    /// An owner that can have `extents` times `per_extent` blocks of `block_size` bytes. It has none yet.
    ///
    /// # Panics
    ///
    /// If a block is too small for a link (4 bytes), `per_extent` is no power of two, or there are more
    /// blocks than 32-bit numbers for them.
    pub(crate) fn new(block_size: usize, per_extent: u32, extents: u32, region: R) -> Owner<R> {
        assert!(block_size >= size_of::<u32>(), "a block must hold a link");
        assert!(per_extent.is_power_of_two(), "a block's extent is told by a shift");
        let blocks = per_extent.checked_mul(extents).filter(|&blocks| blocks <= MARKS);
        let blocks = blocks.expect("as many numbers as blocks");
        let links = Links::new(block_size, per_extent, extents);
        let ends = Ends { head: AtomicU32::new(EMPTY), holders: AtomicU64::new(OWNER) };
        let shared =
            NonNull::from(Box::leak(Box::new(Shared { links, whose: Whose::new(blocks), region, ends })));
        Owner { shared, blocks, taken: Cell::new(0), detached: Cell::new(EMPTY), region: PhantomData }
    }

    /// Takes over the memory of one extent, whose first block gets the number `first`. No block is handed out
    /// yet.
    ///
    /// # Panics
    ///
    /// If there is no such number. In debug builds also if `first` is not the first block of an extent, or
    /// was added before.
    ///
    /// # Safety
    ///
    /// `first` is a multiple of the blocks per extent, and its extent was not added before. From `base` on,
    /// the bytes of every block of the extent that will ever be handed out are valid for reads and writes
    /// from any thread until the region is dropped. The caller keeps track of which blocks are free, and
    /// nobody else touches a block that is out.
    pub(crate) unsafe fn add(&self, first: u32, base: NonNull<u8>) {
        self.shared().links.add(first, base);
    }

    fn shared(&self) -> &Shared<R> {
        // SAFETY: the owner's own share in `holders` keeps it alive; `close` and `leak` consume the owner.
        unsafe { self.shared.as_ref() }
    }

    /// The region and its core.
    pub(crate) fn region(&self) -> &R {
        &self.shared().region
    }

    /// How many blocks are out: held, or returned on another thread and not drained yet.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn taken(&self) -> u32 {
        self.taken.get()
    }

    /// The address of block `index`.
    ///
    /// # Safety
    ///
    /// The block's extent was added, with memory for it.
    pub(crate) unsafe fn address(&self, index: u32) -> NonNull<u8> {
        // SAFETY: the caller promises that the extent was added; the owner keeps the memory.
        unsafe { self.shared().links.block(index) }
    }

    /// Lends block `index` out.
    ///
    /// # Panics
    ///
    /// If there is no such block. In debug builds also if it is not free.
    ///
    /// # Safety
    ///
    /// The block's extent was added, with memory for it. The block is free: it was never handed out, or has
    /// come back through [`take_back`](Owner::take_back) or [`drain`](Owner::drain) since. Neither the owner
    /// nor the kernel uses it until it comes back.
    pub(crate) unsafe fn hand_out(&self, index: u32) -> BlockRef<R> {
        assert!(index < self.blocks, "no block {index} of {}", self.blocks);
        self.shared().whose.goes(index, Holder::Owner, Holder::BlockRef);
        self.taken.set(self.taken.get() + 1);
        BlockRef { shared: self.shared, index, region: PhantomData }
    }

    /// A handle on block `index`, which is out.
    ///
    /// # Safety
    ///
    /// The block was handed out and has not come back. The caller counts the handles. It drops or gives back
    /// only the last one, and forgets the others.
    pub(crate) unsafe fn handle(&self, index: u32) -> BlockRef<R> {
        self.shared().whose.goes(index, Holder::BlockRef, Holder::BlockRef);
        BlockRef { shared: self.shared, index, region: PhantomData }
    }

    /// Whether `held` is a block of this owner.
    pub(crate) fn owns(&self, held: &BlockRef<R>) -> bool {
        self.shared == held.shared
    }

    /// Takes a block back on the owner's thread, without an atomic operation. Returns its number.
    ///
    /// # Errors
    ///
    /// The block is another owner's: it is returned, and dropping it gives it back to that owner.
    pub(crate) fn take_back(&self, held: BlockRef<R>) -> Result<u32, BlockRef<R>> {
        if !self.owns(&held) {
            return Err(held);
        }
        let index = held.index;
        mem::forget(held);
        self.shared().whose.goes(index, Holder::BlockRef, Holder::Owner);
        self.taken.set(self.taken.get() - 1);
        Ok(index)
    }

    /// Whether [`drain`](Owner::drain) would give something: one relaxed load.
    pub(crate) fn has_returns(&self) -> bool {
        self.detached.get() < MARKS || self.shared().ends.head.load(Ordering::Relaxed) < MARKS
    }

    /// The numbers of the blocks that came back on other threads, in no order. Numbers that are not taken
    /// stay for the next call.
    pub(crate) fn drain(&self) -> impl Iterator<Item = u32> + '_ {
        iter::from_fn(|| {
            if self.detached.get() >= MARKS {
                // The load comes first: usually the list is empty, and `STARVING` must stay until a return
                // answers it.
                let head = &self.shared().ends.head;
                if head.load(Ordering::Relaxed) >= MARKS {
                    return None;
                }
                self.detached.set(head.swap(EMPTY, Ordering::Acquire));
            }
            let index = self.detached.get();
            self.shared().whose.goes(index, Holder::List, Holder::Owner);
            // SAFETY: the swap took the list off `head`; nobody else has it.
            self.detached.set(unsafe { self.shared().links.get(index) });
            self.taken.set(self.taken.get() - 1);
            Some(index)
        })
    }

    /// Asks for a wake ([`SharedRegion::wake_owner`]) by the next return on another thread. `false`: blocks
    /// have come back already, and the caller drains them first.
    ///
    /// It is for an owner without free blocks, between [`Doorbell::prepare_sleep`] and the sleep. The request
    /// stands until a return answers it, even if blocks come back on the owner's thread meanwhile. In that
    /// case it costs one wake that was not needed.
    ///
    /// [`Doorbell::prepare_sleep`]: crate::sync::mailbox::Doorbell::prepare_sleep
    pub(crate) fn starve(&self) -> bool {
        self.detached.get() >= MARKS
            && match self.shared().ends.head.compare_exchange(
                EMPTY,
                STARVING,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => true,
                Err(head) => head == STARVING,
            }
    }

    /// Ends the owner. The region is freed now if no block is out, else when the last block is dropped.
    /// Returns how many blocks were out at that moment.
    ///
    /// # Safety
    ///
    /// From here on only the holders of blocks use the region. In particular the kernel has given up the free
    /// buffers: their ring is unregistered, and every operation that may write into them has been reaped.
    pub(crate) unsafe fn close(self) -> u32 {
        let shared = self.shared();
        let listed = shared.ends.head.swap(CLOSED, Ordering::Acquire);
        let mut out = self.taken.get();
        for mut top in [listed, self.detached.get()] {
            while top < MARKS {
                out -= 1;
                shared.whose.goes(top, Holder::List, Holder::Owner);
                // SAFETY: both lists have been taken off `head`; nobody else has them.
                top = unsafe { shared.links.get(top) };
            }
        }
        // One step from `OWNER - gone + pins` to `out - gone + pins`; see the module's documentation. The
        // addition wraps, as intended.
        let change = u64::from(out).wrapping_sub(OWNER);
        let before = shared.ends.holders.fetch_add(change, Ordering::AcqRel);
        if before.wrapping_add(change) == 0 {
            // SAFETY: zero is reached once, and nobody is left who may use the allocation.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
        out
    }

    /// Gives the region up without ever freeing it, because the kernel may still write into it. Blocks that
    /// are out stay usable. Dropping an owner does the same; this name says so.
    pub(crate) fn leak(self) {
        // An owner has no destructor, so `holders` keeps its `OWNER` for ever.
        let Owner { .. } = self;
    }
}

/// Returns block `index`. The caller holds it, and does not use it afterwards.
///
/// `shared` is a pointer and not a reference because the allocation may be freed before this function
/// returns.
fn give_back<R: SharedRegion>(shared: NonNull<Shared<R>>, index: u32) {
    // SAFETY: our block is out and keeps the allocation alive until the compare-and-swap below gives it away,
    // or until `let_go`. After that, `it` is used only under a pin.
    let it = unsafe { &*shared.as_ptr() };
    it.whose.goes(index, Holder::BlockRef, Holder::List);
    let mut pinned = false;
    let mut head = it.ends.head.load(Ordering::Relaxed);
    loop {
        if head == CLOSED {
            return let_go(shared, 1 + u64::from(pinned));
        }
        if head == STARVING && !pinned {
            it.ends.holders.fetch_add(1, Ordering::Relaxed);
            pinned = true;
        }
        // SAFETY: we hold the block alone until the next line succeeds.
        unsafe { it.links.set(index, if head == STARVING { EMPTY } else { head }) };
        // Acquire goes with the release in `starve`: the thread that is to wake the owner sees what the owner
        // did before it asked.
        match it.ends.head.compare_exchange_weak(head, index, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => head = now,
        }
    }
    if pinned {
        if head == STARVING {
            it.region.wake_owner();
        }
        let_go(shared, 1);
    }
}

/// Subtracts `count`, which is the caller's, from `holders`, and frees the region if none is left.
fn let_go<R: SharedRegion>(shared: NonNull<Shared<R>>, count: u64) {
    // SAFETY: the count that the caller subtracts has kept the allocation alive until here.
    let before = unsafe { &(*shared.as_ptr()).ends.holders }.fetch_sub(count, Ordering::AcqRel);
    if before == count {
        // SAFETY: zero is reached once, after the owner closed, and nobody is left who may use the
        // allocation.
        drop(unsafe { Box::from_raw(shared.as_ptr()) });
    }
}

impl<R: SharedRegion> fmt::Debug for Owner<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("blocks", &self.blocks).field("taken", &self.taken.get()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
