use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{BlockRef, Owner, SharedRegion};

/// A region on the heap, so that a sanitizer detects a use after it was freed. It counts what happens to it.
struct TestRegion {
    base: NonNull<u8>,
    layout: std::alloc::Layout,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    freed: AtomicUsize,
    wakes: AtomicUsize,
}

impl Seen {
    fn freed(&self) -> usize {
        self.freed.load(Ordering::SeqCst)
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

// SAFETY: the region is plain memory that is tied to no thread; only `Drop` uses the pointer.
unsafe impl Send for TestRegion {}
// SAFETY: as above.
unsafe impl Sync for TestRegion {}

impl SharedRegion for TestRegion {
    fn wake_owner(&self) {
        self.seen.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for TestRegion {
    fn drop(&mut self) {
        self.seen.freed.fetch_add(1, Ordering::SeqCst);
        // SAFETY: `owner` below allocated it with this layout, and the region is dropped once, last.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) };
    }
}

fn owner(block_size: usize, blocks: u32) -> (Owner<TestRegion>, Arc<Seen>) {
    let layout =
        std::alloc::Layout::from_size_align(block_size * blocks as usize, 1).expect("a small region");
    // SAFETY: the layout is not empty.
    let base = NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("memory for a test");
    let seen = Arc::<Seen>::default();
    let region = TestRegion { base, layout, seen: seen.clone() };
    let owner = Owner::new(block_size, blocks.next_power_of_two(), 1, region);
    // SAFETY: the region has this size, and its drop frees it.
    unsafe { owner.add(0, base) };
    (owner, seen)
}

/// An owner, and the list of free blocks that its caller keeps.
struct TestOwner {
    owner: Owner<TestRegion>,
    free: Vec<u32>,
}

impl TestOwner {
    fn new(block_size: usize, blocks: u32) -> (TestOwner, Arc<Seen>) {
        let (owner, seen) = owner(block_size, blocks);
        (TestOwner { owner, free: (0..blocks).rev().collect() }, seen)
    }

    fn take(&mut self) -> Option<BlockRef<TestRegion>> {
        self.free.extend(self.owner.drain());
        // SAFETY: `free` holds the numbers of the free blocks, and no kernel uses them.
        self.free.pop().map(|index| unsafe { self.owner.hand_out(index) })
    }

    fn close(self) -> u32 {
        // SAFETY: no kernel uses the blocks.
        unsafe { self.owner.close() }
    }
}

fn fill(held: &BlockRef<TestRegion>, len: usize, value: u8) {
    // SAFETY: a held block belongs to its holder alone, and `len` is the block size.
    unsafe { held.as_ptr().write_bytes(value, len) };
}

fn holds(held: &BlockRef<TestRegion>, len: usize, value: u8) -> bool {
    // SAFETY: as in `fill`, which wrote the block.
    unsafe { std::slice::from_raw_parts(held.as_ptr().as_ptr(), len) }.iter().all(|byte| *byte == value)
}

/// A return on another thread, as far as the owner can tell: a drop without `take_back` goes onto the list.
fn elsewhere(held: BlockRef<TestRegion>) {
    drop(held);
}

#[test]
fn blocks_lie_side_by_side_and_come_back_on_both_ways() {
    let (pool, seen) = TestOwner::new(7, 3);
    // SAFETY: nothing was handed out before.
    let [a, b, c] = [0, 1, 2].map(|index| unsafe { pool.owner.hand_out(index) });
    assert_eq!(b.as_ptr().addr().get() - a.as_ptr().addr().get(), 7);
    assert_eq!((a.index(), b.index(), c.index()), (0, 1, 2));
    assert_eq!(pool.owner.taken(), 3);
    assert!(!pool.owner.has_returns());

    assert_eq!(pool.owner.take_back(b).ok(), Some(1));
    assert_eq!(pool.owner.taken(), 2);
    assert!(!pool.owner.has_returns());

    elsewhere(a);
    elsewhere(c);
    assert!(pool.owner.has_returns());
    assert_eq!(pool.owner.taken(), 2, "blocks on the list are out until drained");
    assert_eq!(pool.owner.drain().collect::<HashSet<_>>(), HashSet::from([0, 2]));
    assert_eq!(pool.owner.taken(), 0);
    assert!(!pool.owner.has_returns());

    assert_eq!(pool.close(), 0);
    assert_eq!(seen.freed(), 1);
}

#[test]
fn a_drain_that_is_broken_off_goes_on_later() {
    let (mut pool, seen) = TestOwner::new(4, 4);
    let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    held.into_iter().for_each(elsewhere);
    assert_eq!(pool.owner.drain().take(1).count(), 1);
    assert!(pool.owner.has_returns());
    assert!(!pool.owner.starve(), "there is something to drain");
    assert_eq!(pool.owner.taken(), 3);
    assert_eq!(pool.owner.drain().take(1).count(), 1);
    // Two blocks are still in the list that was detached: they are back, and `close` counts them.
    assert_eq!(pool.close(), 0);
    assert_eq!(seen.freed(), 1);
}

#[test]
fn a_block_of_another_owner_is_not_taken_but_still_finds_its_owner() {
    let (mut one, seen_one) = TestOwner::new(8, 1);
    let (two, seen_two) = TestOwner::new(8, 1);
    let held = one.take().expect("one block");
    let held = two.owner.take_back(held).expect_err("not of this owner");
    elsewhere(held);
    assert!(one.owner.has_returns());
    assert_eq!((one.close(), two.close()), (0, 0));
    assert_eq!((seen_one.freed(), seen_two.freed()), (1, 1));
}

#[test]
fn the_last_block_frees_the_region_when_the_owner_has_ended() {
    let (mut pool, seen) = TestOwner::new(16, 3);
    let [a, b, c] = [(); 3].map(|()| pool.take().expect("three blocks"));
    elsewhere(a);
    assert_eq!(pool.close(), 2);
    assert_eq!(seen.freed(), 0);
    fill(&b, 16, 0xB0);
    elsewhere(c);
    assert_eq!(seen.freed(), 0);
    assert!(holds(&b, 16, 0xB0));
    thread::spawn(move || elsewhere(b)).join().expect("a drop does not panic");
    assert_eq!(seen.freed(), 1);
    assert_eq!(seen.wakes(), 0);
}

#[test]
fn a_starving_owner_is_woken_once_for_each_request() {
    let (mut pool, seen) = TestOwner::new(4, 2);
    let (a, b) = (pool.take().expect("two blocks"), pool.take().expect("two blocks"));
    assert!(pool.take().is_none());
    assert!(pool.owner.starve());
    assert!(pool.owner.starve(), "it may ask again");
    assert!(!pool.owner.has_returns());
    assert_eq!(pool.owner.drain().count(), 0);
    elsewhere(a);
    assert_eq!(seen.wakes(), 1);
    elsewhere(b);
    assert_eq!(seen.wakes(), 1);
    assert!(!pool.owner.starve());
    assert_eq!(pool.owner.drain().count(), 2);
    assert_eq!(pool.close(), 0);
    assert_eq!(seen.freed(), 1);
}

#[test]
fn closing_while_starving_wakes_nobody() {
    let (mut pool, seen) = TestOwner::new(4, 1);
    let held = pool.take().expect("one block");
    assert!(pool.owner.starve());
    assert_eq!(pool.close(), 1);
    elsewhere(held);
    assert_eq!((seen.wakes(), seen.freed()), (0, 1));
}

#[test]
fn what_is_leaked_is_never_freed_and_stays_usable() {
    let (mut pool, seen) = TestOwner::new(32, 2);
    let (a, b) = (pool.take().expect("two blocks"), pool.take().expect("two blocks"));
    // The test frees it, so that it passes under a leak checker: `leak` gives up the pointer.
    let shared = pool.owner.shared;
    pool.owner.leak();
    fill(&a, 32, 1);
    elsewhere(b);
    assert!(holds(&a, 32, 1));
    elsewhere(a);
    assert_eq!(seen.freed(), 0);
    // SAFETY: the owner is gone, both blocks are back, and nobody else knows the allocation.
    drop(unsafe { Box::from_raw(shared.as_ptr()) });
}

/// The owner writes blocks. Other threads read, write and drop them, while the owner hands out, drains and
/// finally ends.
#[test]
fn blocks_go_round_between_threads_until_the_region_is_freed_once() {
    const BLOCK: usize = 64;
    const THREADS: usize = 3;
    for round in 0..20_u8 {
        let (mut pool, seen) = TestOwner::new(BLOCK, 8);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::channel::<(u8, BlockRef<TestRegion>)>()).unzip();
        let threads: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                let seen = seen.clone();
                thread::spawn(move || {
                    for (value, held) in receiver {
                        assert_eq!(seen.freed(), 0);
                        assert!(holds(&held, BLOCK, value));
                        fill(&held, BLOCK, !value);
                        elsewhere(held);
                    }
                })
            })
            .collect();
        let mut sent = 0;
        while sent < 2_000 {
            let Some(held) = pool.take() else {
                thread::yield_now();
                continue;
            };
            let value = round.wrapping_add(sent as u8);
            fill(&held, BLOCK, value);
            if sent % 7 == 0 {
                let index = pool.owner.take_back(held).expect("our own block");
                pool.free.push(index);
            } else {
                senders[sent % THREADS].send((value, held)).expect("the threads live on");
            }
            sent += 1;
        }
        let out = pool.close();
        assert!(out <= 8);
        drop(senders);
        for thread in threads {
            thread.join().expect("no thread panics");
        }
        assert_eq!(seen.freed(), 1);
    }
}

/// Seen to fail: without the assertion of `hand_out`, of `handle`, of `give_back`, and each of the two of
/// `Links::add`.
#[cfg(debug_assertions)]
#[test]
fn what_the_owner_promises_is_asserted() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::links::Links;

    fn is_refused(f: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(f)).is_err()
    }

    let (pool, _) = TestOwner::new(8, 4);
    let owner = &pool.owner;
    // SAFETY: the first time it is free; the second time the assertion is what is tested.
    let hand_out = |index| unsafe { owner.hand_out(index) };
    let held = hand_out(1);
    assert!(is_refused(|| std::mem::forget(hand_out(1))), "a block that is out is handed out");
    // SAFETY: the block is out.
    let second = unsafe { owner.handle(1) };
    drop(held);
    assert!(is_refused(|| drop(second)), "both handles are dropped");
    // SAFETY: the assertion is what is tested; where it is missing, nobody uses the handle.
    assert!(is_refused(|| std::mem::forget(unsafe { owner.handle(1) })), "a block has come back");
    assert_eq!(owner.drain().collect::<Vec<_>>(), [1]);
    // SAFETY: as above.
    let free = || std::mem::forget(unsafe { owner.handle(0) });
    assert!(is_refused(free), "a block was never handed out");

    let base = pool.owner.region().base;
    let links = Links::new(8, 4, 2);
    links.add(4, base);
    assert!(is_refused(|| links.add(4, base)), "an extent is added twice");
    assert!(is_refused(|| links.add(2, base)), "a block within an extent");
    assert_eq!(pool.close(), 0);
}
