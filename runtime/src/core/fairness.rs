//! Which streams of a core receive, when there are fewer buffers than there are streams that want one.
//!
//! - Streams that found no buffer wait in order, and get one in turn when buffers are free.
//! - Streams that hold too much when it comes are switched off at the end of the tick, when their tasks had
//!   every chance.
//! - Streams that nobody reads give their buffers up when others wait for one
//!   ([`BufRing::copy_out`](crate::buf::ring::BufRing::copy_out)): those that were switched off, and those
//!   that came to hold a chunk when buffers were few. What others hold leaves those few at least.
//!
//! What receives is a socket, which this file knows by the trait [`Receives`] only: sockets are above the
//! core that keeps these queues. These calls are rare, so dynamic dispatch costs nothing that counts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use crate::buf::ring::BufRing;
use crate::metrics::counters::CoreCounters;

/// A stream that receives into the core's buffers. `C` is what it asks for things: the core.
pub(crate) trait Receives<C> {
    /// Whether it waits for a buffer.
    fn is_starved(&self) -> bool;
    /// It was taken out of the queue of streams that wait for a buffer.
    fn left_queue(&self);
    /// There is a buffer, and it is this stream's turn. False: it does not want to receive any more.
    fn receive_again(self: Rc<Self>, context: &C) -> bool;
    /// The tick ends: switches the receive off if nobody took what came.
    fn hold_back(self: Rc<Self>, context: &C);
    /// Others wait for buffers: gives up those of chunks that nobody took. Whether there may be more yet.
    fn evict(&self, context: &C) -> bool;
}

/// A stream in a queue, which does not keep it.
type Queued<C> = Weak<dyn Receives<C>>;

/// The streams of a core that wait for buffers, or hold them and should not.
pub(crate) struct Fairness<C> {
    /// Streams that found no buffer, in the order in which they will get one.
    waiting: RefCell<VecDeque<Queued<C>>>,
    /// Streams that held too much when it came; inspected when the tick ends.
    overfull: RefCell<Vec<Rc<dyn Receives<C>>>>,
    /// Streams that hold chunks which nobody took, as far as is known; the first that was found so first.
    idle: RefCell<VecDeque<Queued<C>>>,
}

impl<C> Default for Fairness<C> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), overfull: RefCell::default(), idle: RefCell::default() }
    }
}

impl<C: 'static> Fairness<C> {
    /// A stream that found no buffer waits for its turn.
    pub(crate) fn wait_for_buffer(&self, stream: Queued<C>) {
        self.waiting.borrow_mut().push_back(stream);
    }

    /// Entries in the queue of streams that wait for a buffer.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn queue_len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether a stream stands in the queue more than once.
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    pub(crate) fn stands_twice(&self) -> bool {
        let waiting = self.waiting.borrow();
        let is = |one: &Queued<C>, other: &Queued<C>| std::ptr::addr_eq(one.as_ptr(), other.as_ptr());
        let twice = |(at, one)| waiting.iter().skip(at + 1).any(|other| is(one, other));
        waiting.iter().enumerate().any(twice)
    }

    /// Whether streams wait for buffers.
    pub(crate) fn is_short(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether streams wait for buffers and there is none.
    pub(crate) fn is_starving(&self, bufs: &BufRing) -> bool {
        !bufs.has_some() && self.is_waited_for()
    }

    /// Whether a stream waits that is still there and still wants to receive. Forgets those before it that do
    /// not.
    fn is_waited_for(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.front() {
            if let Some(stream) = first.upgrade() {
                if stream.is_starved() {
                    return true;
                }
                stream.left_queue();
            }
            waiting.pop_front();
        }
        false
    }

    /// A stream holds much that nobody took: it is inspected again when its task has had its chance.
    #[inline(always)]
    pub(crate) fn inspect_later(&self, stream: Rc<dyn Receives<C>>) {
        self.overfull.borrow_mut().push(stream);
    }

    /// A stream holds what nobody took.
    pub(crate) fn remember_idle(&self, stream: Queued<C>) {
        self.idle.borrow_mut().push_back(stream);
    }

    /// The tasks of this tick have run: buffers that came back are there, streams that wait get some, and
    /// streams that are not being read are switched off.
    pub(crate) fn end_of_tick(&self, bufs: &BufRing, counters: &CoreCounters, context: &C) {
        let short = self.is_short();
        bufs.refill(short);
        if short {
            self.dispatch(bufs, context);
        }
        if !self.overfull.borrow().is_empty() {
            self.hold_back(context);
        }
        if !bufs.has_some() && self.has_idle() && self.is_waited_for() && self.evict(bufs, context) {
            bufs.offer_all();
            self.dispatch(bufs, context);
        }
        bufs.end_of_tick(counters);
    }

    /// Lets as many of the streams that found no buffer receive as there are buffers, in turn.
    ///
    /// `ENOBUFS` does not mean that bytes wait: the kernel looks for a buffer first. A stream that is let
    /// receive and has nothing to receive leaves its buffer in the ring, for the next tick; so a core with
    /// buffers and waiting streams does not sleep ([`must_not_sleep`](Self::must_not_sleep)).
    fn dispatch(&self, bufs: &BufRing, context: &C) {
        let mut credits = bufs.free_buffers();
        while credits > 0 {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(stream) = next else { return };
            // Otherwise it was dropped, or quiesced, while it stood in the queue.
            let Some(stream) = stream.upgrade() else { continue };
            stream.left_queue();
            if stream.receive_again(context) {
                credits -= 1;
            }
        }
    }

    /// Out of line: it would make every tick heavier.
    #[inline(never)]
    fn hold_back(&self, context: &C) {
        // Index by index: nothing here adds to the list, and its capacity is kept.
        let mut overfull = self.overfull.take();
        for stream in overfull.drain(..) {
            stream.hold_back(context);
        }
        let mut empty = self.overfull.borrow_mut();
        if empty.capacity() < overfull.capacity() {
            overfull.append(&mut empty);
            *empty = overfull;
        }
    }

    /// Whether some stream may have chunks that nobody takes.
    #[inline(always)]
    fn has_idle(&self) -> bool {
        !self.idle.borrow().is_empty()
    }

    /// Frees buffers of streams that nobody reads, stream by stream until there is one. False: there is none.
    #[cold]
    fn evict(&self, bufs: &BufRing, context: &C) -> bool {
        let streams = self.idle.borrow().len();
        for _ in 0..streams {
            let next = self.idle.borrow_mut().pop_front();
            let Some(stream) = next.and_then(|stream| stream.upgrade()) else { continue };
            if stream.evict(context) {
                self.remember_idle(Rc::downgrade(&stream));
            }
            // A buffer comes free with the last of those that share it.
            if bufs.has_some() {
                return true;
            }
        }
        false
    }

    /// Before the core sleeps. True: there are buffers, or some have come back from elsewhere, for streams
    /// that wait for one. Otherwise, if any wait, the next return wakes the core.
    pub(crate) fn must_not_sleep(&self, bufs: &BufRing) -> bool {
        self.is_short() && bufs.has_some_or_waits()
    }
}
