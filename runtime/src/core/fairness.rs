//! Which streams of a core receive, when there are fewer buffers than there are streams that want one.
//!
//! - Streams that found no buffer wait in order, and get one in turn when buffers are free.
//! - Streams that hold too many chunks are switched off at the end of the tick, after their tasks had a
//!   chance to read.
//! - Streams that nobody reads give their buffers up when others wait for one
//!   ([`BufRing::copy_out`](crate::buf::ring::BufRing::copy_out)). These are streams that were switched off,
//!   and streams that received a chunk when buffers were few. The chunks of all others leave at least those
//!   few buffers.
//!
//! A receiver is a socket. This file knows it only by the trait [`Receives`], because sockets are above the
//! core, which keeps these queues. The calls are rare, so the cost of dynamic dispatch does not matter.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use crate::buf::ring::BufRing;
use crate::metrics::counters::Cells;

/// A stream that receives into the core's buffers. `C` is the context that its methods are given: the core.
pub(crate) trait Receives<C> {
    /// Whether it waits for a buffer.
    fn is_starved(&self) -> bool;
    /// It was taken out of the queue of streams that wait for a buffer.
    fn left_queue(&self);
    /// There is a buffer, and it is this stream's turn. `false`: it does not want to receive any more.
    fn receive_again(self: Rc<Self>, context: &C) -> bool;
    /// The tick ends: switches the receive off if nobody took what came.
    fn hold_back(self: Rc<Self>, context: &C);
    /// Others wait for buffers: gives up the buffers of chunks that nobody took. Returns whether it may have
    /// more.
    fn evict(&self, context: &C) -> bool;
}

/// A stream in a queue. The queue does not keep it alive.
type Queued<C> = Weak<dyn Receives<C>>;

/// The streams of a core that wait for buffers, or hold them and should not.
pub(crate) struct Fairness<C> {
    /// Streams that found no buffer, in the order in which they will get one.
    waiting: RefCell<VecDeque<Queued<C>>>,
    /// Streams that held too many chunks after a receive. They are inspected when the tick ends.
    overfull: RefCell<Vec<Rc<dyn Receives<C>>>>,
    /// Streams that are known to hold chunks which nobody took, oldest first.
    idle: RefCell<VecDeque<Queued<C>>>,
}

impl<C> Default for Fairness<C> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), overfull: RefCell::default(), idle: RefCell::default() }
    }
}

impl<C: 'static> Fairness<C> {
    /// Puts a stream that found no buffer into the queue.
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

    /// Whether a stream waits that still exists and still wants to receive. Removes the entries before it
    /// that do not.
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

    /// A stream holds many chunks that nobody took: it is inspected again after its task has had a chance to
    /// read.
    #[inline(always)]
    pub(crate) fn inspect_later(&self, stream: Rc<dyn Receives<C>>) {
        self.overfull.borrow_mut().push(stream);
    }

    /// A stream holds chunks that nobody took.
    ///
    /// Entries of streams that are gone are removed when the list is full, because each keeps the memory of
    /// its stream. The list doubles where more than half of it stays, so an entry costs a constant time.
    pub(crate) fn remember_idle(&self, stream: Queued<C>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == idle.capacity() {
            idle.retain(|stream| stream.strong_count() > 0);
            if idle.len() > idle.capacity() / 2 {
                let more = idle.len() + 1;
                idle.reserve(more);
            }
        }
        idle.push_back(stream);
    }

    /// The tasks of this tick have run: collects buffers that came back, lets waiting streams receive, and
    /// switches off streams that are not being read.
    #[inline(always)]
    pub(crate) fn end_of_tick(&self, bufs: &BufRing, counters: &Cells, context: &C) {
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

    /// Lets streams that found no buffer receive, in order, as many as there are buffers.
    ///
    /// `ENOBUFS` does not mean that bytes wait: the kernel looks for a buffer first. A stream that receives
    /// and finds nothing leaves its buffer in the ring, for the next tick. So a core with buffers and waiting
    /// streams does not sleep ([`must_not_sleep`](Self::must_not_sleep)).
    #[inline(never)]
    fn dispatch(&self, bufs: &BufRing, context: &C) {
        let mut credits = bufs.free_buffers();
        while credits > 0 {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(stream) = next else { return };
            // Otherwise it was dropped, or quiesced, while it was in the queue.
            let Some(stream) = stream.upgrade() else { continue };
            stream.left_queue();
            if stream.receive_again(context) {
                credits -= 1;
            }
        }
    }

    /// Out of line, because inlined it would make every tick slower.
    #[inline(never)]
    fn hold_back(&self, context: &C) {
        // By index: nothing here adds to the list, and its capacity is kept.
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

    /// Whether some stream may hold chunks that nobody takes.
    #[inline(always)]
    fn has_idle(&self) -> bool {
        !self.idle.borrow().is_empty()
    }

    /// Frees buffers of streams that nobody reads, one stream at a time, until one buffer is free. `false`:
    /// none is.
    #[cold]
    fn evict(&self, bufs: &BufRing, context: &C) -> bool {
        let streams = self.idle.borrow().len();
        for _ in 0..streams {
            let next = self.idle.borrow_mut().pop_front();
            let Some(stream) = next.and_then(|stream| stream.upgrade()) else { continue };
            if stream.evict(context) {
                self.remember_idle(Rc::downgrade(&stream));
            }
            // A buffer is free only when the last lease on it is gone.
            if bufs.has_some() {
                return true;
            }
        }
        false
    }

    /// Asked before the core sleeps. `true`: buffers are free, or have come back from other threads, for
    /// streams that wait for one. Otherwise, if any stream waits, the next return wakes the core.
    #[inline(always)]
    pub(crate) fn must_not_sleep(&self, bufs: &BufRing) -> bool {
        self.is_short() && bufs.has_some_or_waits()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Stream;

    impl Receives<()> for Stream {
        fn is_starved(&self) -> bool {
            false
        }

        fn left_queue(&self) {}

        fn receive_again(self: Rc<Self>, _: &()) -> bool {
            false
        }

        fn hold_back(self: Rc<Self>, _: &()) {}

        fn evict(&self, _: &()) -> bool {
            true
        }
    }

    /// A core whose buffers never run out evicts nobody, and still forgets streams that are gone: each entry
    /// keeps the memory of its stream.
    ///
    /// Seen to fail: with a plain push, and by 33 bytes for each connection of ten minutes' soak of relays.
    #[test]
    fn streams_that_are_gone_leave_nothing_behind() {
        let fairness = Fairness::<()>::default();
        let alive: Vec<Rc<dyn Receives<()>>> = (0..100).map(|_| Rc::new(Stream) as _).collect();
        for n in 0..100_000 {
            let gone: Rc<dyn Receives<()>> = Rc::new(Stream);
            fairness.remember_idle(Rc::downgrade(&gone));
            if n % 1000 == 0 {
                fairness.remember_idle(Rc::downgrade(&alive[n / 1000]));
            }
        }
        let idle = fairness.idle.borrow();
        assert!(idle.len() <= 512, "{} entries", idle.len());
        let known = idle.iter().filter(|stream| stream.strong_count() > 0).count();
        assert_eq!(known, alive.len(), "and none that is there is forgotten");
    }
}
