//! What the tests inside the library have in common.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::core::Core;
use crate::ring::Wait;
use crate::task::yield_now;
use crate::{Builder, Runtime};

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with a pool that does not grow and a ring of this many entries.
pub(crate) fn small(ring_entries: u32) -> Builder {
    Runtime::builder().pool_bytes(1 << 20).pool_limit(1 << 20).ring_entries(ring_entries)
}

/// Runs `test` on the first CPU that is allowed, until the end of the runtime.
pub(crate) fn on_a_core(settings: Builder, test: impl AsyncFn() + Send + Sync + Clone + 'static) {
    let first = crate::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let runtime = settings.cores(first.to_string().parse().unwrap()).build().unwrap();
    runtime
        .run(move || {
            let test = test.clone();
            async move {
                test().await;
                Ok(())
            }
        })
        .unwrap();
}

/// Lets the core run ticks until `done`, or panics with what did not happen.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        yield_now().await;
    }
}

/// Submits what was pushed and lets the kernel work until `done`. No tick passes, so nobody handles its
/// completions.
pub(crate) fn let_kernel(what: &str, mut done: impl FnMut(&Core) -> bool) {
    let begun = Instant::now();
    while !Core::with(|core| {
        core.ring.enter(Wait::No).unwrap();
        done(core)
    }) {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// Does the same until this many CQEs are in the queue.
pub(crate) fn let_come(cqes: usize) {
    let_kernel(&format!("{cqes} CQEs"), |core| {
        let there = core.ring.completions();
        assert!(there <= cqes, "{there} CQEs and not {cqes}");
        there == cqes
    });
}

/// How many operations of this core have not ended.
pub(crate) fn alive() -> usize {
    Core::with(|core| core.ops.len())
}

/// The target of a descriptor, as /proc names it.
pub(crate) fn link_of(fd: BorrowedFd<'_>) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

/// Whether some descriptor of this process has the target `target`, as /proc names it.
pub(crate) fn is_open(target: &Path) -> bool {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).any(|link| link == target)
}

type Act = Box<dyn FnOnce()>;

thread_local! {
    /// The action at the next event.
    static NEXT: RefCell<Option<Act>> = const { RefCell::new(None) };
    /// The module whose event that is, while somebody holds the guard.
    static MODULE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// A subscriber that runs, once, the action that was [asked for](at_the_next_event).
///
/// It is that of the process, and wants to be asked about every event again. `tracing` remembers of an event
/// that nobody wants it, by the subscriber of the thread that comes to it first, where there is but one: a
/// subscriber of a thread would miss the event for ever because another thread has none.
struct Acts;

impl Subscriber for Acts {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        MODULE.try_with(Cell::get).ok().flatten() == Some(metadata.target())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, _: &Event<'_>) {
        let act = NEXT.take();
        if let Some(act) = act {
            act();
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Events of a module are told on this thread, until it is dropped.
#[must_use]
pub(crate) struct Told {
    before: Option<&'static str>,
}

impl Drop for Told {
    fn drop(&mut self) {
        MODULE.set(self.before);
    }
}

/// Makes `act` run at the next event of `module` on this thread, until the guard is dropped.
pub(crate) fn at_the_next_event(module: &'static str, act: impl FnOnce() + 'static) -> Told {
    static SET: Once = Once::new();
    SET.call_once(|| tracing::subscriber::set_global_default(Acts).expect("it is the only one"));
    // Of events that another thread has come to while it was being set.
    tracing::callsite::rebuild_interest_cache();
    NEXT.set(Some(Box::new(act)));
    Told { before: MODULE.replace(Some(module)) }
}

pub(crate) fn has_acted() -> bool {
    NEXT.with_borrow(Option::is_none)
}

/// Drops `value` while the thread panics, and has the subscriber panic at the next event of `module`.
pub(crate) fn dropped_by_a_panic<T>(module: &'static str, value: T) {
    let _guard = at_the_next_event(module, || panic!("the subscriber, on purpose"));
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _value = value;
        panic!("the task, on purpose");
    }));
    assert!(panicked.is_err() && has_acted(), "it was told nothing");
}

/// How many wakers that panic when they are dropped have been dropped.
pub(crate) struct BadWakers(Arc<AtomicUsize>);

impl BadWakers {
    /// Gives `f` so many of them, one after the other. It keeps a clone of each.
    pub(crate) fn give(count: usize, mut f: impl FnMut(&Waker)) -> Self {
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..count {
            f(&Waker::from(Arc::new(BadWaker(Arc::clone(&dropped)))));
        }
        Self(dropped)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct BadWaker(Arc<AtomicUsize>);

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {}
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the waker's destructor, on purpose");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail, alone: with a subscriber of this thread, the other one has the event switched off.
    #[test]
    fn a_thread_that_comes_first_to_an_event_does_not_hide_it_from_others() {
        fn tell() {
            tracing::debug!("told");
        }
        let _told = at_the_next_event("annulus::testing::tests", || {});
        std::thread::spawn(tell).join().unwrap();
        assert!(!has_acted());
        tell();
        assert!(has_acted());
    }
}
