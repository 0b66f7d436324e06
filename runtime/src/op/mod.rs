//! Operations: what is asked of the kernel, and who owns its memory until the kernel is done with it.
//!
//! An operation is one declarative block (the files of this folder): what it owns, the SQE it becomes, what its result
//! means. When it is [asked](Asked) for, it moves into its cell of the [`arena`], where it stays until the final CQE; its
//! future keeps only the [`slots::Key`]. Dropping the future does not end the operation: it sends a cancel, and whatever the
//! kernel answers later (a descriptor, bytes in a pipe) belongs to the operation, which cleans it up.
//!
//! `user_data` is `tag (8 bits) | generation (32) | index (24)`.

pub(crate) mod accept;
pub(crate) mod advise;
pub(crate) mod arena;
pub(crate) mod connect;
pub(crate) mod fallocate;
pub(crate) mod mkdir;
pub(crate) mod open;
pub(crate) mod poll;
pub(crate) mod read;
pub(crate) mod recv;
pub(crate) mod recv_msg;
pub(crate) mod recv_parts;
pub(crate) mod rename;
pub(crate) mod send;
pub(crate) mod send_to;
pub(crate) mod send_vectored;
pub(crate) mod send_zc;
pub(crate) mod slots;
pub(crate) mod splice;
pub(crate) mod statx;
pub(crate) mod sync;
pub(crate) mod table;
pub(crate) mod truncate;
pub(crate) mod unlink;
pub(crate) mod write;

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::squeue;

use crate::core::Core;
use crate::net::socket::Socket;
use slots::{Key, Look, Outcome};

/// What kind of thing a CQE speaks of: the top 8 bits of its `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// An operation of the table.
    Op = 0,
    /// The poll at the head of a linked pair. It is silent when it succeeds (`IOSQE_CQE_SKIP_SUCCESS`), and then the
    /// operation behind it answers. When it fails, the kernel silences everything behind it instead (5.17, seen on
    /// 6.18: no CQE ever came for a splice whose poll had been cancelled), so its CQE is the pair's only one.
    LinkHead = 1,
    /// A cancel; the cancelled operation's own CQE says what came of it.
    Cancel = 2,
    /// The close of a descriptor that nobody waits for.
    Close = 3,
    /// The doorbell: the eventfd's poll, or a message from another core's ring.
    Doorbell = 4,
    /// Another core's ring would not take a message.
    Signal = 5,
}

impl Tag {
    /// `bits` (56 of them) under this tag.
    pub(crate) fn with(self, bits: u64) -> u64 {
        debug_assert!(bits >> 56 == 0);
        (self as u64) << 56 | bits
    }

    /// Splits a `user_data` into its tag and the rest; `None` for a tag that nobody sends.
    pub(crate) fn split(user_data: u64) -> Option<(Self, u64)> {
        let tag = match (user_data >> 56) as u8 {
            0 => Tag::Op,
            1 => Tag::LinkHead,
            2 => Tag::Cancel,
            3 => Tag::Close,
            4 => Tag::Doorbell,
            5 => Tag::Signal,
            _ => return None,
        };
        Some((tag, user_data & ((1 << 56) - 1)))
    }
}

/// The SQEs of an operation: one, or one behind a poll that must succeed first.
pub(crate) struct Sqes {
    pub(crate) after: Option<squeue::Entry>,
    pub(crate) main: squeue::Entry,
}

impl From<squeue::Entry> for Sqes {
    fn from(main: squeue::Entry) -> Self {
        Self { after: None, main }
    }
}

/// An operation that answers once.
///
/// # Safety
/// The entry of [`sqes`](Self::sqes) may point only into `self`, or into memory that `self` owns and that does not move
/// when `self` does not; descriptors it names must be kept open by `self`. `self` is at its final address by then.
pub(crate) unsafe trait Operation: Sized + 'static {
    /// For logs.
    const NAME: &'static str;
    /// A poll goes before it, in a link: then a cancel must look for either.
    const LINKED: bool = false;
    /// What the owner gets.
    type Output;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// Whether the kernel always hands this to an io-wq worker, so that it is counted as such.
    fn runs_on_iowq(&self) -> bool {
        false
    }

    /// The result: `outcome.result` is a count or a negative errno.
    fn complete(self, outcome: Outcome) -> Self::Output;

    /// The result came when nobody waited any more. What it brings must not leak; dropping the output does it for all
    /// operations whose output owns what came.
    fn late(self, outcome: Outcome) {
        drop(self.complete(outcome));
    }

    /// The connection that must be reset when the core ends and the kernel has had time to give the operation back, so that it
    /// lets go at once; if there is such a thing. Runs no code that is not ours: the operation lies in its cell.
    fn holds(&self) -> Option<Rc<Socket>> {
        None
    }

    /// The notification after the result: the kernel has let go of the memory. Zero-copy sends only. Runs no code that is not
    /// ours, as [`holds`](Self::holds).
    fn notified(&self, core: &Core, outcome: Outcome) {
        let _ = (core, outcome);
    }
}

/// An [`Operation`] that brings nothing but whether it succeeded: most of those on names and files.
///
/// # Safety
/// As for [`Operation`].
pub(crate) unsafe trait NoValue: Sized + 'static {
    /// For logs.
    const NAME: &'static str;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// As [`Operation::runs_on_iowq`]; nearly all of these do.
    fn runs_on_iowq(&self) -> bool {
        true
    }
}

// SAFETY: whoever implements `NoValue` made the same promise.
unsafe impl<T: NoValue> Operation for T {
    const NAME: &'static str = <T as NoValue>::NAME;
    type Output = io::Result<()>;

    fn sqes(&mut self) -> Sqes {
        NoValue::sqes(self)
    }

    fn runs_on_iowq(&self) -> bool {
        NoValue::runs_on_iowq(self)
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(drop)
    }
}

/// An operation that answers many times, to a socket rather than to a future.
///
/// # Safety
/// As for [`Operation`].
pub(crate) unsafe trait Multishot: Sized + 'static {
    /// For logs.
    const NAME: &'static str;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// One answer. `owned` is false once the socket has given the operation up: then what came is to be given back.
    /// `last` tells that the operation has ended, for whatever reason.
    fn item(&self, core: &Core, outcome: Outcome, owned: bool, last: bool);
}

/// `-errno` as an error, a count as it is. `splice` lets the kernel-internal restart codes 512..=516 out when it is
/// interrupted (seen on 6.18); they mean what `EINTR` means.
pub(crate) fn check(outcome: Outcome) -> io::Result<u32> {
    match outcome.result {
        n if n >= 0 => Ok(n as u32),
        n if (-516..=-512).contains(&n) => Err(io::Error::from_raw_os_error(libc::EINTR)),
        n => Err(io::Error::from_raw_os_error(-n)),
    }
}

/// What a finished operation leaves: its output, or only the kernel's word while the kernel still holds the operation.
pub(crate) enum Finished<O> {
    /// The operation is over.
    Whole(O),
    /// A result came first, and a notification will give the memory back later (zero-copy sends).
    Early(Outcome),
}

/// A single operation that the kernel was asked for, in the hands of its owner. Dropped before the answer was seen, it is
/// cancelled, and its memory stays where it is until the kernel has answered.
#[must_use = "dropped, it is cancelled"]
pub(crate) struct Asked<T: Operation> {
    /// `None` once the answer was seen.
    key: Option<Key>,
    _operation: PhantomData<*const T>,
}

impl<T: Operation> Asked<T> {
    /// Asks for it on behalf of the task behind `waker`.
    pub(crate) fn new(core: &Core, operation: T, waker: &Waker) -> Self {
        Self { key: Some(core.ops.submit(&core.ring, operation, waker)), _operation: PhantomData }
    }

    /// Looks for the answer.
    ///
    /// # Panics
    /// When it was seen already.
    pub(crate) fn poll(&mut self, core: &Core, waker: &Waker) -> Poll<Finished<T::Output>> {
        let Some(key) = self.key else { polled_again(T::NAME) };
        // SAFETY: a `T` was submitted under this key (`new`).
        let look: Look<T> = unsafe { core.ops.look(key, waker) };
        let finished = match look {
            Look::Pending => return Poll::Pending,
            Look::Done(outcome, operation) => {
                self.key = None;
                Finished::Whole(operation.complete(outcome))
            }
            Look::Early(outcome) => {
                self.key = None;
                Finished::Early(outcome)
            }
        };
        core.budget.spend();
        Poll::Ready(finished)
    }
}

impl<T: Operation> Drop for Asked<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Without a core the runtime has ended, and with it every operation of this thread.
            Core::try_with(|core| core.ops.abandon(&core.ring, key));
        }
    }
}

/// Panics: a future is polled once more than it may be.
#[cold]
pub(crate) fn polled_again(name: &str) -> ! {
    panic!("{name} polled after it was done")
}

/// The future of a single operation.
///
/// # Cancellation
/// Dropped before the first poll, nothing was asked of the kernel. Dropped later, as [`Asked`].
pub(crate) struct Submitted<T: Operation>(State<T>);

enum State<T: Operation> {
    New(T),
    Asked(Asked<T>),
    /// It was not asked for: the operation has panicked.
    Over,
}

impl<T: Operation> Submitted<T> {
    pub(crate) fn new(operation: T) -> Self {
        Self(State::New(operation))
    }
}

// Nothing in the future is pinned: the operation moves out of it, into its cell, before the kernel hears of it.
impl<T: Operation> Unpin for Submitted<T> {}

impl<T: Operation> Future for Submitted<T> {
    type Output = Finished<T::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Core::with(|core| {
            if let State::Asked(asked) = &mut self.0 {
                return asked.poll(core, cx.waker());
            }
            match std::mem::replace(&mut self.0, State::Over) {
                State::New(operation) => self.0 = State::Asked(Asked::new(core, operation, cx.waker())),
                State::Asked(_) | State::Over => polled_again(T::NAME),
            }
            Poll::Pending
        })
    }
}

/// Asks the kernel for an operation that has one answer and no notification.
pub(crate) async fn ask<T: Operation>(operation: T) -> T::Output {
    match Submitted::new(operation).await {
        Finished::Whole(output) => output,
        Finished::Early(_) => unreachable!("{} has no notification", T::NAME),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
