//! A host that is not friendly, for the second run of the test programs.
//!
//! `ANNULUS_HOSTILE=SEED` gives the process a subscriber that spawns, submits, polls, and drops kept futures
//! and leases in each of its methods, and the bodies of tests wakers that do so when they are cloned, called
//! and dropped. With `ANNULUS_HOSTILE=SEED,panics` each of these panics now and then. What a thread does
//! follows from the seed and its name. `scripts/lib/hostile` runs it.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::catch_unwind;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use annulus::fs::File;
use annulus::net::UnixStream;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, span};

/// The words of its panics.
const WORDS: &str = "the hostile host, on purpose";
/// Things that a thread keeps, at most.
const KEPT: usize = 8;
/// One call in so many does something; one in so many panics.
const ACTS: u64 = 4;
const PANICS: u64 = 5003;

/// Zero in a friendly process.
static SEED: AtomicU64 = AtomicU64::new(0);
/// One call in so many panics; zero: none.
static PANIC: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// Within an act, or at the thread's end: what is called now does nothing.
    static BUSY: Cell<bool> = const { Cell::new(false) };
    /// The panic of a look is not told.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static TASKS: Cell<usize> = const { Cell::new(0) };
    static THINGS: Things = const { Things(RefCell::new(Vec::new())) };
}

type Thing = Pin<Box<dyn Future<Output = ()>>>;

/// What a thread keeps, beyond the end of its core too.
struct Things(RefCell<Vec<Thing>>);

impl Drop for Things {
    fn drop(&mut self) {
        // A panic in here would abort the process.
        BUSY.set(true);
    }
}

/// Before `main`: no test program has to call anything.
#[used]
// SAFETY: the loader calls what is in this section with the C calling convention, and `arm` neither unwinds
// nor needs the standard library's start-up: it reads the environment and stores.
#[unsafe(link_section = ".init_array")]
static ARM: extern "C" fn() = arm;

extern "C" fn arm() {
    let Ok(asked) = std::env::var("ANNULUS_HOSTILE") else { return };
    let (seed, panics) = asked.split_once(',').map_or((&*asked, false), |(seed, _)| (seed, true));
    let Ok(seed) = seed.parse::<u64>() else { return };
    SEED.store(seed.max(1), Ordering::Relaxed);
    PANIC.store(if panics { PANICS } else { 0 }, Ordering::Relaxed);
    eprintln!("ANNULUS_HOSTILE={asked}");
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            told(info);
        }
    }));
    drop(tracing::subscriber::set_global_default(Host));
}

/// The subscriber of a program that has one of its own. On a hostile host, that host is told first.
static BESIDE: OnceLock<Box<dyn Subscriber + Send + Sync>> = OnceLock::new();

/// Sets the subscriber of the whole process, also where the hostile host is one already. Once.
pub(crate) fn set_subscriber(subscriber: impl Subscriber + Send + Sync + 'static) {
    if SEED.load(Ordering::Relaxed) == 0 {
        tracing::subscriber::set_global_default(subscriber).unwrap();
        return;
    }
    assert!(BESIDE.set(Box::new(subscriber)).is_ok(), "one subscriber for a program");
}

/// Acts, and then has the program's own subscriber, if it wants this.
fn act_and_tell(metadata: Option<&Metadata<'_>>, tell: impl FnOnce(&dyn Subscriber)) {
    act_and_panic(true);
    if let Some(beside) = BESIDE.get()
        && metadata.is_none_or(|metadata| beside.enabled(metadata))
    {
        tell(&**beside);
    }
}

fn random() -> u64 {
    let mut state = RANDOM.get();
    if state == 0 {
        let name = std::thread::current().name().map(str::to_owned);
        let hashed = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        state = (hashed ^ SEED.load(Ordering::Relaxed)) | 1;
    }
    // Marsaglia's xorshift64.
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    RANDOM.set(state);
    state >> 16
}

/// Whether the calling thread is a core's, just now.
fn on_core() -> bool {
    QUIET.set(true);
    let is = catch_unwind(annulus::cores::index).is_ok();
    QUIET.set(false);
    is
}

/// What every piece of foreign code does. Wakers panic on cores only: on a thread of a test it would be the
/// test that breaks.
fn act() {
    act_and_panic(false);
}

fn act_and_panic(anywhere: bool) {
    if SEED.load(Ordering::Relaxed) == 0 || BUSY.replace(true) {
        return;
    }
    let random = random();
    let panics = PANIC.load(Ordering::Relaxed);
    let panics = panics > 0 && random.is_multiple_of(panics) && !std::thread::panicking();
    let acts = random.is_multiple_of(ACTS) && !std::thread::panicking();
    let on_core = (acts || panics && !anywhere) && on_core();
    if acts && on_core {
        do_one(random / ACTS);
    }
    BUSY.set(false);
    assert!(!panics || !anywhere && !on_core, "{WORDS}");
}

fn do_one(what: u64) {
    match what % 8 {
        0 => spawn(async { annulus::yield_now().await }),
        1 => keep(async {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            let Ok(file) = rustix::fs::memfd_create("hostile", flags).map(File::from_fd) else { return };
            drop(file.write_at(vec![1; 100], 0).await);
            drop(file.read_at(Vec::with_capacity(100), 0).await);
        }),
        2 => keep(annulus::time::sleep(Duration::from_micros(what / 8 % 1000))),
        3 => keep(async {
            let Ok((reader, _writer)) = annulus::pipe::pipe() else { return };
            drop(reader.read(Vec::with_capacity(10)).await);
        }),
        4 => spawn(async {
            let Ok((a, b)) = UnixStream::pair() else { return };
            if b.send_all("x").await.is_ok()
                && let Ok(Some(lease)) = a.recv().await
                // Where there are few buffers, a test may need each of them.
                && annulus::cores::counters().recv_buffers_ready > 16
            {
                keep(async move {
                    let _lease = lease;
                    pending().await
                });
            }
        }),
        5 => drop(annulus::buf::Block::take()),
        6 => poll_one(),
        _ => drop(take_one(what / 8)),
    }
}

/// Spawns a task, if few are under way.
fn spawn(task: impl Future<Output = ()> + 'static) {
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            TASKS.set(TASKS.get() - 1);
        }
    }
    if TASKS.get() < KEPT {
        TASKS.set(TASKS.get() + 1);
        let counted = Counted;
        annulus::spawn(async move {
            let _counted = counted;
            task.await;
        })
        .detach();
    }
}

/// Polls a future once and keeps it, as long as there is room.
fn keep(future: impl Future<Output = ()> + 'static) {
    put(Box::pin(future));
    poll_one();
}

fn put(thing: Thing) {
    let old = THINGS.try_with(|things| {
        let mut things = things.0.borrow_mut();
        things.push(thing);
        (things.len() > KEPT).then(|| things.remove(0))
    });
    drop(old);
}

fn take_one(which: u64) -> Option<Thing> {
    let taken = THINGS.try_with(|things| {
        let mut things = things.0.borrow_mut();
        let len = things.len();
        (len > 0).then(|| things.remove(which as usize % len))
    });
    taken.ok().flatten()
}

fn poll_one() {
    let Some(mut thing) = take_one(u64::MAX) else { return };
    let waker = waker(Waker::noop());
    if thing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        put(thing);
    }
}

struct Host;

impl Subscriber for Host {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Nothing else: tracing holds a lock.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        act_and_panic(true);
        metadata.target().starts_with("annulus")
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        act_and_tell(Some(span.metadata()), |beside| _ = beside.new_span(span));
        span::Id::from_u64(1)
    }

    fn record(&self, span: &span::Id, values: &span::Record<'_>) {
        act_and_tell(None, |beside| beside.record(span, values));
    }

    fn record_follows_from(&self, span: &span::Id, follows: &span::Id) {
        act_and_tell(None, |beside| beside.record_follows_from(span, follows));
    }

    fn event(&self, event: &Event<'_>) {
        act_and_tell(Some(event.metadata()), |beside| beside.event(event));
    }

    fn enter(&self, span: &span::Id) {
        act_and_tell(None, |beside| beside.enter(span));
    }

    fn exit(&self, span: &span::Id) {
        act_and_tell(None, |beside| beside.exit(span));
    }

    fn try_close(&self, span: span::Id) -> bool {
        act_and_tell(None, |beside| _ = beside.try_close(span));
        true
    }
}

/// A waker around another.
struct Inner(Waker);

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that acts, and then does what `inner` does.
fn waker(inner: &Waker) -> Waker {
    let data = Arc::into_raw(Arc::new(Inner(inner.clone()))).cast();
    // SAFETY: the functions of the table treat the pointer as an `Arc<Inner>` of which each waker has one
    // count; `Inner` is Send and Sync, as what is inside is.
    unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }
}

fn clone(data: *const ()) -> RawWaker {
    act();
    // SAFETY: the caller's waker has a count of its own (`waker`), and this adds the new one's.
    unsafe { Arc::increment_strong_count(data.cast::<Inner>()) };
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    // SAFETY: the count of the waker that is consumed.
    let inner = unsafe { Arc::from_raw(data.cast::<Inner>()) };
    inner.0.wake_by_ref();
    act();
}

fn wake_by_ref(data: *const ()) {
    // SAFETY: the caller's waker has a count, which outlives this call.
    unsafe { &*data.cast::<Inner>() }.0.wake_by_ref();
    act();
}

fn drop_waker(data: *const ()) {
    // SAFETY: the count of the waker that is dropped.
    drop(unsafe { Arc::from_raw(data.cast::<Inner>()) });
    act();
}

/// The same future, polled with wakers of the hostile host: now with the one before, now with a new one.
pub(crate) async fn around<F: Future>(future: F) -> F::Output {
    if SEED.load(Ordering::Relaxed) == 0 {
        return future.await;
    }
    let mut future = pin!(future);
    let mut last: Option<(Waker, Waker)> = None;
    poll_fn(|cx| {
        let known =
            last.take().filter(|(inner, _)| inner.will_wake(cx.waker()) && !random().is_multiple_of(3));
        let (inner, hostile) = known.unwrap_or_else(|| (cx.waker().clone(), waker(cx.waker())));
        let polled: Poll<F::Output> = future.as_mut().poll(&mut Context::from_waker(&hostile));
        last = Some((inner, hostile));
        polled
    })
    .await
}
