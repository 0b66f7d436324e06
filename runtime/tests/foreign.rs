//! Code of the application's that panics, or waits for what waits for it: the end comes all the same, and
//! says why.
//!
//! Seen to fail, before the runtime was made for it: each test, by waiting for ever or by an abort of the
//! process, where it says nothing else.

mod common;

use std::future::{Future, pending};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use annulus::buf::Block;
use annulus::channel;
use annulus::fs::{File, OpenOptions};
use annulus::net::TcpStream;
use annulus::{ErrorKind, Result, Running, spawn, spawn_blocking, yield_now};
use common::{Scratch, numbers, on_one_core, on_one_core_of, one_cpu, small, two_cpus};
use tracing::{Event, Metadata, Subscriber, span};

/// Where the subscriber panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    NewSpan,
    Enter,
    Exit,
    Close,
    /// An event of which a field is so, ` NAME=VALUE `.
    Event(&'static str),
}

/// Panics where it is told to, once.
struct Panicking(Mutex<Option<At>>);

impl Panicking {
    fn reached(&self, at: At) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Cores of other tests are told things as well. Those of the one that has armed it have a name.
        let ours = std::thread::current().name().is_some_and(|name| name.starts_with("armed-"));
        if *armed == Some(at) && ours {
            *armed = None;
            drop(armed);
            panic!("the subscriber, on purpose");
        }
    }
}

struct Global(&'static Panicking);

/// Whether a field of the event has these words.
struct Words(&'static str, bool);

impl tracing::field::Visit for Words {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.1 |= format!(" {field}={value:?} ").contains(self.0);
    }
}

impl Subscriber for Global {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("annulus")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.0.reached(At::NewSpan);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let armed = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(At::Event(words)) = armed else { return };
        let mut look = Words(words, false);
        event.record(&mut look);
        if look.1 {
            self.0.reached(At::Event(words));
        }
    }

    fn enter(&self, _: &span::Id) {
        self.0.reached(At::Enter);
    }

    fn exit(&self, _: &span::Id) {
        self.0.reached(At::Exit);
    }

    fn try_close(&self, _: span::Id) -> bool {
        self.0.reached(At::Close);
        true
    }
}

/// The subscriber of this process, armed; one test at a time has it.
struct Armed(&'static Panicking, #[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Armed {
    fn at(at: Option<At>) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        static SUBSCRIBER: OnceLock<&'static Panicking> = OnceLock::new();
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let subscriber = SUBSCRIBER.get_or_init(|| {
            let subscriber = Box::leak(Box::new(Panicking(Mutex::new(None))));
            common::hostile::set_subscriber(Global(subscriber));
            subscriber
        });
        *subscriber.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
        Self(subscriber, one)
    }

    /// Whether it has panicked.
    fn has_gone_off(&self) -> bool {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn cores() -> String {
    two_cpus().unwrap_or_else(one_cpu)
}

/// Runs on two cores, of which none ends by itself, and gives what `run` returns; in a thread of its own, so
/// that one that hangs fails its test and no other.
fn outcome<F: Future<Output = Result<()>> + 'static>(
    root: impl Fn() -> F + Send + Sync + 'static,
) -> Result<()> {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let ended = small()
            .name("armed")
            .cores(cores().parse().unwrap())
            .build()
            .and_then(|runtime| runtime.run(root));
        drop(tx.send(ended));
    });
    rx.recv_timeout(std::time::Duration::from_secs(60)).expect("it ends")
}

/// What a process of tests that hold each other up would not see: nothing is leaked, and the error has the
/// words.
fn assert_names(ended: Result<()>, words: &str) {
    let e = ended.expect_err("what panicked outside a task ends the runtime");
    assert_eq!(e.kind(), ErrorKind::Panicked, "{e}");
    assert!(e.to_string().contains(words), "{e}");
}

#[test]
fn a_subscriber_that_panics_over_a_cores_span_ends_all_cores() {
    for at in [At::NewSpan, At::Enter, At::Exit, At::Close] {
        let armed = Armed::at(Some(at));
        let ended = outcome(|| async {
            if annulus::cores::index() == 0 {
                // Spans of the test's own are told as well; here only those of the core count.
                return Ok(());
            }
            annulus::cores::handle().stop();
            annulus::cores::stopping().await;
            Ok(())
        });
        assert!(armed.has_gone_off(), "{at:?}");
        assert_names(ended, "the subscriber, on purpose");
    }
}

/// Polls a future once on behalf of nobody, and drops it.
async fn once<T>(future: impl Future<Output = T>) {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// The event is that of the test's own read, which is known by its length. One of a future that is dropped
/// with its result is the same, and a panic over that is contained.
///
/// Seen to fail: with a panic of the loop that is dropped, `run` returns `Ok`. With any late result on any
/// core, on a host that drops futures of its own, such a one took the panic, and these cores waited for ever.
#[test]
fn a_subscriber_that_panics_in_a_cores_loop_ends_all_cores() {
    let armed = Armed::at(Some(At::Event(" result=37 ")));
    let scratch = Scratch::new("foreign-loop");
    let path = numbers(&scratch, 10);
    let ended = outcome(move || {
        let path = path.clone();
        async move {
            let file = File::open(path, OpenOptions::new()).await?;
            once(file.read_at(Vec::with_capacity(37), 0)).await;
            pending().await
        }
    });
    assert_names(ended, "the subscriber, on purpose");
    assert!(armed.has_gone_off());
}

/// The task's panic is contained; that a subscriber panics while it is told of that is contained as well.
/// Seen to fail: the core ended.
#[test]
fn a_subscriber_that_panics_over_a_tasks_panic_stops_nothing() {
    let armed = Armed::at(Some(At::Event("a task spawned at")));
    on_one_core_of(small().name("armed"), || async {
        spawn(async { panic!("the task, on purpose") }).await.unwrap_err();
        Ok(())
    });
    assert!(armed.has_gone_off());
}

/// A payload that panics when it is dropped, with one of its kind.
struct Again(usize);

impl Drop for Again {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Again(self.0 - 1));
        }
    }
}

#[test]
fn payloads_whose_destructors_panic_end_in_their_task() {
    let _armed = Armed::at(None);
    on_one_core(|| async {
        spawn(async { std::panic::panic_any(Again(2)) }).detach();
        // One that nobody takes, and one that does not come to its end.
        let left = spawn(async { std::panic::panic_any(Again(2)) });
        spawn(async {
            let _left = Again(3);
            pending::<()>().await;
        })
        .detach();
        spawn_blocking(|| std::panic::panic_any(Again(2))).detach();
        yield_now().await;
        yield_now().await;
        drop(left);
        Ok(())
    });
}

#[test]
fn a_root_whose_payload_panics_ends_all_cores() {
    let _armed = Armed::at(None);
    let first = |index| annulus::cores::index() == index;
    let future = outcome(move || async move {
        if first(0) {
            std::panic::panic_any(Again(2));
        }
        pending().await
    });
    assert_names(future, "a root future panicked");
    let closure = outcome(move || {
        if first(0) {
            std::panic::panic_any(Again(2));
        }
        pending::<Result<()>>()
    });
    assert_names(closure, "a root future panicked");
}

/// Seen to fail by an abort, when tasks were async-task's, which drops the output.
#[test]
fn an_output_that_nobody_takes_may_panic_when_it_is_dropped() {
    let _armed = Armed::at(None);
    on_one_core(|| async {
        spawn(async { Again(1) }).detach();
        let left = spawn(async { Again(1) });
        spawn_blocking(|| Again(1)).detach();
        yield_now().await;
        yield_now().await;
        drop(left);
        Ok(())
    });
}

/// Panics whenever it is called or dropped.
#[derive(Default)]
struct Bad(AtomicUsize);

impl Wake for Bad {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the waker, on purpose");
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("the waker's destructor, on purpose");
    }
}

/// Seen to fail by an abort, when tasks were async-task's, which calls the waker of whoever waits.
#[test]
fn a_waker_that_panics_may_wait_for_a_task_or_a_closure() {
    let _armed = Armed::at(None);
    on_one_core(|| async {
        let bad = Arc::new(Bad::default());
        let waker = Waker::from(Arc::clone(&bad));
        let mut task = spawn(yield_now());
        let (begin, begun) = mpsc::channel::<()>();
        let mut closure = spawn_blocking(move || begun.recv().unwrap_err());
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Pin::new(&mut closure).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(begin);
        while bad.0.load(Ordering::Relaxed) < 2 {
            yield_now().await;
        }
        task.await.unwrap();
        closure.await.unwrap();
        std::mem::forget((waker, bad));
        Ok(())
    });
}

/// Seen to fail: the rest of the batch was lost, and 39 operations were leaked after six seconds.
#[test]
fn a_waker_that_panics_among_the_completions_of_a_batch_loses_none_of_the_others() {
    let _armed = Armed::at(None);
    let scratch = Scratch::new("foreign-batch");
    let path = numbers(&scratch, 40);
    let running = small().cores(one_cpu().parse().unwrap()).build().unwrap().start(move || {
        let path = path.clone();
        async move {
            let file = File::open(path, OpenOptions::new()).await?;
            let mut reads: Vec<_> = (0..40).map(|i| Box::pin(common::read_number(&file, i))).collect();
            let bad = Waker::from(Arc::new(Bad::default()));
            for (i, read) in reads.iter_mut().enumerate() {
                let waker = if i == 20 { &bad } else { Waker::noop() };
                assert!(read.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
            }
            std::mem::forget(bad);
            pending::<Result<()>>().await
        }
    });
    let running = running.unwrap();
    assert!(ends(running.finished_fd().try_clone_to_owned().unwrap()));
    assert_eq!(running.counters()[0].ops_leaked, 0);
    assert_names(running.wait(), "the waker, on purpose");
}

/// Waits for a runtime's end.
fn ends(finished: OwnedFd) -> bool {
    let mut ended = [rustix::event::PollFd::new(&finished, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    rustix::event::poll(&mut ended, Some(&patience)).unwrap() == 1
}

/// A runtime whose `Running` comes to its last core, which does `f` with it. True when it has ended.
fn on_own_core(f: impl AsyncFn(Running) + Send + Sync + Clone + 'static) -> bool {
    let (tx, rx) = mpsc::channel::<Running>();
    let rx = Mutex::new(Some(rx));
    let running = small()
        .name("own")
        .cores(cores().parse().unwrap())
        .build()
        .unwrap()
        .start(move || {
            let last = annulus::cores::index() + 1 == annulus::cores::count();
            let rx = last.then(|| rx.lock().unwrap().take()).flatten();
            let f = f.clone();
            async move {
                if let Some(rx) = rx {
                    let running = spawn_blocking(move || rx.recv().unwrap()).await.unwrap();
                    f(running).await;
                }
                pending().await
            }
        })
        .unwrap();
    let finished = running.finished_fd().try_clone_to_owned().unwrap();
    tx.send(running).unwrap();
    ends(finished)
}

#[test]
fn a_running_dropped_on_one_of_its_cores_cuts_it() {
    let _armed = Armed::at(None);
    assert!(on_own_core(async |running| drop(running)));
}

#[test]
fn a_wait_on_one_of_the_own_cores_panics_and_says_why() {
    let _armed = Armed::at(None);
    let (tx, rx) = mpsc::channel();
    let waits = async move |running: Running| {
        let waits = spawn(async move { running.wait() });
        drop(tx.send(waits.await.unwrap_err().to_string()));
    };
    assert!(on_own_core(waits));
    // The wait cuts the runtime, so that its task may be gone before it has told.
    if let Ok(why) = rx.recv() {
        assert!(why.contains("wait on another thread"), "{why}");
    }
}

/// Seen to fail: the closure waited for itself, and told so after five seconds.
#[test]
fn a_closure_may_wait_for_the_end_of_its_runtime() {
    let armed = Armed::at(Some(At::Event("blocking closures still run")));
    let (tx, rx) = mpsc::channel();
    let waits = async move |running: Running| {
        let tx = tx.clone();
        running.stop();
        running.cut();
        spawn_blocking(move || drop(tx.send(running.wait()))).detach();
    };
    assert!(on_own_core(waits));
    rx.recv().unwrap().unwrap();
    assert!(!armed.has_gone_off());
}

#[test]
fn what_would_stop_a_core_panics_there() {
    let _armed = Armed::at(None);
    assert!(on_own_core(async |running: Running| {
        let running = Arc::new(running);
        let looked = Arc::clone(&running);
        let looks = spawn(async move { looked.stalls(std::time::Duration::from_secs(1)).len() });
        assert!(looks.await.unwrap_err().to_string().contains("no core's"));
        let asks = running.handle();
        let asks = spawn(async move { asks.submit_to_blocking(0, async || ()).is_ok() });
        assert!(asks.await.unwrap_err().to_string().contains("do not block"));
    }));
}

/// The root closure is dropped on a core's thread after the core's end. Seen to fail: with the panics of
/// ended threads dropped by `wait`.
#[test]
fn a_root_closure_that_panics_when_it_is_dropped_is_named() {
    struct Holds(AtomicBool);
    impl Drop for Holds {
        fn drop(&mut self) {
            assert!(!self.0.load(Ordering::Relaxed), "the closure's destructor, on purpose");
        }
    }
    let _armed = Armed::at(None);
    let holds = Holds(AtomicBool::new(true));
    let ended = outcome(move || {
        let _holds = &holds;
        async { Ok(()) }
    });
    assert_names(ended, "the closure's destructor, on purpose");
}

/// Something waits with a waker that panics when it is called and when it is dropped. Polls it once.
fn waits_badly(future: Pin<&mut impl Future>) {
    let bad = Waker::from(Arc::new(Bad::default()));
    assert!(future.poll(&mut Context::from_waker(&bad)).is_pending());
    // The clone that waits is the last.
}

/// A destructor that wakes, or drops a waker, may run while its thread panics.
///
/// Seen to fail by an abort: with a waker that the receiver registers as it is, with the wake of a block's
/// destructor let out, and with the waker of an operation, that of a wait, and that of a watched future,
/// dropped as it is.
#[test]
fn a_waker_that_panics_may_be_woken_or_dropped_by_a_task_that_panics() {
    let _armed = Armed::at(None);
    let scratch = Scratch::new("foreign-unwinding");
    let path = numbers(&scratch, 10);
    on_one_core(move || {
        let path = path.clone();
        async move {
            let (sender, mut receiver) = channel::bounded::<u32>(1);
            let mut message = Box::pin(async move { receiver.recv().await });
            waits_badly(message.as_mut());
            let last = Block::take().unwrap();
            let others: Vec<_> = std::iter::from_fn(Block::take).collect();
            let mut block = Box::pin(Block::get());
            waits_badly(block.as_mut());
            let file = File::open(path, OpenOptions::new()).await?;
            spawn(async move {
                let mut read = pin!(file.read_at(Vec::with_capacity(4), 0));
                waits_badly(read.as_mut());
                let mut waits = pin!(Block::get());
                waits_badly(waits.as_mut());
                let mut watched = pin!(annulus::waits::watched(pending::<()>()));
                waits_badly(watched.as_mut());
                let _woken = (sender, last);
                panic!("the task, on purpose");
            })
            .await
            .unwrap_err();
            assert_eq!(message.await, None, "its sender has gone");
            block.await;
            drop(others);
            Ok(())
        }
    });
}

/// Seen to fail: with a waker that is registered as it is, the next wait panics.
#[test]
fn a_waker_that_panics_when_it_is_dropped_is_not_the_last_of_a_channel() {
    let _armed = Armed::at(None);
    on_one_core(|| async {
        let (sender, mut receiver) = channel::bounded::<u32>(1);
        let mut message = Box::pin(async move { receiver.recv().await });
        waits_badly(message.as_mut());
        let message = spawn(message);
        yield_now().await;
        yield_now().await;
        sender.send(7).await.unwrap();
        assert_eq!(message.await.unwrap(), Some(7));
        Ok(())
    });
}

/// Seen to fail: with the waker dropped as it is, its panic comes out before the receive is given up.
#[test]
fn a_connection_whose_last_waker_panics_is_closed() {
    let _armed = Armed::at(None);
    on_one_core(|| async {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
        let mut peer = listener.accept().unwrap().0;
        {
            let mut receives = pin!(stream.recv());
            waits_badly(receives.as_mut());
        }
        yield_now().await;
        spawn(async move { drop(stream) }).await.unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let end = spawn_blocking(move || std::io::Read::read(&mut peer, &mut [0])).await.unwrap();
        assert_eq!(end.unwrap(), 0, "the end");
        Ok(())
    });
}
