//! Where the time of a future goes: to its own code, to the core that is late, to the kernel, to others.
//!
//! [`watched`] wraps a future. A wait begins when the future returns `Pending`, and ends when its waker is
//! called; from then on the task waits to be polled. What has called the waker tells what was waited for:
//!
//! | name | what was waited for |
//! |---|---|
//! | [`POLLS`] | nothing: the future's own code ran |
//! | [`TASK`] | the core, which after the wake polled other tasks first |
//! | [`TICKS`] | the core, which was in a tick of its loop and had not entered the ring yet; an upper bound |
//! | [`RECEIVE`] | bytes of a peer, or a client |
//! | [`SEND`] | a peer, to take bytes |
//! | [`CONNECT`] | a connection to be established |
//! | [`DISK`] | a file, or its name |
//! | [`IO_WQ`] | the same, while the kernel had more such work than workers ([`RingFeatures`](crate::RingFeatures)) |
//! | [`BUFFERS`] | a receive buffer of the core, and then bytes |
//! | [`TIMER`] | a timer |
//! | [`OTHERS`] | another task, another thread, an operation of one's own |
//!
//! The core has to note what it does ([`Builder::measure_waits`](crate::Builder::measure_waits)). Otherwise
//! every wait counts as one for [`OTHERS`].
//!
//! ```
//! use annulus::{Runtime, time, waits};
//! use std::time::Duration;
//!
//! Runtime::builder().most_cores(1).measure_waits(true).build()?.run(|| async {
//!     let waited = waits::watched(async {
//!         time::sleep(Duration::from_millis(2)).await;
//!         waits::so_far()
//!     });
//!     let waits = waited.await.expect("inside of a watched future");
//!     assert!(waits.of(waits::TIMER) >= Duration::from_millis(1));
//!     annulus::Ok(())
//! })?;
//! # annulus::Ok(())
//! ```

mod note;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::Core;
use crate::core::notes::nanoseconds;
use crate::op::waits_for::WaitsFor;
use note::Note;

/// The future's own code ran.
pub const POLLS: &str = "polls";
/// The task had been woken, and the core polled other tasks.
pub const TASK: &str = "task";
/// The core entered the ring late. The time is an upper bound.
pub const TICKS: &str = "ticks";
/// Bytes of a peer, or a client.
pub const RECEIVE: &str = "receive";
/// A peer had to take bytes.
pub const SEND: &str = "send";
/// A connection was being established.
pub const CONNECT: &str = "connect";
/// Files and their names.
pub const DISK: &str = "disk";
/// Files and their names, while the kernel had more such work than io-wq workers.
pub const IO_WQ: &str = "io-wq";
/// A receive buffer of the core, and then bytes.
pub const BUFFERS: &str = "buffers";
/// A timer.
pub const TIMER: &str = "timer";
/// Another task, another thread, an operation of one's own.
pub const OTHERS: &str = "others";

/// Where the time of a watched future has gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// What was waited for, and for how long in all, in the order in which the waits came first.
    pub spent: Vec<(&'static str, Duration)>,
    /// How often the future asked for a block and there was none.
    pub blocks_refused: u64,
    /// How often the future asked for a pipe and there was none.
    pub pipes_refused: u64,
}

impl Waits {
    /// How long the future has waited for `what`.
    pub fn of(&self, what: &str) -> Duration {
        self.spent.iter().find(|(name, _)| *name == what).map_or(Duration::ZERO, |(_, time)| *time)
    }

    fn add(&mut self, what: &'static str, time: Duration) {
        if time.is_zero() {
            return;
        }
        match self.spent.iter_mut().find(|(name, _)| *name == what) {
            // Times may be the application's own.
            Some((_, sum)) => *sum = sum.saturating_add(time),
            None => self.spent.push((what, time)),
        }
    }
}

/// The last wait of a watched future.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastWait {
    /// The time from `Pending` to the wake.
    pub lasted: Duration,
    /// The part of `lasted` by which the core was late, at most.
    pub ticks: Duration,
    /// The time from the wake to the poll.
    pub task: Duration,
    /// Whether a receive had found no buffer.
    pub lacked_buffer: bool,
}

/// Watches where the time of a future goes, as [the module](self) has it.
///
/// Watching costs an allocation for the future and one for a waker, two readings of the clock for each poll,
/// and one for each wake.
///
/// # Cancellation
/// Dropping the [`Watched`] drops the future.
pub fn watched<F: Future>(future: F) -> Watched<F> {
    Watched { future: Box::pin(future), journal: Rc::default() }
}

/// The future of [`watched`].
///
/// # Cancellation
/// Drops the future that it watches.
#[must_use = "futures do nothing unless awaited"]
pub struct Watched<F> {
    future: Pin<Box<F>>,
    journal: Rc<Journal>,
}

impl<F> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("waits", &self.journal.waits.borrow()).finish_non_exhaustive()
    }
}

/// Where the time of the watched future that is being polled has gone since it began, or since
/// [`start_over`]; `None` outside of one.
pub fn so_far() -> Option<Waits> {
    here(|journal| {
        journal.count_refused();
        let mut waits = journal.waits.borrow().clone();
        waits.add(POLLS, clock::now().saturating_duration_since(journal.polled.get()));
        waits
    })
}

/// Forgets where the time has gone until now, and returns the last wait. `None` outside of a watched future.
pub fn start_over() -> Option<LastWait> {
    here(|journal| {
        journal.count_refused();
        drop(journal.waits.take());
        journal.polled.set(clock::now());
        journal.last.get()
    })
}

/// Says that the next wait of the watched future that is being polled is for `what`, whatever wakes it.
pub fn next_is(what: &'static str) {
    here(|journal| journal.next.set(Some(what)));
}

/// Awaits `future`. Until it is ready the waits of the watched future around it count as waits for `what`,
/// whatever wakes it.
///
/// # Cancellation
/// Drops `future`.
pub async fn during<F: Future>(what: &'static str, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            next_is(what);
        }
        polled
    })
    .await
}

/// Adds to the time that the watched future has waited for `what`.
pub fn add(what: &'static str, time: Duration) {
    here(|journal| journal.waits.borrow_mut().add(what, time));
}

thread_local! {
    /// The journal of the watched future that is being polled.
    static HERE: RefCell<Option<Rc<Journal>>> = const { RefCell::new(None) };
}

fn here<T>(f: impl FnOnce(&Journal) -> T) -> Option<T> {
    // There is none at the end of a thread, where destructors of other values still run.
    let journal = HERE.try_with(|here| here.borrow().clone()).ok().flatten();
    journal.map(|journal| f(&journal))
}

/// What is known of a watched future.
struct Journal {
    waits: RefCell<Waits>,
    last: Cell<LastWait>,
    /// What the next wait is for, if the future has said so.
    next: Cell<Option<&'static str>>,
    /// What the wait before this poll was for, if the future has said so.
    said: Cell<Option<&'static str>>,
    /// Whether the receive that the future waits for has found no buffer.
    lacks_buffer: Cell<bool>,
    /// The time up to which this poll has been counted: its beginning, or the last [`start_over`].
    polled: Cell<Instant>,
    /// Blocks and pipes that the core had refused when they were last counted.
    refused: Cell<(u64, u64)>,
    note: RefCell<Option<(Arc<Note>, Waker)>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            waits: RefCell::default(),
            last: Cell::default(),
            next: Cell::new(None),
            said: Cell::new(None),
            lacks_buffer: Cell::new(false),
            polled: Cell::new(clock::now()),
            refused: Cell::new((0, 0)),
            note: RefCell::new(None),
        }
    }
}

impl Journal {
    /// The waker that notes how `outer` was called. The one before it is dropped with nothing borrowed,
    /// because its destructor may be the application's.
    fn waker(&self, outer: &Waker) -> Waker {
        let known = self.note.borrow().as_ref().map(|(note, waker)| (note.is_of(outer), waker.clone()));
        match known {
            Some((true, waker)) => waker,
            _ => {
                let note = Arc::new(Note::new(outer.clone()));
                let waker = Waker::from(Arc::clone(&note));
                let before = self.note.replace(Some((note, waker.clone())));
                drop(before);
                waker
            }
        }
    }

    fn note(&self) -> Option<Arc<Note>> {
        self.note.borrow().as_ref().map(|(note, _)| Arc::clone(note))
    }

    /// A poll begins: counts the wait before it.
    fn end_wait(&self) {
        let now = clock::now();
        self.polled.set(now);
        let Some(note) = self.note() else { return };
        let (since, woken) = (note.since.load(Ordering::Relaxed), note.woken.load(Ordering::Acquire));
        let said = self.said.take();
        if since != 0 {
            let now = nanoseconds(note.start, now) + 1;
            // Without a wake nothing is known of why the future is polled.
            let woken = if woken == 0 { now } else { woken.max(since).min(now) };
            let lasted = woken - since;
            let ticks = note.ticks.load(Ordering::Relaxed).min(lasted);
            let cause = WaitsFor::of(note.cause.load(Ordering::Relaxed));
            let lacked = self.lacks_buffer.get() && cause == WaitsFor::Receive;
            let what = said.unwrap_or(if lacked { BUFFERS } else { cause.name() });
            let last = LastWait {
                lasted: Duration::from_nanos(lasted),
                ticks: Duration::from_nanos(ticks),
                task: Duration::from_nanos(now - woken),
                lacked_buffer: lacked,
            };
            let mut waits = self.waits.borrow_mut();
            waits.add(what, last.lasted - last.ticks);
            waits.add(TICKS, last.ticks);
            waits.add(TASK, last.task);
            drop(waits);
            self.last.set(last);
            match (note.lacked_buffer.load(Ordering::Relaxed), cause) {
                (true, _) => self.lacks_buffer.set(true),
                (false, WaitsFor::Receive) => self.lacks_buffer.set(false),
                _ => {}
            }
        }
        note.rearm();
    }

    /// The poll is over, and the future waits.
    fn begin_wait(&self) {
        self.said.set(self.next.take());
        let Some(note) = self.note() else { return };
        Core::try_with(|core| {
            if core.notes.found_no_buffer() {
                self.lacks_buffer.set(true);
            }
            note.tick.store(core.notes.tick(), Ordering::Relaxed);
        });
        note.since.store(nanoseconds(note.start, clock::now()) + 1, Ordering::Relaxed);
    }

    /// Counts blocks and pipes that this poll was refused.
    fn count_refused(&self) {
        let now = refused();
        let (blocks, pipes) = self.refused.replace(now);
        let mut waits = self.waits.borrow_mut();
        waits.blocks_refused += now.0 - blocks;
        waits.pipes_refused += now.1 - pipes;
    }
}

/// Blocks and pipes that this core has refused.
fn refused() -> (u64, u64) {
    Core::try_with(|core| (core.blocks.refused(), core.shared.counters.pipes_refused.get())).unwrap_or((0, 0))
}

/// Makes a journal that of this thread, until dropped.
struct Entered(Option<Rc<Journal>>);

impl Entered {
    fn new(journal: &Rc<Journal>) -> Self {
        Entered(HERE.try_with(|here| here.replace(Some(Rc::clone(journal)))).ok().flatten())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // This drops no journal, because its future has it too.
        drop(HERE.try_with(|here| here.replace(self.0.take())));
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let journal = Rc::clone(&self.journal);
        journal.end_wait();
        journal.refused.set(refused());
        Core::try_with(|core| core.notes.poll_begins());
        let waker = journal.waker(cx.waker());
        let polled = {
            let _entered = Entered::new(&journal);
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        };
        journal.count_refused();
        let ran = clock::now().saturating_duration_since(journal.polled.get());
        journal.waits.borrow_mut().add(POLLS, ran);
        if polled.is_pending() {
            journal.begin_wait();
        }
        polled
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
