//! A subscriber of `tracing` that uses the core at the library's own events.

use std::cell::RefCell;

use super::*;
use crate::testing::{at_the_next_event, has_acted};

/// The late operation's cell is vacant by then, and the new operation gets it.
///
/// Seen to fail: with the event before the value is out of its cell. The new operation is dropped in its
/// place while the kernel has it, and the late one stays for ever: the program ends by SIGABRT.
#[test]
fn a_subscriber_may_ask_the_kernel_for_something_when_it_is_told_of_a_late_result() {
    on_a_core(small(64), async || {
        let before = alive();
        let ((late, _late_peer), (new, mut new_peer)) = (silent(), silent());
        let mut future = OpFuture::new(poll::PollOnce { fd: Fd(Rc::clone(&late)), ready: poll::Ready::Read });
        assert!(poll_once(&mut future, Waker::noop()).is_pending());
        let asked = Rc::new(RefCell::new(None));
        let (asks, fd) = (Rc::clone(&asked), Rc::clone(&new));
        let guard = at_the_next_event("annulus::op::table", move || {
            let mut future = OpFuture::new(poll::PollOnce { fd: Fd(fd), ready: poll::Ready::Read });
            assert!(poll_once(&mut future, Waker::noop()).is_pending());
            asks.replace(Some(future));
        });
        drop(future);
        until("the event of the late result", has_acted).await;
        drop(guard);
        assert_eq!((Rc::strong_count(&late), Rc::strong_count(&new)), (1, 2), "the wrong one was dropped");
        let mut future = asked.take().expect("asked for at the event");
        new_peer.write_all(b"come").unwrap();
        until("its answer", || poll_once(&mut future, Waker::noop()).is_ready()).await;
        assert_eq!((alive(), Rc::strong_count(&new)), (before, 1));
    });
}

/// An ending core knows every connection that it has to reset before it resets the first, and holds them.
///
/// Seen to fail: with a list of cells that was made before the first reset. The second cell, which has a read
/// by then, is taken for a send (SIGSEGV).
#[test]
fn a_subscriber_may_end_operations_while_a_core_hurries_them() {
    on_a_core(small(64), async || {
        let send = |socket: &Rc<Socket>| {
            let mut block = Block::take().unwrap();
            block.extend_from_slice(&[4; 60_000]);
            let report = Core::with(|core| core.ring.features().zc_report);
            let send =
                send_zc::SendZc::new(Rc::clone(socket), send_zc::SharedBlock(Rc::new(block)), 0, report);
            OpFuture::new(send)
        };
        let before = alive();
        let (stuck, _stuck_peer) = pair();
        while rustix::io::write(stuck.fd(), &[0; 1 << 16]).is_ok() {}
        let mut waits = send(&stuck);
        assert!(poll_once(&mut waits, Waker::noop()).is_pending());
        let in_kernel = || Core::with(|core| core.ops.in_kernel());
        let stuck_ones = in_kernel();
        let (socket, mut peer) = pair();
        let mut answered = send(&socket);
        assert!(poll_once(&mut answered, Waker::noop()).is_pending());
        drain(&mut peer);
        until("its notification", || in_kernel() == stuck_ones).await;
        assert_eq!(socket.lent(), 1, "its future was not polled");
        let (fd, _theirs) = silent();
        let new = Rc::new(RefCell::new(None));
        let (polls, watched) = (Rc::clone(&new), Rc::clone(&fd));
        let guard = at_the_next_event("annulus::net::socket::lending", move || {
            assert!(poll_once(&mut answered, Waker::noop()).is_ready());
            let buf = Vec::with_capacity(100);
            let mut future = OpFuture::new(read::Read { file: watched, buf, offset: u64::MAX });
            assert!(poll_once(&mut future, Waker::noop()).is_pending());
            polls.replace(Some(future));
        });
        Core::with(|core| core.ops.force_release());
        assert!(has_acted(), "no event of a reset");
        drop(guard);
        assert_eq!(Rc::strong_count(&fd), 2);
        drop((waits, new.take()));
        until("their end", || alive() == before).await;
        assert_eq!((Rc::strong_count(&fd), Rc::strong_count(&stuck), stuck.lent()), (1, 1, 0));
    });
}

/// A future whose answer has come, dropped by a task that panics.
///
/// Seen to fail, by an abort: with the event of the late result as it is.
#[test]
fn a_subscriber_that_panics_over_a_late_result_may_do_so_while_its_thread_panics() {
    on_a_core(small(64), async || {
        let before = alive();
        let (mut future, mut theirs) = waits();
        let count = Arc::new(Count::default());
        assert!(poll_once(&mut future, &Waker::from(Arc::clone(&count))).is_pending());
        theirs.write_all(b"come").unwrap();
        until("the answer", || count.0.load(Ordering::Relaxed) > 0).await;
        let guard = at_the_next_event("annulus::op::table", || panic!("the subscriber, on purpose"));
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _future = future;
            panic!("the task, on purpose");
        }));
        assert!(panicked.is_err() && has_acted());
        drop(guard);
        assert_eq!(alive(), before);
    });
}
