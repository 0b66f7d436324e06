//! Operations that a crate outside adds and that answer many times.

mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annulus::operation::io_uring::{cqueue, opcode, squeue, types};
use annulus::operation::{Multishot, Stream, stream};
use annulus::time::timeout;
use common::{on_one_core, on_one_core_of, small};
use rustix::event::{EventfdFlags, eventfd};

/// What became of an operation and its answers.
#[derive(Default)]
struct Fate {
    items: Cell<u32>,
    dropped: Cell<bool>,
}

/// Connections, as many as come; a few at most wait.
struct Accepts {
    listener: Rc<OwnedFd>,
    fate: Rc<Fate>,
}

impl Drop for Accepts {
    fn drop(&mut self) {
        self.fate.dropped.set(true);
    }
}

// SAFETY: the entry names a descriptor that the `Rc` keeps open, and points to nothing; it is a multishot
// accept.
unsafe impl Multishot for Accepts {
    const NAME: &'static str = "accepts of one's own";
    const MOST_WAITING: usize = 4;
    type Item = io::Result<(OwnedFd, bool)>;

    fn entry(&mut self) -> squeue::Entry {
        opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build()
    }

    fn item(&self, result: io::Result<u32>, flags: u32) -> Self::Item {
        self.fate.items.set(self.fate.items.get() + 1);
        // SAFETY: the kernel has just made it, and nobody else has it.
        result.map(|fd| (unsafe { OwnedFd::from_raw_fd(fd as i32) }, cqueue::more(flags)))
    }
}

struct Server {
    listener: Rc<OwnedFd>,
    address: SocketAddr,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener: Rc::new(listener.into()), address }
    }

    fn accepts(&self) -> (Stream<Accepts>, Rc<Fate>) {
        let fate = Rc::<Fate>::default();
        (stream(Accepts { listener: Rc::clone(&self.listener), fate: Rc::clone(&fate) }), fate)
    }

    fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }
}

/// Polls it once, and finds nothing.
async fn ask(accepts: &mut Stream<Accepts>) {
    poll_fn(|cx| {
        assert!(accepts.poll_next(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        annulus::yield_now().await;
    }
}

/// Waits until the kernel has nothing more of it, and sees that the other end has nobody.
async fn is_given_up(fate: &Fate, clients: Vec<TcpStream>) {
    until(|| fate.dropped.get()).await;
    for mut client in clients {
        let read = annulus::spawn_blocking(move || client.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

fn errno<T>(last: Option<io::Result<T>>) -> Option<i32> {
    last.expect("one more").err().expect("an error").raw_os_error()
}

/// Seen to fail: with answers given last first.
#[test]
fn answers_come_in_order_and_no_dropped_wait_loses_one() {
    on_one_core(|| async {
        let server = Server::new();
        let (mut accepts, fate) = server.accepts();
        assert!(timeout(Duration::from_millis(2), accepts.next()).await.is_err());
        let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
        let mut ports = Vec::new();
        while ports.len() < clients.len() {
            // Some of these waits find an answer, and others are dropped before one.
            if let Ok(next) = timeout(Duration::ZERO, accepts.next()).await {
                let (connection, more) = next.expect("it goes on").unwrap();
                assert!(more);
                ports.push(TcpStream::from(connection).peer_addr().unwrap());
            }
        }
        assert_eq!(ports, clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
        accepts.cancel();
        accepts.cancel();
        assert_eq!(errno(accepts.next().await), Some(libc::ECANCELED));
        for _ in 0..2 {
            assert!(accepts.next().await.is_none());
        }
        assert_eq!((fate.items.get(), fate.dropped.get()), (5, false));
        drop(accepts);
        assert!(fate.dropped.get());
        Ok(())
    });
}

/// Seen to fail: with answers that wait forgotten by the destructor (the clients wait for ever), with late
/// ones forgotten, and without a cancel (the operation stays).
#[test]
fn a_stream_is_dropped_at_every_stage_and_closes_what_came() {
    on_one_core(|| async {
        let server = Server::new();
        // It has asked for nothing.
        let (accepts, fate) = server.accepts();
        drop(accepts);
        assert_eq!((fate.items.get(), fate.dropped.get()), (0, true));
        let (mut accepts, _) = server.accepts();
        accepts.cancel();
        assert!(accepts.next().await.is_none());

        // Its entry is on its way.
        let (mut accepts, fate) = server.accepts();
        ask(&mut accepts).await;
        drop(accepts);
        is_given_up(&fate, Vec::new()).await;
        assert_eq!(fate.items.get(), 1, "the answer of the cancel");

        // Answers have come, and more are on their way.
        for (wait, late) in [(0, 0), (0, 3), (2, 0), (2, 2)] {
            let (mut accepts, fate) = server.accepts();
            ask(&mut accepts).await;
            annulus::yield_now().await;
            let mut clients = vec![server.client()];
            drop(accepts.next().await.expect("one").unwrap());
            clients.extend((0..wait).map(|_| server.client()));
            if wait > 0 {
                // All of them come in one tick.
                drop(accepts.next().await.expect("one of them").unwrap());
            }
            clients.extend((0..late).map(|_| server.client()));
            drop(accepts);
            until(|| fate.dropped.get()).await;
            // What the accept did not take is still the listener's.
            let taken = fate.items.get() as usize - 1;
            assert!((1 + wait..=clients.len()).contains(&taken), "{taken} of {}", clients.len());
            let left = clients.split_off(taken);
            is_given_up(&fate, clients).await;
            let (mut accepts, _) = server.accepts();
            for client in left {
                let (connection, _) = accepts.next().await.expect("one that is left").unwrap();
                let local = client.local_addr().unwrap();
                assert_eq!(TcpStream::from(connection).peer_addr().unwrap(), local);
            }
        }
        Ok(())
    });
}

/// The kernel's last answer finds the stream alive, and the stream finds no core when it is dropped.
///
/// Seen to fail: with a stream whose destructor needs a core.
#[test]
fn a_stream_is_left_to_the_end_of_its_core() {
    thread_local! {
        static KEPT: RefCell<Vec<Stream<Accepts>>> = const { RefCell::new(Vec::new()) };
    }
    /// Tells another thread.
    struct Tells(Arc<AtomicU32>, Rc<Fate>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(self.1.items.get(), Ordering::Release);
        }
    }
    thread_local! {
        static TELLS: RefCell<Vec<Tells>> = const { RefCell::new(Vec::new()) };
    }
    let told = [0; 2].map(|_| Arc::new(AtomicU32::new(0)));
    let tell = told.clone();
    let clients = on_one_core(|| async move {
        let server = Server::new();
        let (mut kept, its_fate) = server.accepts();
        let (mut of_a_task, fate) = server.accepts();
        let clients = [server.client(), server.client()];
        for accepts in [&mut kept, &mut of_a_task] {
            ask(accepts).await;
        }
        let task = annulus::spawn(async move {
            let _accepts = of_a_task;
            std::future::pending::<()>().await;
        });
        task.detach();
        // The later one is destroyed first.
        let [first, second] = tell;
        TELLS.with_borrow_mut(|tells| tells.extend([Tells(first, its_fate), Tells(second, fate)]));
        KEPT.with_borrow_mut(|all| all.push(kept));
        Ok(clients)
    });
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "somebody has it still");
    }
    // The answer of its cancel, and perhaps connections.
    assert!(told.iter().all(|told| told.load(Ordering::Acquire) >= 1), "{told:?}");
}

/// A waker that is not the runtime's.
struct Foreign {
    woken: AtomicU32,
    panics: bool,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Release);
        assert!(!self.panics, "on purpose");
    }
}

/// Seen to fail: with the panic of a waker not contained, and with the waker of the first poll kept.
#[test]
fn a_stream_wakes_who_polled_it_last_with_any_waker() {
    on_one_core(|| async {
        let server = Server::new();
        let (mut accepts, _) = server.accepts();
        let [first, last] =
            [false, true].map(|panics| Arc::new(Foreign { woken: AtomicU32::new(0), panics }));
        for foreign in [&first, &first, &last] {
            let waker = Waker::from(Arc::clone(foreign));
            assert!(accepts.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!([&first, &last].map(Arc::strong_count), [1, 2]);
        let _client = server.client();
        until(|| last.woken.load(Ordering::Acquire) == 1).await;
        assert_eq!((first.woken.load(Ordering::Acquire), Arc::strong_count(&last)), (0, 1));
        assert!(accepts.next().await.expect("a connection").is_ok());
        // Another task of this core goes on with it.
        let _other = server.client();
        let accepted = annulus::spawn(async move { accepts.next().await });
        assert!(accepted.await.unwrap().expect("a connection").is_ok());
        Ok(())
    });
}

/// Seen to fail: with no bound (the last answer never comes).
#[test]
fn a_stream_that_nobody_polls_ends_and_gives_what_came() {
    on_one_core(|| async {
        let server = Server::new();
        let (mut accepts, fate) = server.accepts();
        ask(&mut accepts).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(server.client());
            // The core looks at what came before a timer fires.
            annulus::time::sleep(Duration::from_micros(100)).await;
        }
        // With the fifth that waited its cancel was on its way, and the listener keeps the others.
        let mut taken = 0;
        let last = loop {
            match accepts.next().await.expect("its last answer") {
                Ok(_) => taken += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(last.raw_os_error(), Some(libc::ECANCELED));
        assert!(taken > Accepts::MOST_WAITING as u32 && taken < 20, "{taken}");
        assert!(accepts.next().await.is_none());
        assert_eq!(fate.items.get(), taken + 1);
        let (mut accepts, _) = server.accepts();
        for _ in taken..clients.len() as u32 {
            assert!(accepts.next().await.expect("those that were left").is_ok());
        }
        Ok(())
    });
}

/// Ticks, as `IORING_TIMEOUT_MULTISHOT` has them (Linux 6.4).
struct Ticks(Box<types::Timespec>, Rc<Cell<u32>>);

// SAFETY: the entry points to the box, which only `self` has and nobody writes; it is a multishot timeout.
unsafe impl Multishot for Ticks {
    const NAME: &'static str = "ticks";
    type Item = io::Result<()>;

    fn entry(&mut self) -> squeue::Entry {
        opcode::Timeout::new(&raw const *self.0).flags(types::TimeoutFlags::MULTISHOT).count(0).build()
    }

    fn item(&self, result: io::Result<u32>, _: u32) -> Self::Item {
        self.1.set(self.1.get() + 1);
        match result {
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Seen to fail: with late answers forgotten, and without a cancel.
#[test]
fn ticks_of_the_kernel_come_until_they_are_given_up() {
    on_one_core(|| async {
        let ticks = |count: &Rc<Cell<u32>>| {
            stream(Ticks(Box::new(types::Timespec::new().nsec(1_000_000)), Rc::clone(count)))
        };
        let count = Rc::<Cell<u32>>::default();
        let mut every = ticks(&count);
        for _ in 0..3 {
            match every.next().await.expect("a tick") {
                Ok(()) => {}
                // Linux before 6.4 does not know the flag.
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
                    assert!(every.next().await.is_none());
                    return Ok(());
                }
            }
        }
        drop(every);
        until(|| Rc::strong_count(&count) == 1).await;
        assert!(count.get() >= 4, "three, and the answer of the cancel");
        Ok(())
    });
}

/// A poll of an eventfd, that uses its core in both its methods, and panics in the one that it is told to.
struct Meddles {
    event: Rc<OwnedFd>,
    called: Rc<Cell<u32>>,
    panics_in: Rc<Cell<Option<u32>>>,
    multi: bool,
}

impl Meddles {
    fn act(&self, method: u32) {
        annulus::spawn(annulus::yield_now()).detach();
        let mut waits = pin!(annulus::time::sleep(Duration::from_secs(1)));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        self.called.set(self.called.get() + 1);
        assert!(self.panics_in.get() != Some(method), "on purpose");
    }
}

// SAFETY: the entry names a descriptor that the `Rc` keeps open and points to nothing; it is a poll.
unsafe impl Multishot for Meddles {
    const NAME: &'static str = "one that meddles";
    type Item = io::Result<u32>;

    fn entry(&mut self) -> squeue::Entry {
        self.act(0);
        opcode::PollAdd::new(types::Fd(self.event.as_raw_fd()), libc::POLLIN as u32).multi(self.multi).build()
    }

    fn item(&self, result: io::Result<u32>, _: u32) -> Self::Item {
        self.act(1);
        result
    }
}

struct Meddler {
    event: Rc<OwnedFd>,
    called: Rc<Cell<u32>>,
    panics_in: Rc<Cell<Option<u32>>>,
}

impl Meddler {
    fn new() -> Self {
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        Self { event: Rc::new(event), called: Rc::default(), panics_in: Rc::default() }
    }

    fn polls(&self, multi: bool) -> Stream<Meddles> {
        let (called, panics_in) = (Rc::clone(&self.called), Rc::clone(&self.panics_in));
        stream(Meddles { event: Rc::clone(&self.event), called, panics_in, multi })
    }

    fn signal(&self) {
        rustix::io::write(&*self.event, &1_u64.to_ne_bytes()).unwrap();
    }
}

/// Seen to fail: with the panic of an answer that nobody takes not contained, it ends the core.
#[test]
fn the_methods_of_a_multishot_may_use_their_core_and_panic() {
    on_one_core(|| async {
        let meddler = Meddler::new();
        // An entry that is not multishot has one answer.
        meddler.signal();
        let mut once = meddler.polls(false);
        assert!(once.next().await.is_some_and(|events| events.is_ok()));
        assert!(once.next().await.is_none());
        drop(once);

        // The panic of an entry is that of who polls, and there is nothing to wait for.
        meddler.panics_in.set(Some(0));
        let mut polls = meddler.polls(true);
        let task = annulus::spawn(async move {
            let panicked = annulus::spawn(async move { polls.next().await.is_some() }).await;
            panicked.unwrap_err().to_string()
        });
        assert!(task.await.unwrap().contains("on purpose"));
        assert_eq!(Rc::strong_count(&meddler.event), 1, "it was dropped, and the kernel has nothing of it");

        // That of an answer too, and the stream goes on.
        meddler.panics_in.set(Some(1));
        let mut polls = meddler.polls(true);
        let caught = poll_fn(|cx| {
            let polled = std::panic::AssertUnwindSafe(|| polls.poll_next(cx).map(|_| ()));
            match std::panic::catch_unwind(polled) {
                Ok(Poll::Pending) => Poll::Pending,
                other => Poll::Ready(other.is_err()),
            }
        });
        assert!(caught.await);
        meddler.panics_in.set(None);
        meddler.signal();
        assert!(polls.next().await.is_some_and(|events| events.is_ok()));

        // Nobody takes its last answer.
        meddler.panics_in.set(Some(1));
        drop(polls);
        until(|| Rc::strong_count(&meddler.event) == 1).await;
        Ok(())
    });
}

/// While the core is blocked more connections come than its completion queue has room for. The kernel ends
/// the accept, and nothing is lost.
///
/// Seen to fail: with a last answer that is a success forgotten.
#[test]
fn a_completion_queue_that_is_full_ends_a_stream_and_loses_nothing() {
    struct All(Accepts);
    // SAFETY: as what is inside.
    unsafe impl Multishot for All {
        const NAME: &'static str = "accepts without a bound";
        type Item = io::Result<(OwnedFd, bool)>;

        fn entry(&mut self) -> squeue::Entry {
            self.0.entry()
        }

        fn item(&self, result: io::Result<u32>, flags: u32) -> Self::Item {
            self.0.item(result, flags)
        }
    }
    let clients = common::connections(100);
    on_one_core_of(small().ring_entries(8), move || async move {
        let server = Server::new();
        let all = || stream(All(Accepts { listener: Rc::clone(&server.listener), fate: Rc::default() }));
        let clients: Vec<_> = (0..clients).map(|_| server.client()).collect();
        let (mut accepts, mut ports, mut ended) = (all(), Vec::new(), 0);
        while ports.len() < clients.len() {
            let Some(next) = accepts.next().await else {
                ended += 1;
                accepts = all();
                continue;
            };
            ports.push(TcpStream::from(next.unwrap().0).peer_addr().unwrap());
        }
        assert_eq!(ports, clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
        println!("{ended} streams ended");
        Ok(())
    });
}

#[test]
fn a_sealed_ring_refuses_a_stream() {
    on_one_core_of(small().seal_rings(true), || async {
        let mut ticks = stream(Ticks(Box::default(), Rc::default()));
        assert_eq!(errno(ticks.next().await), Some(libc::EACCES));
        assert!(ticks.next().await.is_none());
        Ok(())
    });
}
