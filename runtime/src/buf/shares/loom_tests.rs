//! The kernel goes on in a buffer while leases on earlier bytes are dropped on other threads.
//!
//! The buffer is a loom cell. The holders of leases read it, and the owner writes it once it is back, as the
//! kernel would. So the model fails when a buffer comes back early, and when its return is not ordered behind
//! every use. A buffer that never comes back, or comes back twice, is counted.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::super::returns::{BlockRef, Owner, SharedRegion};
use super::Shares;
use crate::sync::model::{BothOrders, check};

/// A region that keeps nothing: the test does.
struct Nothing;

impl SharedRegion for Nothing {
    fn wake_owner(&self) {}
}

struct Buffer {
    shares: Shares,
    bytes: UnsafeCell<u32>,
    both_orders: BothOrders,
}

// SAFETY: the cell is watched by loom.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

/// Reads the buffer, and drops the lease as `Lease` does on a thread that is no core's.
fn drop_after_use(buffer: &Buffer, held: BlockRef<Nothing>) {
    // SAFETY: loom checks that nobody writes meanwhile.
    assert_eq!(buffer.bytes.with(|bytes| unsafe { *bytes }), 7);
    if buffer.shares.give_up() {
        drop(held)
    } else {
        std::mem::forget(held)
    }
    buffer.both_orders.pass();
}

#[test]
fn a_buffer_that_the_kernel_goes_on_in_comes_home_once_and_last() {
    check(3, || {
        let link = Box::leak(Box::new(0_u32));
        let owner = Owner::new(4, 1, 1, Nothing);
        // SAFETY: the link is leaked until the end of the test.
        unsafe { owner.add(0, NonNull::from(&mut *link).cast()) };
        let buffer = Arc::new(Buffer {
            shares: Shares::none(),
            bytes: UnsafeCell::new(7),
            both_orders: BothOrders::new(),
        });
        // The first CQE: the core's own share.
        // SAFETY: the only block is free.
        let own = unsafe { owner.hand_out(0) };
        buffer.shares.begin();
        let lend = |held: BlockRef<Nothing>| {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || drop_after_use(&buffer, held))
        };
        // Two chunks are taken, one after the other, and the kernel goes on.
        buffer.shares.add();
        // SAFETY: counted as a share.
        let first = lend(unsafe { own.duplicate() });
        buffer.both_orders.pass();
        buffer.shares.add();
        // SAFETY: as above.
        let second = lend(unsafe { own.duplicate() });
        buffer.both_orders.pass();
        // The kernel is done with the buffer, and no chunk waits.
        let mut back = 0;
        if buffer.shares.give_up() {
            assert_eq!(owner.take_back(own).ok(), Some(0));
            back += 1;
        } else {
            std::mem::forget(own);
        }
        buffer.both_orders.pass();
        back += owner.drain().count();
        if back == 1 {
            // SAFETY: it is back; loom checks that nobody reads it any more.
            buffer.bytes.with_mut(|bytes| unsafe { *bytes = 8 });
        }
        first.join().unwrap();
        second.join().unwrap();
        back += owner.drain().count();
        assert_eq!((back, owner.taken()), (1, 0));
        // SAFETY: no kernel here.
        assert_eq!(unsafe { owner.close() }, 0);
        // SAFETY: it was leaked above, and nobody else has it any more.
        drop(unsafe { Box::from_raw(link) });
    });
}
