//! Every interleaving of small cases, and every reordering that the memory model allows.
//!
//! The region's memory is a loom cell that the holders of blocks read and the region's drop writes. The
//! region is reached through a loom `Arc`. So the model fails when a region is freed early, twice or never,
//! and when a free is not ordered behind every use.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::{BlockRef, Owner, SharedRegion};
use crate::sync::mailbox::Doorbell;
use crate::sync::model::{BothOrders, check};

/// Outlives the region and records what happens.
struct Core {
    doorbell: Doorbell,
    signal: Notify,
    wakes: AtomicUsize,
    freed: AtomicUsize,
    /// Written by the owner before it starves, and read by the thread that is to wake it.
    note: UnsafeCell<u32>,
    /// A returning thread passes here after each return, and the owner before each check.
    both_orders: BothOrders,
}

struct TestRegion {
    core: Arc<Core>,
    memory: Arc<UnsafeCell<u32>>,
    bytes: Box<[u8]>,
    /// Read by `wake_owner` and written by drop: a region used after it was freed.
    alive: UnsafeCell<bool>,
}

// SAFETY: the cells are watched by loom, which is what they are for.
unsafe impl Send for TestRegion {}
// SAFETY: as above.
unsafe impl Sync for TestRegion {}

impl SharedRegion for TestRegion {
    fn wake_owner(&self) {
        // SAFETY: loom checks that nobody writes meanwhile.
        assert!(self.alive.with(|alive| unsafe { *alive }));
        // SAFETY: as above.
        self.core.note.with(|note| unsafe { *note });
        self.core.wakes.fetch_add(1, Ordering::Relaxed);
        if self.core.doorbell.notify() {
            self.core.signal.notify();
        }
    }
}

impl Drop for TestRegion {
    fn drop(&mut self) {
        // SAFETY: loom checks that every use of region and memory happened before.
        self.alive.with_mut(|alive| unsafe { *alive = false });
        // SAFETY: as above.
        self.memory.with_mut(|memory| unsafe { *memory = 0 });
        assert_eq!(self.core.freed.fetch_add(1, Ordering::Relaxed), 0);
    }
}

struct Block {
    held: BlockRef<TestRegion>,
    memory: Arc<UnsafeCell<u32>>,
    core: Arc<Core>,
}

// SAFETY: the memory is watched by loom.
unsafe impl Send for Block {}

impl Block {
    /// Accesses the region and returns the block.
    fn drop_after_use(self) {
        // SAFETY: loom checks that nobody frees meanwhile.
        assert_eq!(self.memory.with(|memory| unsafe { *memory }), 7);
        drop(self.held);
        self.core.both_orders.pass();
    }
}

fn owner(blocks: u32) -> (Owner<TestRegion>, Vec<Block>, Arc<Core>) {
    let core = Arc::new(Core {
        doorbell: Doorbell::new(),
        signal: Notify::new(),
        wakes: AtomicUsize::new(0),
        freed: AtomicUsize::new(0),
        note: UnsafeCell::new(0),
        both_orders: BothOrders::new(),
    });
    let memory = Arc::new(UnsafeCell::new(7));
    let mut bytes = vec![0; 4 * blocks as usize].into_boxed_slice();
    let base = NonNull::from(&mut *bytes).cast();
    let region =
        TestRegion { core: core.clone(), memory: memory.clone(), bytes, alive: UnsafeCell::new(true) };
    assert_eq!(region.bytes.len(), 4 * blocks as usize);
    let owner = Owner::new(4, blocks.next_power_of_two(), 1, region);
    // SAFETY: the bytes live as long as the region.
    unsafe { owner.add(0, base) };
    let block = |index| {
        // SAFETY: each block is handed out once.
        let held = unsafe { owner.hand_out(index) };
        Block { held, memory: memory.clone(), core: core.clone() }
    };
    let blocks = (0..blocks).map(block).collect();
    (owner, blocks, core)
}

fn drop_elsewhere(blocks: Vec<Block>) -> Vec<thread::JoinHandle<()>> {
    blocks.into_iter().map(|block| thread::spawn(move || block.drop_after_use())).collect()
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn returns_reach_the_owner_whole_and_once() {
    check(4, || {
        let (owner, blocks, core) = owner(2);
        let threads = drop_elsewhere(blocks);
        core.both_orders.pass();
        let mut back: Vec<u32> = owner.drain().collect();
        join(threads);
        back.extend(owner.drain());
        back.sort_unstable();
        assert_eq!(back, [0, 1]);
        assert_eq!(owner.taken(), 0);
        // SAFETY: no kernel here.
        assert_eq!(unsafe { owner.close() }, 0);
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn close_against_two_returns() {
    check(4, || {
        let (owner, blocks, core) = owner(2);
        let threads = drop_elsewhere(blocks);
        // SAFETY: no kernel here.
        unsafe { owner.close() };
        join(threads);
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}

/// A block that came back goes out again to another thread, while an earlier one is being returned and the
/// owner ends.
#[test]
fn a_block_goes_out_a_second_time() {
    check(4, || {
        let (owner, blocks, core) = owner(2);
        let memory = blocks[0].memory.clone();
        let mut threads = drop_elsewhere(blocks);
        core.both_orders.pass();
        if let Some(index) = { owner.drain().next() } {
            // SAFETY: the block has just come back.
            let block = Block { held: unsafe { owner.hand_out(index) }, memory, core: core.clone() };
            if index == 0 {
                threads.extend(drop_elsewhere(vec![block]));
            } else {
                assert_eq!(owner.take_back(block.held).unwrap(), 1);
            }
        }
        // SAFETY: no kernel here.
        unsafe { owner.close() };
        join(threads);
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}

/// The owner has no block and sleeps until one comes. A lost wake is a deadlock, which loom reports.
#[test]
fn a_starving_owner_is_woken() {
    check(2, || {
        let (owner, blocks, core) = owner(2);
        let threads = drop_elsewhere(blocks);
        // SAFETY: nobody is to wake the owner yet, so nobody reads the note; loom checks that.
        core.note.with_mut(|note| unsafe { *note = 1 });
        let mut back = 0;
        while back < 2 {
            core.doorbell.prepare_sleep();
            core.both_orders.pass();
            if owner.starve() {
                core.signal.wait();
            }
            core.doorbell.cancel_sleep();
            core.both_orders.pass();
            back += owner.drain().count();
        }
        join(threads);
        assert!(core.wakes.load(Ordering::Relaxed) <= 2);
        // SAFETY: no kernel here.
        unsafe { owner.close() };
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}

/// The thread that wakes the owner needs the region after its block is gone: the owner may take that block
/// and end at once.
#[test]
fn the_keeper_outlives_the_wake() {
    check(4, || {
        let (owner, blocks, core) = owner(2);
        let threads = drop_elsewhere(blocks);
        // SAFETY: nobody is to wake the owner yet, so nobody reads the note; loom checks that.
        core.note.with_mut(|note| unsafe { *note = 1 });
        core.both_orders.pass();
        owner.starve();
        // It was not drained before: `close` itself counts what came back.
        // SAFETY: no kernel here.
        unsafe { owner.close() };
        join(threads);
        assert!(core.wakes.load(Ordering::Relaxed) <= 1);
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}

/// The request stands from an earlier sleep that another event ended. It must still be answered.
#[test]
fn an_old_request_is_answered_too() {
    check(4, || {
        let (owner, blocks, core) = owner(1);
        core.doorbell.prepare_sleep();
        assert!(owner.starve());
        core.doorbell.cancel_sleep();
        let threads = drop_elsewhere(blocks);
        // A loop, because loom's wait may also end without a reason.
        while owner.drain().next().is_none() {
            core.doorbell.prepare_sleep();
            core.both_orders.pass();
            if owner.starve() {
                core.signal.wait();
            }
            core.doorbell.cancel_sleep();
        }
        join(threads);
        // SAFETY: no kernel here.
        unsafe { owner.close() };
        assert_eq!(core.freed.load(Ordering::Relaxed), 1);
    });
}
