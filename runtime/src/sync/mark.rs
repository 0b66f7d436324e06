//! A word that says whether there is something to take, for a queue whose own answer costs more.
//!
//! A sender puts its message and then raises the mark. The receiver looks at the mark alone, and takes
//! messages while it is up. It lowers the mark when it finds no message, and then looks for one once more.
//!
//! Raising and lowering are read-modify-writes of one word, so they are in one order, and each one that
//! lowers it has seen the messages of all that raised it before. A message whose sender raises the mark later
//! is found by that. [`is_up`](Mark::is_up) orders nothing: beside a [`Doorbell`](super::mailbox::Doorbell)
//! its fences do.

use crate::sync::atomic::{AtomicBool, Ordering};

/// The mark. It begins lowered.
pub(crate) struct Mark(AtomicBool);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// There is something to take, from any thread, after it was put.
    pub(crate) fn raise(&self) {
        // Also where it is up: whoever lowers it must see this thread's message.
        self.0.swap(true, Ordering::Release);
    }

    /// Whether there may be something to take.
    #[inline(always)]
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nothing was found. The receiver looks once more after it.
    pub(crate) fn lower(&self) {
        self.0.swap(false, Ordering::Acquire);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::Mark;
    use crate::sync::mailbox::Doorbell;
    use crate::sync::model::{BothOrders, check};

    struct Core {
        mark: Mark,
        doorbell: Doorbell,
        signal: Notify,
        /// A place for a message of each sender.
        places: [AtomicUsize; 2],
        both_orders: BothOrders,
    }

    impl Core {
        fn take(&self) -> usize {
            self.places.iter().map(|place| place.swap(0, Ordering::Relaxed)).sum()
        }
    }

    /// Two senders, and a receiver that sleeps whenever the mark is down. A lost message is a deadlock.
    ///
    /// Seen to fail: with no second look after it is lowered, and with a plain store that raises it.
    #[test]
    fn no_message_is_left_behind_a_lowered_mark() {
        check(2, || {
            let core = Arc::new(Core {
                mark: Mark::new(),
                doorbell: Doorbell::new(),
                signal: Notify::new(),
                places: [AtomicUsize::new(0), AtomicUsize::new(0)],
                both_orders: BothOrders::new(),
            });
            let senders = [0, 1].map(|who| {
                let core = core.clone();
                thread::spawn(move || {
                    core.places[who].store(1, Ordering::Relaxed);
                    core.mark.raise();
                    core.both_orders.pass();
                    if core.doorbell.notify() {
                        core.signal.notify();
                    }
                })
            });
            let mut got = 0;
            while got < 2 {
                core.doorbell.prepare_sleep();
                core.both_orders.pass();
                if !core.mark.is_up() {
                    core.signal.wait();
                }
                core.doorbell.cancel_sleep();
                while core.mark.is_up() {
                    got += core.take();
                    core.mark.lower();
                    let late = core.take();
                    if late > 0 {
                        core.mark.raise();
                        got += late;
                    }
                }
            }
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }
}
