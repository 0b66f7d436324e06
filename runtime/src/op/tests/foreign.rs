//! Foreign code while an operation is asked for and waited for: which waker it keeps, wakers that use the
//! runtime while they are cloned and dropped, and buffers that panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU32;
use std::task::{Poll, RawWaker, RawWakerVTable};

use super::*;
use crate::task::yield_now;
use crate::testing::link_of;

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll_once<T: Operation>(future: &mut OpFuture<T>, waker: &Waker) -> Poll<()> {
    Pin::new(future).poll(&mut Context::from_waker(waker)).map(drop)
}

/// An operation that waits, and the other end, which makes it complete.
fn waits() -> (OpFuture<poll::PollOnce<Fd>>, UnixStream) {
    let (ours, theirs) = silent();
    (OpFuture::new(poll::PollOnce { fd: Fd(ours), ready: poll::Ready::Read }), theirs)
}

/// Seen to fail: with the first waker kept (B is never woken), with the one before not dropped, and with a
/// clone left behind by each poll.
#[test]
fn an_operation_wakes_by_the_waker_of_its_last_poll_and_keeps_no_other() {
    on_a_core(small(64), async || {
        let counts = [(); 2].map(|()| Arc::new(Count::default()));
        let [a, b] = [0, 1].map(|n: usize| Waker::from(Arc::clone(&counts[n])));
        let kept = || [0, 1].map(|n: usize| Arc::strong_count(&counts[n]) - 2);
        let woken = || [0, 1].map(|n: usize| counts[n].0.load(Ordering::Relaxed));
        let (mut future, mut theirs) = waits();
        for _ in 0..3 {
            assert!(poll_once(&mut future, &a).is_pending());
            assert_eq!(kept(), [1, 0]);
        }
        assert!(poll_once(&mut future, &b).is_pending());
        assert_eq!(kept(), [0, 1]);
        theirs.write_all(b"come").unwrap();
        until("the answer", || woken() != [0, 0]).await;
        yield_now().await;
        assert_eq!((woken(), kept()), ([0, 1], [0, 0]));
        assert!(poll_once(&mut future, &a).is_ready());
        assert_eq!(kept(), [0, 0]);
    });
}

/// A waker of another executor. It uses the core's table when it is cloned, woken and dropped. Each has its
/// own `number`.
fn meddler(number: usize) -> Waker {
    fn meddle(_: *const ()) {
        Core::try_with(|core| core.ops.len());
    }
    fn clone(number: *const ()) -> RawWaker {
        meddle(number);
        RawWaker::new(number, &VTABLE)
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, meddle, meddle, meddle);
    // SAFETY: no data is behind the pointer, and no function of the table follows it.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::without_provenance(number), &VTABLE)) }
}

/// Seen to fail ("already mutably borrowed"): with the waker cloned, and with the old one dropped, while the
/// table is borrowed.
#[test]
fn a_waker_may_use_the_table_while_it_is_cloned_and_dropped() {
    on_a_core(small(64), async || {
        let wakers = [1, 2].map(meddler);
        let (mut future, mut theirs) = waits();
        for round in 0..4 {
            assert!(poll_once(&mut future, &wakers[round % 2]).is_pending());
        }
        theirs.write_all(b"come").unwrap();
        until("the answer", || poll_once(&mut future, &wakers[0]).is_ready()).await;
        let before = alive();
        let (mut dropped, _theirs) = waits();
        assert!(poll_once(&mut dropped, &wakers[1]).is_pending());
        drop(dropped);
        until("its end", || alive() == before).await;
    });
}

/// Panics when it is asked for its bytes, and perhaps again when it is dropped.
struct Panics {
    also_dropped: bool,
    _seen: Rc<()>,
}

// SAFETY: it never gives any bytes.
unsafe impl IoBuf for Panics {
    fn bytes(&self) -> &[u8] {
        panic!("no bytes")
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.also_dropped, "no end either");
    }
}

/// Nothing was submitted, so everything is given back.
///
/// Seen to fail: with the value left in its cell, with the slot not made vacant, and with a second panic not
/// contained (the process aborts).
#[test]
fn an_operation_whose_buffer_panics_gives_all_back() {
    on_a_core(small(64), async || {
        for also_dropped in [false, true] {
            let (seen, count) = (Rc::new(()), Arc::new(Count::default()));
            let (before, waker) = (alive(), Waker::from(Arc::clone(&count)));
            let (socket, _peer) = pair();
            let link = link_of(socket.fd());
            let buf = Panics { also_dropped, _seen: Rc::clone(&seen) };
            let mut future = OpFuture::new(send::Send { socket: Rc::clone(&socket), buf, from: 0, flags: 0 });
            catch_unwind(AssertUnwindSafe(|| poll_once(&mut future, &waker))).expect_err("a panic");
            assert_eq!((alive(), Rc::strong_count(&seen), Rc::strong_count(&socket)), (before, 1, 1));
            assert_eq!(Arc::strong_count(&count), 2, "its waker stays");
            drop(socket);
            until("the close", || !is_open(&link)).await;
        }
    });
}

mod events;
