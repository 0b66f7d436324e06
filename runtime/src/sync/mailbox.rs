//! The wake path of a core: a list of woken tasks that can never be full, and the doorbell beside it.
//!
//! A waker may be used from any thread, in a destructor, in a signal-driven thread, while the core is asleep
//! or ending. So waking must never wait for the core, never need memory and never fail. A bounded queue
//! cannot promise that. A list that is linked through the tasks themselves can: the memory of the link came
//! with the task, and a task needs one link only, because it is in the list at most once.
//!
//! # Memory orderings of [`WakeList`]
//!
//! The list is a Treiber stack: `head` points to the node pushed last, each node's [`Link`] to the one pushed
//! before it. Producers push one node at a time; the one consumer takes all nodes at once with a swap. No
//! node is ever taken out singly, so the ABA problem does not arise: whatever a producer read as `head`, if
//! `head` still has that value when it compares, then that node is the top of the list *now*, and linking to
//! it is right, whether or not it left the list and came back in between.
//!
//! - A push publishes with *release*: what the waker did before (its own data, the link) is visible to the
//!   consumer of the node. All pushes are read-modify-writes of `head`, so each continues the release
//!   sequence of the ones below it, and one *acquire* swap by the consumer synchronises with every push whose
//!   node it takes.
//! - A push that finds the list closed takes *acquire*, so that what the owner did before closing is visible.
//! - Links are written by a producer before its publishing compare-and-swap, and read by the consumer after
//!   its acquire swap: they could be plain memory. They are relaxed atomics because the losing side of a
//!   compare-and-swap rewrites its link, and because it makes every access to them safe code.
//!
//! A push is lock-free: its loop repeats only when another push or a take succeeded meanwhile.
//!
//! # Memory orderings of [`Doorbell`]
//!
//! Two parties each write one word and then read the other's: the producer writes the work (a push, a message
//! in a channel) and reads the doorbell; the consumer writes `SLEEPY` to the doorbell and looks for work once
//! more. A wake is lost only if both reads miss both writes. A sequentially consistent fence stands between
//! write and read on both sides. One of the two fences comes first in the single order of such fences; the
//! party behind the *other* fence then sees what was written before the first one. So either the consumer
//! sees the work and does not sleep, or the producer sees `SLEEPY` and notifies.
//!
//! Among the producers that see `SLEEPY`, the one whose compare-and-swap takes it back to `AWAKE` signals, so
//! a sleep costs one signal however many producers there are. The others need not signal: the consumer is
//! being woken, and before it sleeps again it looks for work again, behind a new fence, so the argument holds
//! again for them. The doorbell carries no data: data is ordered by the list's or the channel's own release
//! and acquire.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};
use crate::sync::one_thread::OneThread;

/// The link that a node lends to the list. It means nothing while its node is in no list.
pub(crate) struct Link(AtomicPtr<()>);

impl Link {
    /// A link of a node that is in no list.
    pub(crate) fn new() -> Link {
        Link(AtomicPtr::new(ptr::null_mut()))
    }
}

impl Default for Link {
    fn default() -> Link {
        Link::new()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// An owned node of a [`WakeList`], for example a hold on a task, whose header has the [`Link`].
///
/// # Safety
///
/// The implementor promises that
/// - a value is the only one for its raw pointer: while a node is in a list (as a raw pointer), no second
///   value for the same memory exists that could be pushed, so a node is in at most one list at a time;
/// - the raw pointer is not null, points into an allocation of the node, and stays valid, with the link at
///   the same address, until `from_raw` has been called and its result dropped;
/// - `from_raw(into_raw(n))` gives back `n`, on any thread if `Self: Send`, and has no other effect;
/// - `link` always names the same link for the same node, and nobody else uses that link.
pub(crate) unsafe trait Node: Sized {
    /// The node's link.
    fn link(&self) -> &Link;

    /// Gives up the value and keeps the node alive as a raw pointer.
    fn into_raw(self) -> NonNull<()>;

    /// Takes the value back.
    ///
    /// # Safety
    ///
    /// `raw` came from [`into_raw`](Node::into_raw), and this is the only value made of it that is used or
    /// dropped as an owner.
    unsafe fn from_raw(raw: NonNull<()>) -> Self;
}

/// The address that stands for "closed": a static's own, which no node's memory can have.
static CLOSED: u8 = 0;

fn closed() -> *mut () {
    (&raw const CLOSED).cast_mut().cast()
}

/// Many threads push, one core takes. The [module](self) says why it is right.
///
/// Only the owning core may call [`take_all`](WakeList::take_all) and [`close`](WakeList::close). Debug
/// builds assert it. If it were broken, nodes could leak or a closed list open again, but no memory would be
/// misused.
///
/// Dropping a list leaks the nodes in it, because only the owner may close it, while any thread may hold
/// the list's last reference. The owner calls [`close`](WakeList::close) first.
pub(crate) struct WakeList<N> {
    head: AtomicPtr<()>,
    owner: OneThread,
    nodes: PhantomData<N>,
}

// SAFETY: the list moves values of N from thread to thread and shares none: `N: Send` is what that needs. The
// head is atomic, and a link is touched only by the thread that owns its node (a producer before it publishes
// the node, the consumer after it took it; the trait `Node` promises that there is no second owner).
unsafe impl<N: Send> Send for WakeList<N> {}
// SAFETY: as above.
unsafe impl<N: Send> Sync for WakeList<N> {}

impl<N: Node> WakeList<N> {
    /// An empty, open list.
    pub(crate) fn new() -> WakeList<N> {
        WakeList { head: AtomicPtr::new(ptr::null_mut()), owner: OneThread::new(), nodes: PhantomData }
    }

    /// Puts `node` into the list, from any thread. `Ok(true)`: the list was empty before.
    ///
    /// After it the caller notifies by the [`Doorbell`]. It need not on `Ok(false)`: then a producer that got
    /// `Ok(true)` has notified, or is about to.
    ///
    /// # Errors
    ///
    /// The list is closed. The node comes back.
    pub(crate) fn push(&self, node: N) -> Result<bool, N> {
        let raw = node.into_raw();
        // SAFETY: `raw` was just made by `into_raw`. This value is used for its link only and never dropped;
        // it is not used after the compare-and-swap that gives the node away.
        let view = ManuallyDrop::new(unsafe { N::from_raw(raw) });
        let link = view.link();
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if head == closed() {
                return Err(ManuallyDrop::into_inner(view));
            }
            link.0.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, raw.as_ptr(), Ordering::Release, Ordering::Acquire) {
                Ok(_) => return Ok(head.is_null()),
                Err(now) => head = now,
            }
        }
    }

    /// Whether there is nothing to take. The load after [`Doorbell::prepare_sleep`] and before the sleep is
    /// the one that counts.
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == closed()
    }

    /// Takes all nodes, oldest first. Owner only.
    pub(crate) fn take_all(&self) -> Drained<N> {
        self.owner.check("taking what was woken");
        // A load first keeps the usual case, an empty list, free of a locked instruction, and leaves a closed
        // list closed. Only the owner closes, so that does not happen between the load and the swap.
        if self.is_empty() {
            return Drained::of(ptr::null_mut());
        }
        Drained::of(self.head.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Refuses every later push and takes what is there, oldest first. Owner only. A second call returns
    /// nothing.
    pub(crate) fn close(&self) -> Drained<N> {
        self.owner.check("closing a list of wakes");
        let head = self.head.swap(closed(), Ordering::AcqRel);
        Drained::of(if head == closed() { ptr::null_mut() } else { head })
    }
}

impl<N> fmt::Debug for WakeList<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakeList")
    }
}

/// Nodes that were taken from a [`WakeList`], oldest first. Those that are not asked for are dropped with it.
pub(crate) struct Drained<N: Node> {
    first: *mut (),
    nodes: PhantomData<N>,
}

impl<N: Node> Drained<N> {
    /// Takes over the nodes of a detached stack and reverses it, so that the node pushed first comes first.
    fn of(mut top: *mut ()) -> Drained<N> {
        let mut first: *mut () = ptr::null_mut();
        while let Some(raw) = NonNull::new(top) {
            // SAFETY: `raw` came from `into_raw` in `push`; the swap that detached the stack made us its only
            // owner. The view is used for its link and never dropped.
            let view = ManuallyDrop::new(unsafe { N::from_raw(raw) });
            top = view.link().0.load(Ordering::Relaxed);
            view.link().0.store(first, Ordering::Relaxed);
            first = raw.as_ptr();
        }
        Drained { first, nodes: PhantomData }
    }
}

impl<N: Node> Iterator for Drained<N> {
    type Item = N;

    fn next(&mut self) -> Option<N> {
        let raw = NonNull::new(self.first)?;
        // SAFETY: `raw` came from `into_raw` in `push`, and the chain from `first` on is ours alone. It is
        // taken out of the chain in the next line, so this is the only value made of it.
        let node = unsafe { N::from_raw(raw) };
        self.first = node.link().0.load(Ordering::Relaxed);
        Some(node)
    }
}

impl<N: Node> FusedIterator for Drained<N> {}

impl<N: Node> Drop for Drained<N> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// The receiver is running, or a signal to it is on its way.
const AWAKE: u32 = 0;
/// The receiver sleeps or is about to: it must be signalled.
const SLEEPY: u32 = 1;

/// Says whether a core must be signalled to notice new work. The [module](self) says why no wake is lost.
///
/// The receiver, each time it has nothing to do:
/// 1. It calls [`prepare_sleep`](Doorbell::prepare_sleep).
/// 2. It checks every source of work once more. If there is work, it calls
///    [`cancel_sleep`](Doorbell::cancel_sleep) and does the work.
/// 3. Otherwise it sleeps until a signal (or a timer, or a completion), and then calls
///    [`cancel_sleep`](Doorbell::cancel_sleep).
///
/// A producer first makes the work visible to the receiver and then calls [`notify`](Doorbell::notify).
#[derive(Debug)]
pub(crate) struct Doorbell {
    state: AtomicU32,
    receiver: OneThread,
}

impl Doorbell {
    /// The doorbell of a receiver that is awake.
    pub(crate) fn new() -> Doorbell {
        Doorbell { state: AtomicU32::new(AWAKE), receiver: OneThread::new() }
    }

    /// Announces that the receiver will sleep unless its next check finds work. Receiver only: debug builds
    /// assert it.
    pub(crate) fn prepare_sleep(&self) {
        self.receiver.check("receiving by a doorbell");
        self.state.store(SLEEPY, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the receiver sleeps, or is about to. The load orders nothing.
    pub(crate) fn is_sleepy(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SLEEPY
    }

    /// Announces that the receiver is awake. Receiver only (debug builds assert it), after every sleep and
    /// every sleep that was given up.
    ///
    /// Returns whether somebody has notified it since `prepare_sleep`: then a signal has been sent or is
    /// about to be, which may end the next sleep at once.
    pub(crate) fn cancel_sleep(&self) -> bool {
        self.receiver.check("receiving by a doorbell");
        // A producer that reads AWAKE from here sends no signal. Its work is found by the check after the
        // next `prepare_sleep`, whose fence orders that check behind the producer's fence.
        self.state.swap(AWAKE, Ordering::Relaxed) == AWAKE
    }

    /// Tells the receiver that there is work, from any thread, after the work was made visible.
    ///
    /// `true`: the receiver sleeps and the caller must signal it (eventfd, or a message on the ring). At most
    /// one producer gets `true` for each sleep.
    #[must_use = "on true the caller must signal the receiver, or it sleeps on"]
    pub(crate) fn notify(&self) -> bool {
        fence(Ordering::SeqCst);
        // A plain load first: while the receiver is awake, its producers only read this word and share its
        // cache line.
        self.state.load(Ordering::Relaxed) == SLEEPY
            && self.state.compare_exchange(SLEEPY, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
