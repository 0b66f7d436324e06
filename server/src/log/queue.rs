//! The queue between a thread that logs and the thread that writes. It is bounded, and neither waits for the
//! other.
//!
//! A queue is a ring of bytes with one writer and one reader. A line is pushed whole or not at all, and costs
//! a copy: no memory is allocated, and the writing thread is woken by a system call only when it sleeps.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::thread::Thread;

use rtrb::{Consumer, Producer, RingBuffer};

use super::barrier;

/// Bytes of a queue. 50,000 lines a second of 200 bytes fill it in 200 ms; the writing thread empties it
/// every 100 ms, and is woken when a quarter is full.
pub(super) const QUEUE_BYTES: usize = 2 << 20;

/// The longest line, in bytes, newline included. A longer one is cut: a request's head has 16 KiB at most,
/// and its bytes take four at most when they are escaped.
pub(super) const LONGEST_LINE: usize = 128 << 10;

/// What became of lines. Written by the threads that log, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Lines that were to be logged.
    pub(super) logged: AtomicU64,
    /// Of these, those that the queue had no space for.
    pub(super) dropped: AtomicU64,
}

/// The end of a queue that a thread logs to.
pub(super) struct LineQueue {
    ring: Producer<u8>,
    tally: Arc<Tally>,
    bell: Arc<Bell>,
}

/// The end of a queue that the writing thread reads.
pub(super) struct Source {
    pub(super) ring: Consumer<u8>,
}

impl LineQueue {
    /// A queue of `bytes`, and its other end.
    pub(super) fn new(bytes: usize, bell: Arc<Bell>) -> (LineQueue, Source) {
        let (producer, consumer) = RingBuffer::new(bytes);
        let tally = Arc::new(Tally::default());
        (LineQueue { ring: producer, tally, bell }, Source { ring: consumer })
    }

    /// What it has counted.
    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Queues one line, which ends with a newline, or drops it where there is no space.
    pub(super) fn push(&mut self, line: &[u8]) {
        let add = |count: &AtomicU64| count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        add(&self.tally.logged);
        // The count of a line is there before the line is: what was written is never more than what was
        // logged.
        if self.ring.push_entire_slice(line).is_err() {
            add(&self.tally.dropped);
        }
        self.bell.ring(self.ring.slots() < self.ring.buffer().capacity() / 4 * 3);
    }
}

/// Wakes the writing thread, at a cost only when it sleeps.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

/// The thread is working, and reads the queues again before it sleeps.
const AWAKE: u8 = 0;
/// It sleeps for some milliseconds, so that lines come together: only a queue that fills up wakes it.
const COLLECTING: u8 = 1;
/// It sleeps, and any line wakes it.
const ASLEEP: u8 = 2;

impl Bell {
    /// Tells that something was queued; `urgent`: it must not wait any longer.
    pub(super) fn ring(&self, urgent: bool) {
        // With the barrier in `park`: either this thread sees the state, or the other one sees what was
        // queued.
        barrier::light();
        let state = self.state.load(Ordering::Relaxed);
        if state == ASLEEP || urgent && state == COLLECTING {
            self.wake();
        }
    }

    /// Wakes the thread, however it sleeps.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.state.swap(AWAKE, Ordering::AcqRel) != AWAKE
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Makes the calling thread the one that is woken.
    pub(super) fn belongs_to_this_thread(&self) {
        barrier::register();
        self.thread.get_or_init(std::thread::current);
    }

    /// Sleeps until a line comes, or `limit` is over; not at all if `is_pending` finds something. Also
    /// returns for no reason.
    pub(super) fn sleep(&self, limit: Option<std::time::Duration>, is_pending: impl FnOnce() -> bool) {
        self.park(ASLEEP, limit, is_pending);
    }

    /// Sleeps for `time`, or until a queue fills up.
    pub(super) fn collect(&self, time: std::time::Duration) {
        self.park(COLLECTING, Some(time), || false);
    }

    fn park(&self, state: u8, limit: Option<std::time::Duration>, is_pending: impl FnOnce() -> bool) {
        self.state.store(state, Ordering::Relaxed);
        if state == ASLEEP {
            barrier::heavy();
        }
        if !is_pending() {
            match limit {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
        }
        self.state.store(AWAKE, Ordering::Release);
    }
}
