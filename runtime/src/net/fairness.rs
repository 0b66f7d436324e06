//! Which streams of a core receive, when there are fewer buffers than there are streams that want one.
//!
//! - Streams that found no buffer wait in order, and get one in turn when buffers are free.
//! - Streams that hold too much when it comes are switched off at the end of the tick, when their tasks had
//!   every chance.
//! - Streams that nobody reads give their buffers up when others wait for one
//!   ([`BufRing::copy_out`](crate::buf::ring::BufRing::copy_out)): those that were switched off, and those
//!   that came to hold a chunk when buffers were few. What others hold leaves those few at least.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::socket::Socket;
use crate::core::Core;

/// The streams of a core that wait for buffers, or hold them and should not.
#[derive(Default)]
pub(crate) struct Fairness {
    /// Streams that found no buffer, in the order in which they will get one.
    waiting: RefCell<VecDeque<Weak<Socket>>>,
    /// Streams that held too much when it came; inspected when the tick ends.
    overfull: RefCell<Vec<Rc<Socket>>>,
    /// Streams that hold chunks which nobody took, as far as is known; the first that was found so first.
    idle: RefCell<VecDeque<Weak<Socket>>>,
}

impl Fairness {
    /// A stream that found no buffer waits for its turn.
    pub(crate) fn wait_for_buffer(&self, socket: &Rc<Socket>) {
        self.waiting.borrow_mut().push_back(Rc::downgrade(socket));
    }

    /// Entries in the queue of streams that wait for a buffer.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn queue_len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether streams wait for buffers.
    pub(crate) fn is_short(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether streams wait for buffers and there is none.
    pub(crate) fn is_starving(&self, core: &Core) -> bool {
        !core.bufs.has_some() && self.is_waited_for()
    }

    /// Whether a stream waits that is still there and still wants to receive. Forgets those before it that do
    /// not.
    fn is_waited_for(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.front() {
            if let Some(socket) = first.upgrade() {
                if socket.is_starved() {
                    return true;
                }
                socket.left_queue();
            }
            waiting.pop_front();
        }
        false
    }

    /// A stream holds much that nobody took: it is inspected again when its task has had its chance.
    #[inline(always)]
    pub(crate) fn inspect_later(&self, socket: Rc<Socket>) {
        self.overfull.borrow_mut().push(socket);
    }

    /// A stream holds what nobody took.
    pub(crate) fn remember_idle(&self, socket: &Rc<Socket>) {
        self.idle.borrow_mut().push_back(Rc::downgrade(socket));
    }

    /// The tasks of this tick have run: buffers that came back are there, streams that wait get some, and
    /// streams that are not being read are switched off.
    pub(crate) fn end_of_tick(&self, core: &Core) {
        let short = self.is_short();
        core.bufs.refill(short);
        if short {
            self.dispatch(core);
        }
        if !self.overfull.borrow().is_empty() {
            self.hold_back(core);
        }
        if !core.bufs.has_some() && self.has_idle() && self.is_waited_for() && self.evict(core) {
            core.bufs.offer_all();
            self.dispatch(core);
        }
        core.bufs.end_of_tick(&core.shared.counters);
    }

    /// Lets as many of the streams that found no buffer receive as there are buffers, in turn.
    ///
    /// `ENOBUFS` does not mean that bytes wait: the kernel looks for a buffer first. A stream that is let
    /// receive and has nothing to receive leaves its buffer in the ring, for the next tick; so a core with
    /// buffers and waiting streams does not sleep ([`must_not_sleep`](Self::must_not_sleep)).
    fn dispatch(&self, core: &Core) {
        let mut credits = core.bufs.free_buffers();
        while credits > 0 {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(socket) = next else { return };
            // Otherwise it was dropped, or quiesced, while it stood in the queue.
            let Some(socket) = socket.upgrade() else { continue };
            socket.left_queue();
            if socket.receive_again(core) {
                credits -= 1;
            }
        }
    }

    /// Apart from the tick, which is lighter without it.
    #[inline(never)]
    fn hold_back(&self, core: &Core) {
        // Index by index: nothing here adds to the list, and its capacity is kept.
        let mut overfull = self.overfull.take();
        for socket in overfull.drain(..) {
            socket.hold_back(core);
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
    fn evict(&self, core: &Core) -> bool {
        let streams = self.idle.borrow().len();
        for _ in 0..streams {
            let next = self.idle.borrow_mut().pop_front();
            let Some(socket) = next.and_then(|socket| socket.upgrade()) else { continue };
            if socket.evict(core) {
                self.remember_idle(&socket);
            }
            // A buffer comes free with the last of those that share it.
            if core.bufs.has_some() {
                return true;
            }
        }
        false
    }

    /// Before the core sleeps. True: there are buffers, or some have come back from elsewhere, for streams
    /// that wait for one. Otherwise, if any wait, the next return wakes the core.
    pub(crate) fn must_not_sleep(&self, core: &Core) -> bool {
        self.is_short() && core.bufs.has_some_or_waits()
    }
}
