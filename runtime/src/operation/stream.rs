//! Operations of one's own that answer many times.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::squeue;

use crate::contained::{Kept, contained};
use crate::core::Core;
use crate::op::slots::{Key, Outcome};
use crate::op::waits_for::WaitsFor;
use crate::op::{self, Sqes, check};

/// An operation that has any number of answers, and what it owns. [`stream`] asks for it.
///
/// # Safety
/// The implementation promises the following for as long as the kernel has the operation, which is until it
/// has passed the last answer to [`item`](Self::item), or the value is dropped:
///
/// - What the entry points to lies in `self`, or in memory that `self` owns and that does not move when
///   `self` does not. `self` is at its final address when [`entry`](Self::entry) is called, and is not moved
///   until it is dropped. `item` has `&self` while the kernel has the rest: what the kernel writes lies
///   outside of `self`, or in an [`UnsafeCell`](std::cell::UnsafeCell). Nobody else writes what the kernel
///   reads, or touches what it writes.
/// - `self` keeps the descriptors open that the entry names.
/// - Each completion but the last has `IORING_CQE_F_MORE`, as the kernel has it for `IORING_POLL_ADD_MULTI`
///   (Linux 5.13), `IORING_ACCEPT_MULTISHOT` (5.19) and `IORING_TIMEOUT_MULTISHOT` (6.4). An entry that is
///   not multishot has one, and is allowed. None is skipped on success (`IOSQE_CQE_SKIP_SUCCESS`), none is a
///   notification (`SEND_ZC`, `IORING_POLL_UPDATE_EVENTS`), and the entry is not linked to others
///   (`IOSQE_IO_LINK`, `IOSQE_IO_DRAIN`).
/// - It chooses no buffer of a group (`IOSQE_BUFFER_SELECT`), because the groups are the runtime's. So
///   multishot receives and reads are none of these: [`TcpStream::recv`](crate::net::TcpStream::recv) and
///   [`UdpSocket::recv`](crate::net::UdpSocket::recv) are multishot receives.
/// - It changes nothing of the ring itself, as for [`Operation`](super::Operation).
///
/// `user_data` is the runtime's: the entry's value is overwritten.
///
/// Nothing of the runtime's is borrowed while either method runs, so they may do whatever a task may. A panic
/// of either is passed to who polls the stream, or is logged.
pub unsafe trait Multishot: 'static {
    /// For logs.
    const NAME: &'static str;
    /// As many answers may wait for somebody to poll the stream. With one more than that it ends: the kernel
    /// is asked to cancel, what has come is given, and the answer of the cancel (`ECANCELED`) is the last.
    const MOST_WAITING: usize = 1024;
    /// What the stream gives.
    type Item;

    /// What is asked of the kernel. Called once.
    fn entry(&mut self) -> squeue::Entry;

    /// What an answer means. `flags` are those of its completion: with `IORING_CQE_F_MORE`
    /// ([`cqueue::more`](io_uring::cqueue::more)) others follow.
    ///
    /// It is called when the answer is taken from the stream, and, for those that nobody takes, when the
    /// stream is dropped or later. Its output is then dropped, and that closes a descriptor that came late.
    fn item(&self, result: io::Result<u32>, flags: u32) -> Self::Item;
}

/// Asks the kernel for `operation`, at the first poll, and gives its answers in their order.
///
/// The kernel ends some operations by itself, and then the stream ends. It does so after an error, and when
/// an answer finds the ring's completion queue full (`io_uring_enter(2)`, `IORING_POLL_ADD_MULTI`): no answer
/// is lost, the one that did not fit is the last, and it may be a success. So who wants more asks anew when
/// there is no other item.
///
/// Each time that a descriptor becomes readable (Linux 5.13):
///
/// ```
/// use std::io;
/// use std::os::fd::{AsRawFd, OwnedFd};
/// use std::rc::Rc;
/// use annulus::operation::{self, io_uring::{opcode, squeue, types}};
/// use rustix::event::{EventfdFlags, PollFlags, eventfd};
///
/// struct Readable(Rc<OwnedFd>);
///
/// // SAFETY: the entry names a descriptor that the `Rc` keeps open, and points to nothing. It is a multishot
/// // poll.
/// unsafe impl operation::Multishot for Readable {
///     const NAME: &'static str = "readable";
///     type Item = io::Result<PollFlags>;
///
///     fn entry(&mut self) -> squeue::Entry {
///         let events = PollFlags::IN.bits().into();
///         opcode::PollAdd::new(types::Fd(self.0.as_raw_fd()), events).multi(true).build()
///     }
///
///     fn item(&self, result: io::Result<u32>, _: u32) -> Self::Item {
///         result.map(|events| PollFlags::from_bits_retain(events as u16))
///     }
/// }
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
/// let event = Rc::new(event);
/// let mut readable = operation::stream(Readable(Rc::clone(&event)));
/// for _ in 0..3 {
///     rustix::io::write(&*event, &1_u64.to_ne_bytes()).map_err(io::Error::from)?;
///     assert!(readable.next().await.is_some_and(|events| events.is_ok_and(|e| e.contains(PollFlags::IN))));
/// }
/// readable.cancel();
/// let last = readable.next().await;
/// assert_eq!(last.and_then(Result::err).and_then(|e| e.raw_os_error()), Some(125), "ECANCELED");
/// assert!(readable.next().await.is_none());
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
pub fn stream<T: Multishot>(operation: T) -> Stream<T> {
    Stream { shared: Rc::new(Shared::new(operation)) }
}

/// The answers of an operation of one's own. Made by [`stream`].
///
/// Dropped, it asks the kernel to cancel. The operation, and what it owns, is dropped with the kernel's last
/// answer, on this core in a later tick. Answers that nobody took, and those that come until then, are
/// [made items](Multishot::item) of, and dropped. The end of the core does the same.
#[must_use = "it asks for nothing before it is polled"]
pub struct Stream<T: Multishot> {
    shared: Rc<Shared<T>>,
}

impl<T: Multishot> Stream<T> {
    /// The next answer. There is none after the last, which the kernel, [`cancel`](Self::cancel) or
    /// [`MOST_WAITING`](Multishot::MOST_WAITING) may bring about.
    ///
    /// # Cancellation
    /// Safe: an answer that comes later waits for the next call.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub async fn next(&mut self) -> Option<T::Item> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for a future written by hand, or for a stream of the crate futures
    /// (`futures_util::stream::poll_fn`). Who polled last is woken.
    ///
    /// # Panics
    /// As there.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T::Item>> {
        Core::with(|core| {
            if core.budget.poll(cx).is_pending() {
                return Poll::Pending;
            }
            let next = self.shared.came.borrow_mut().pop_front();
            if let Some(outcome) = next {
                core.budget.spend();
                return Poll::Ready(Some(self.shared.item(outcome)));
            }
            match self.shared.asked.get() {
                Asked::Over => return Poll::Ready(None),
                Asked::Not => self.ask(core),
                Asked::Armed(_) | Asked::Ending(_) => {}
            }
            self.shared.wait(cx.waker());
            Poll::Pending
        })
    }

    /// Asks the kernel to end the operation. What has come until it does is given, and then its last answer:
    /// `ECANCELED`, unless something else came before. A stream that was not polled yet asks for nothing, and
    /// has no answer. `io_uring_prep_cancel64(3)`, Linux 5.5.
    pub fn cancel(&mut self) {
        match self.shared.asked.get() {
            Asked::Not => self.shared.asked.set(Asked::Over),
            // Without a core the runtime has ended, and with it every operation of this thread.
            _ => drop(Core::try_with(|core| self.shared.end(core))),
        }
    }

    fn ask(&mut self, core: &Core) {
        // If the entry cannot be made, there is nothing to wait for.
        self.shared.asked.set(Asked::Over);
        let Some(shared) = Rc::get_mut(&mut self.shared) else {
            unreachable!("only the operation in its cell has the other reference, and it is asked for once");
        };
        let entry = shared.operation.entry();
        shared.entry.set(Some(entry));
        let key = core.ops.submit_multi(&core.ring, Own(Kept::new(Rc::clone(&self.shared))));
        self.shared.asked.set(Asked::Armed(key));
    }
}

impl<T: Multishot> Drop for Stream<T> {
    fn drop(&mut self) {
        if let Asked::Armed(key) | Asked::Ending(key) = self.shared.asked.get() {
            Core::try_with(|core| core.ops.abandon(&core.ring, key));
        }
        // All of this is foreign code, and the thread may be panicking.
        let waiter = self.shared.waiter.take();
        contained("the destructor of a waker", || drop(waiter));
        loop {
            let next = self.shared.came.borrow_mut().pop_front();
            let Some(outcome) = next else { break };
            self.shared.late(outcome);
        }
    }
}

impl<T: Multishot> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("operation", &T::NAME).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Asked {
    Not,
    Armed(Key),
    Ending(Key),
    Over,
}

/// What the stream and the operation in its cell have in common.
struct Shared<T> {
    operation: T,
    /// On its way into the ring.
    entry: Cell<Option<squeue::Entry>>,
    asked: Cell<Asked>,
    /// Answers that nobody has taken.
    came: RefCell<VecDeque<Outcome>>,
    waiter: Cell<Option<Waker>>,
}

impl<T: Multishot> Shared<T> {
    fn new(operation: T) -> Self {
        Self {
            operation,
            entry: Cell::default(),
            asked: Cell::new(Asked::Not),
            came: RefCell::default(),
            waiter: Cell::default(),
        }
    }

    /// Foreign code: nothing is borrowed.
    fn item(&self, outcome: Outcome) -> T::Item {
        self.operation.item(check(outcome), outcome.flags)
    }

    /// An answer that nobody takes.
    fn late(&self, outcome: Outcome) {
        contained(format_args!("an answer that nobody took ({})", T::NAME), || drop(self.item(outcome)));
    }

    fn wait(&self, waker: &Waker) {
        let kept = self.waiter.take();
        if kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            return self.waiter.set(kept);
        }
        // Foreign code: nothing of it is in place meanwhile, and no answer is handled before this returns.
        drop(kept);
        let waker = waker.clone();
        self.waiter.set(Some(waker));
    }

    fn end(&self, core: &Core) {
        if let Asked::Armed(key) = self.asked.get() {
            self.asked.set(Asked::Ending(key));
            core.ops.cancel(&core.ring, key);
        }
    }
}

/// The operation in its cell. It may be the last that has the application's value, whose destructor must stop
/// nothing.
struct Own<T: Multishot>(Kept<Rc<Shared<T>>>);

// SAFETY: the implementation of the public trait has made the same promise. The value lies in the `Rc`, so it
// does not move, and this keeps it until the last completion.
unsafe impl<T: Multishot> op::Multishot<Core> for Own<T> {
    const NAME: &'static str = T::NAME;
    const WAITS_FOR: WaitsFor = WaitsFor::Others;

    fn sqes(&mut self) -> Sqes {
        let entry = self.0.get().and_then(|shared| shared.entry.take());
        entry.expect("made before the operation was moved to its cell").into()
    }

    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool) {
        let Some(shared) = self.0.get() else { return };
        if last {
            shared.asked.set(Asked::Over);
        }
        if !owned {
            return shared.late(outcome);
        }
        let waiting = {
            let mut came = shared.came.borrow_mut();
            came.push_back(outcome);
            came.len()
        };
        if waiting > T::MOST_WAITING {
            shared.end(core);
        }
        if let Some(waiter) = shared.waiter.take() {
            contained("a waker", || waiter.wake());
        }
    }
}
