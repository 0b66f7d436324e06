//! Who wakes a task, who holds it, and when its memory goes: two words, of which one needs no locked
//! instruction.
//!
//! Nearly all that happens to a task happens on the thread of its own core. So what happens there is kept in
//! a word of plain memory, [`State::own`], and only what other threads do in an atomic one, `shared`. Each
//! word has flags in its low byte and a count of wakers above. A waker that is cloned or dropped on the own
//! core changes the own count, and on any other thread the shared one. Either count alone means nothing, and
//! may be negative: a waker may be cloned here and dropped there. Their sum is the number of wakers. (It is
//! the counting of Choi, Shull and Torrellas, "Biased reference counting", PACT 2018, with an owner that is
//! known to let go: a task's future always ends on its own core.)
//!
//! # What keeps the memory
//!
//! The future does until it has been dropped, and so does the handle; both are of the own core. A waker keeps
//! the memory only, never the future. A place on the core's [wake list](crate::sync::mailbox) counts as a
//! waker.
//!
//! When the future has been dropped the own core adds the two counts ([`State::end`]):
//! - The sum is 0. There is no waker, and nobody can make one: a waker is cloned from a waker, or from the
//!   context of a poll. The task is its handle's, or nobody's.
//! - It is not. Then the own count, and one for the handle, is added to the shared one in one step that also
//!   sets [`MERGED`]. From then on the shared count is the number of holders, every thread uses it, and who
//!   takes it to 0 frees the memory.
//!
//! # Memory orderings
//!
//! The sum may be taken with a shared count that is out of date, and still be trusted when it is 0. Let the
//! load have found the first `i` changes of the shared word, and take all changes of the own word, of which
//! none comes later. Nothing among them was caused by a later change of the shared word: had it been, a waker
//! came from that change to this thread, by something that synchronises, and the load would have found the
//! change (coherence). So the sum is the number of wakers at a moment that there may have been, and if that
//! was 0 nobody could make a later change.
//!
//! - A waker is dropped with *release*, and who finds that it was the last *acquires*: what others did with
//!   the task comes before its memory goes. All changes of the shared word are read-modify-writes, so they
//!   continue each other's release sequences.
//! - A wake publishes with *release*, also if the task has been notified already: the poll, which comes after
//!   the *acquire* of [`State::taken`], finds what the waker brought. A wake *acquires* because it is about
//!   to use the link that `taken` gave back.
//!
//! # Overflow
//!
//! The counts have 56 bits. A thread that did nothing but drop wakers of another, a hundred million a second,
//! would need eleven years.

use std::cell::Cell;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Own word. The task is in the run queue, or is to be put there when its poll is over.
///
/// Set when it is made, and by a wake on its own core. Cleared when it is taken out of the queue to be
/// polled. Not set once the task is [`OVER`].
const QUEUED: u64 = 1 << 0;

/// Own word. The future is being polled or dropped, or its output dropped: code of the application runs, and
/// a wake does not change the queue.
///
/// Set when the task is taken out of the queue, or out of the list of tasks at the core's end. Cleared when
/// the poll is over, or with [`OVER`].
const RUNNING: u64 = 1 << 1;

/// Own word. The future is to be dropped, and not polled again.
///
/// Set by the handle, when it is dropped or told to, and by the end of the core. Never cleared.
const ABORTED: u64 = 1 << 2;

/// Own word. The future has been dropped, after its output or without one.
///
/// Set once, with nothing of the task running. Never cleared.
const OVER: u64 = 1 << 3;

/// Own word. The output lies where the future was, for the handle.
///
/// Set with [`OVER`], if there is a handle and the task was not aborted. Cleared when the handle takes it.
const OUTPUT: u64 = 1 << 4;

/// Own word. There is a handle.
///
/// Set when the task is made. Cleared when its handle is dropped or detaches the task.
const HANDLE: u64 = 1 << 5;

/// Both words. The shared count is the number of holders.
///
/// Set once, with or after [`OVER`], if there were wakers then. Never cleared.
const MERGED: u64 = 1 << 6;

/// Own word. The task is in the core's list of those that wait.
///
/// Set when it waits for the first time. Cleared with [`OVER`].
const LISTED: u64 = 1 << 7;

/// Shared word. The task is on the core's wake list, or the thread that set this is about to put it there.
///
/// Set by a wake on another thread, unless the word has [`MERGED`]. Cleared by the own core when it takes the
/// task from the list. If the list is closed it stays, and the task cannot be notified any more.
const NOTIFIED: u64 = 1 << 0;

/// One waker, in either word.
const WAKER: u64 = 1 << 8;
const FLAGS: u64 = WAKER - 1;

/// The two words. Methods in `_here` and those that do not say are for the thread of the own core alone,
/// those in `_there` for any.
pub(super) struct State {
    own: Cell<u64>,
    shared: AtomicU64,
}

/// What becomes of a task whose future waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing.
    Wait,
    /// It waits for the first time: it is to be listed.
    List,
    /// It was woken meanwhile: it is to be put into the queue.
    Queue,
    /// It was aborted meanwhile: its future is to be dropped.
    Drop,
}

/// What a thread that has used up a waker has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterWake {
    Nothing,
    /// Put the task on the core's wake list, with the waker's hold on it.
    Push,
    /// Free the task's memory.
    Free,
}

impl State {
    /// Of a task that is put into the queue, and has a handle.
    pub(super) fn new() -> Self {
        Self { own: Cell::new(QUEUED | HANDLE), shared: AtomicU64::new(0) }
    }

    /// A wake on the own core. True: the task is to be put into the queue.
    #[inline(always)]
    pub(super) fn wake_here(&self) -> bool {
        let own = self.own.get();
        if own & (QUEUED | OVER) != 0 {
            return false;
        }
        self.own.set(own | QUEUED);
        own & RUNNING == 0
    }

    /// The task was taken out of the queue. True: its future is to be polled, else dropped.
    #[inline(always)]
    pub(super) fn begin(&self) -> bool {
        let own = self.own.get();
        self.own.set(own & !QUEUED | RUNNING);
        own & ABORTED == 0
    }

    /// The future was polled and waits.
    #[inline(always)]
    pub(super) fn pause(&self) -> Pause {
        let own = self.own.get();
        if own & (ABORTED | QUEUED | LISTED) == LISTED {
            self.own.set(own & !RUNNING);
            return Pause::Wait;
        }
        if own & ABORTED != 0 {
            return Pause::Drop;
        }
        if own & QUEUED != 0 {
            self.own.set(own & !RUNNING);
            return Pause::Queue;
        }
        self.own.set(own & !RUNNING | LISTED);
        Pause::List
    }

    pub(super) fn is_listed(&self) -> bool {
        self.own.get() & LISTED != 0
    }

    /// Whether somebody will take the output.
    pub(super) fn wants_output(&self) -> bool {
        self.own.get() & (HANDLE | ABORTED) == HANDLE
    }

    /// The future has been dropped, and its place holds the output if `output`, else nothing. True: the
    /// memory is to be freed. Where wakers are left `retain` is called before they can outlive the core: it
    /// makes the owner live as long as the memory.
    #[inline(always)]
    pub(super) fn end(&self, output: bool, retain: impl FnOnce()) -> bool {
        let own = self.own.get() & !(RUNNING | QUEUED | LISTED) | OVER | if output { OUTPUT } else { 0 };
        self.own.set(own);
        let wakers = own & !FLAGS;
        if wakers.wrapping_add(self.shared.load(Ordering::Acquire) & !FLAGS) == 0 {
            return own & HANDLE == 0;
        }
        retain();
        self.merge(own)
    }

    #[cold]
    fn merge(&self, own: u64) -> bool {
        self.own.set(own | MERGED);
        let handle = if own & HANDLE == 0 { 0 } else { WAKER };
        let add = (own & !FLAGS).wrapping_add(handle).wrapping_add(MERGED);
        Self::is_free(self.shared.fetch_add(add, Ordering::AcqRel).wrapping_add(add))
    }

    /// Whether wakers were left when the future was dropped: then the owner was retained. For who frees the
    /// memory.
    pub(super) fn has_merged(&self) -> bool {
        self.own.get() & MERGED != 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.own.get() & OVER != 0
    }

    /// The future is to be dropped. If nothing is to wake the task for it, as at the core's end, it is
    /// dropped at once.
    pub(super) fn abort(&self) {
        self.own.set(self.own.get() | ABORTED);
    }

    /// Takes the output. False: there is none.
    pub(super) fn take_output(&self) -> bool {
        let own = self.own.get();
        self.own.set(own & !OUTPUT);
        own & OUTPUT != 0
    }

    /// There is no handle any more, and no output. True: the memory is to be freed.
    pub(super) fn drop_handle(&self) -> bool {
        let own = self.own.get() & !HANDLE;
        self.own.set(own);
        own & OVER != 0 && (own & MERGED == 0 || self.drop_there())
    }

    /// A waker is cloned on the own core. False: this is to be done as on any other thread.
    #[inline(always)]
    pub(super) fn clone_here(&self) -> bool {
        self.count_here(WAKER)
    }

    /// A waker is dropped on the own core. False: this is to be done as on any other thread.
    #[inline(always)]
    pub(super) fn drop_here(&self) -> bool {
        self.count_here(WAKER.wrapping_neg())
    }

    #[inline(always)]
    fn count_here(&self, by: u64) -> bool {
        let own = self.own.get();
        if own & MERGED != 0 {
            return false;
        }
        self.own.set(own.wrapping_add(by));
        true
    }

    /// A waker is cloned.
    #[inline(always)]
    pub(super) fn clone_there(&self) {
        self.shared.fetch_add(WAKER, Ordering::Relaxed);
    }

    /// A waker is dropped. True: the memory is to be freed; nobody else has it any more.
    #[inline(always)]
    pub(super) fn drop_there(&self) -> bool {
        let last = Self::is_free(self.shared.fetch_sub(WAKER, Ordering::Release).wrapping_sub(WAKER));
        if last {
            // Not a fence, which the thread sanitizer does not see.
            self.shared.load(Ordering::Acquire);
        }
        last
    }

    fn is_free(shared: u64) -> bool {
        shared & !NOTIFIED == MERGED
    }

    /// A wake that leaves its waker. True: the task is to be put on the wake list, with a hold of its own.
    #[inline(always)]
    pub(super) fn wake_there(&self) -> bool {
        let taken = self
            .change_there(|now| if now & NOTIFIED != 0 { now } else { (now | NOTIFIED).wrapping_add(WAKER) });
        taken.is_some_and(|before| before & NOTIFIED == 0)
    }

    /// A wake that uses its waker up.
    #[inline(always)]
    pub(super) fn wake_and_drop_there(&self) -> AfterWake {
        let taken = self
            .change_there(|now| if now & NOTIFIED != 0 { now.wrapping_sub(WAKER) } else { now | NOTIFIED });
        match taken {
            None if self.drop_there() => AfterWake::Free,
            Some(before) if before & NOTIFIED == 0 => AfterWake::Push,
            None | Some(_) => AfterWake::Nothing,
        }
    }

    /// Replaces the shared word, and gives what was there; `None` if nobody is to be woken any more.
    #[inline(always)]
    fn change_there(&self, next: impl Fn(u64) -> u64) -> Option<u64> {
        let mut now = self.shared.load(Ordering::Relaxed);
        while now & MERGED == 0 {
            match self.shared.compare_exchange_weak(now, next(now), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return Some(before),
                Err(other) => now = other,
            }
        }
        None
    }

    /// The own core has taken the task from the wake list. `Push`: it is to be put into the queue.
    pub(super) fn taken(&self) -> AfterWake {
        if self.own.get() & MERGED != 0 {
            return if self.drop_there() { AfterWake::Free } else { AfterWake::Nothing };
        }
        self.shared.fetch_sub(NOTIFIED + WAKER, Ordering::AcqRel);
        if self.wake_here() { AfterWake::Push } else { AfterWake::Nothing }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
