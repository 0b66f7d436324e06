//! Every multishot operation, given up by the socket that owns it at every stage of its life: no descriptor
//! is left open, no buffer is lost, and late answers reach nobody.
//!
//! Seen to fail: with late connections forgotten (their clients wait for ever), with late buffers not given
//! back, with unread chunks left in their buffers, with no cancel sent, with the owner gone without the
//! kernel being told (an accept that comes late is reported), with late answers shown as the owner's, and
//! with a lease leaked (memory is kept at the end).

use std::any::Any;
use std::cell::RefCell;
use std::future::pending;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Mutex;

use super::*;
use crate::core::shared::CoreShared;
use crate::net::op::{accept, recv, recv_fragments, recv_msg};
use crate::net::{TcpListener, TcpStream, UdpSocket as OurUdpSocket};
use crate::op::Multishot;
use crate::task::yield_now;
use crate::testing::{let_come, link_of};

/// The stage at which an operation loses its owner, with everything that came and was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The kernel was asked for nothing.
    NotAsked,
    /// The SQE is in the queue, and the kernel has not taken it.
    Pushed,
    /// The kernel has it, and nothing has come.
    Armed,
    /// An answer came, and more may.
    Came,
    /// An answer is in the completion queue, and the owner does not get it.
    Late,
    /// So many answers came that the owner itself has asked for the end.
    HeldBack,
    /// An answer is in the completion queue, and the last CQE behind it.
    LateAndLast,
    /// The last CQE was handled.
    Over,
}

const LIVES: [Life; 8] = [
    Life::NotAsked,
    Life::Pushed,
    Life::Armed,
    Life::Came,
    Life::Late,
    Life::HeldBack,
    Life::LateAndLast,
    Life::Over,
];

/// A socket that owns a multishot operation, and the test's other end.
trait Owner: Sized + 'static {
    const OPERATION: &'static str;
    /// Whether more answers come after the first.
    const MANY: bool = true;
    /// How many answers that nobody takes make it ask for the end.
    const HELD_BACK: usize;
    /// By how much each answer raises what [`heard`](Self::heard) counts.
    const EACH: u64;

    fn new() -> Self;
    fn fd(&self) -> BorrowedFd<'_>;
    /// Asks the kernel, on behalf of a future that is dropped at once.
    fn ask(&self);
    /// Makes the kernel answer once.
    fn answer(&mut self);
    /// Makes it post its last CQE.
    fn end(&mut self);
    /// The core's count of the answers that owners have got.
    fn heard() -> u64;
    /// The owner alone, and a check whether the other end sees that it is gone.
    fn split(self) -> (Box<dyn Any>, Box<dyn FnMut() -> bool + Send>);
}

fn poll_once<T>(future: impl Future<Output = T>) {
    let is_pending = pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(is_pending, "nothing is there yet");
}

/// Closed or reset: in both cases nobody holds the other end any more.
fn is_left_alone(peer: &mut StdStream) -> bool {
    peer.set_nonblocking(true).unwrap();
    loop {
        match peer.read(&mut [0; 64]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(_) | Ok(0) => return true,
            Ok(_) => {}
        }
    }
}

struct Listening<const MANY: bool> {
    listener: TcpListener,
    clients: Vec<StdStream>,
}

impl<const MANY: bool> Owner for Listening<MANY> {
    const OPERATION: &'static str = accept::NAME;
    const MANY: bool = MANY;
    const HELD_BACK: usize = 64;
    const EACH: u64 = 1;

    fn new() -> Self {
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // Connections of a socket that others may share are accepted one by one.
        let listener = if MANY {
            TcpListener::bind(any)
        } else {
            TcpListener::from_owned_fd(StdListener::bind(any).unwrap().into())
        };
        Self { listener: listener.unwrap(), clients: Vec::new() }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    fn ask(&self) {
        poll_once(self.listener.accept());
    }

    fn answer(&mut self) {
        self.clients.push(StdStream::connect(self.listener.local_addr()).unwrap());
    }

    fn end(&mut self) {
        rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Read).unwrap();
    }

    fn heard() -> u64 {
        Core::with(|core| core.shared.counters.accepts.get())
    }

    fn split(self) -> (Box<dyn Any>, Box<dyn FnMut() -> bool + Send>) {
        let mut clients = self.clients;
        (Box::new(self.listener), Box::new(move || clients.iter_mut().all(is_left_alone)))
    }
}

struct Receiving {
    stream: TcpStream,
    peer: StdStream,
}

impl Owner for Receiving {
    const OPERATION: &'static str = recv::RecvMulti::<Socket>::NAME;
    const HELD_BACK: usize = 2;
    const EACH: u64 = 100;

    fn new() -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        Self { stream: TcpStream::from_std(listener.accept().unwrap().0).unwrap(), peer }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn ask(&self) {
        poll_once(self.stream.recv());
    }

    fn answer(&mut self) {
        self.peer.write_all(&[5; Self::EACH as usize]).unwrap();
    }

    fn end(&mut self) {
        self.peer.shutdown(Shutdown::Write).unwrap();
    }

    fn heard() -> u64 {
        Core::with(|core| core.shared.counters.recv_bytes.get())
    }

    fn split(self) -> (Box<dyn Any>, Box<dyn FnMut() -> bool + Send>) {
        let mut peer = self.peer;
        (Box::new(self.stream), Box::new(move || is_left_alone(&mut peer)))
    }
}

struct Datagrams {
    socket: OurUdpSocket,
    peer: Option<UdpSocket>,
}

impl Owner for Datagrams {
    const OPERATION: &'static str = recv_msg::RecvMsgMulti::<Socket>::NAME;
    const HELD_BACK: usize = 8;
    const EACH: u64 = 9;

    fn new() -> Self {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = OurUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        Self { socket, peer: Some(peer) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn ask(&self) {
        poll_once(self.socket.recv());
    }

    fn answer(&mut self) {
        let peer = self.peer.as_ref().expect("until the end");
        peer.send_to(&[7; Self::EACH as usize], self.socket.local_addr().unwrap()).unwrap();
    }

    /// Nobody has the other port any more: the receive ends with ECONNREFUSED (udp(7)).
    fn end(&mut self) {
        drop(self.peer.take());
        rustix::net::send(self.fd(), b"?", rustix::net::SendFlags::empty()).unwrap();
    }

    fn heard() -> u64 {
        Core::with(|core| core.shared.counters.recv_bytes.get())
    }

    fn split(self) -> (Box<dyn Any>, Box<dyn FnMut() -> bool + Send>) {
        (Box::new(self.socket), Box::new(|| true))
    }
}

/// An owner whose operation has come as far as `life`.
async fn brought_to<T: Owner>(life: Life) -> T {
    let (operations, heard) = (alive(), T::heard());
    let has_heard = |answers: usize| T::heard() == heard + answers as u64 * T::EACH;
    let mut owner = T::new();
    if life == Life::NotAsked {
        return owner;
    }
    owner.ask();
    assert_eq!(alive(), operations + 1, "{}: one operation", T::OPERATION);
    if life == Life::Pushed {
        return owner;
    }
    let_come(0);
    match life {
        Life::NotAsked | Life::Pushed | Life::Armed => {}
        Life::Came => {
            owner.answer();
            until("an answer", || has_heard(1)).await;
            assert_eq!(alive(), operations + usize::from(T::MANY), "{}", T::OPERATION);
        }
        Life::Late => {
            owner.answer();
            let_come(1);
        }
        Life::HeldBack => {
            for n in 1..=T::HELD_BACK {
                owner.answer();
                let_come(n);
            }
            until("all answers", || has_heard(T::HELD_BACK)).await;
            // It asks at the end of the next tick.
            yield_now().await;
        }
        Life::LateAndLast => {
            owner.answer();
            let_come(1);
            owner.end();
            let_come(2);
        }
        Life::Over => {
            owner.answer();
            until("an answer", || has_heard(1)).await;
            owner.end();
            until("the last word", || alive() == operations).await;
        }
    }
    owner
}

async fn given_up_at_every_stage<T: Owner>(lives: &[Life]) {
    let before = alive();
    for life in lives.iter().copied() {
        let what = |what: &str| format!("{what} of {} given up when {life:?}", T::OPERATION);
        let owner: T = brought_to(life).await;
        let (link, heard) = (link_of(owner.fd()), T::heard());
        let (owner, mut is_left_alone) = owner.split();
        drop(owner);
        until(&what("the end"), || alive() == before).await;
        assert_eq!(T::heard(), heard, "{}", what("an answer after the end"));
        until(&what("the close"), || !is_open(&link)).await;
        until(&what("the other end"), &mut *is_left_alone).await;
        let out = || Core::with(|core| core.shared.counters.recv_buffers_out.get());
        until(&what("the buffers"), || out() == 0).await;
    }
}

/// Whether a listener accepts many at once. It does where the process may have descriptors enough for a whole
/// backlog.
fn may_accept_many() -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let enough = || getrlimit(Resource::Nofile).current.is_none_or(|now| now >= 17_000);
    if !enough() {
        // Root may have more than the limit that it started with.
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: Some(17_000), maximum: limit.maximum.map(|most| most.max(17_000)) };
        if setrlimit(Resource::Nofile, raised).is_err() {
            println!("skipped: a multishot accept needs 17,000 descriptors, and RLIMIT_NOFILE is {limit:?}");
        }
    }
    enough()
}

#[test]
fn multishots_are_given_up_at_every_stage() {
    let many = may_accept_many();
    on_a_core(small(256), async move || {
        if many {
            given_up_at_every_stage::<Listening<true>>(&LIVES).await;
        }
        // It ends with its first answer.
        let lives = [Life::NotAsked, Life::Pushed, Life::Armed, Life::Came, Life::Late];
        given_up_at_every_stage::<Listening<false>>(&lives).await;
        given_up_at_every_stage::<Receiving>(&LIVES).await;
        given_up_at_every_stage::<Datagrams>(&LIVES).await;
    });
}

/// Where the kernel can do it.
#[test]
fn receives_in_parts_are_given_up_at_every_stage() {
    assert_eq!(Receiving::OPERATION, recv_fragments::RecvFragments::<Socket>::NAME);
    on_a_core(small(256).incremental_buffers(true), async || {
        // Bytes that follow on the last chunk are one chunk with it, and one chunk is not held back.
        let lives: Vec<_> = LIVES.into_iter().filter(|life| *life != Life::HeldBack).collect();
        given_up_at_every_stage::<Receiving>(&lives).await;
    });
    on_a_core(small(256).bundles(true), async || given_up_at_every_stage::<Receiving>(&LIVES).await);
}

thread_local! {
    /// Dropped when the core's thread ends, after the core.
    static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// What has the owner when the runtime ends.
#[derive(Debug, Clone, Copy)]
enum Keeper {
    /// A task, which the end of the core drops.
    Task,
    /// The thread. The operation is cancelled while its owner exists, and the owner finds no core when it is
    /// dropped.
    Thread,
}

fn left_to_the_end<T: Owner>() {
    for life in LIVES {
        for keeper in [Keeper::Task, Keeper::Thread] {
            let what = format!("{} left to the end when {life:?}, by its {keeper:?}", T::OPERATION);
            type Left = (PathBuf, Box<dyn FnMut() -> bool + Send>, Arc<CoreShared>);
            let left = Arc::new(Mutex::new(None::<Left>));
            let leaves = Arc::clone(&left);
            on_a_core(small(256), async move || {
                let owner: T = brought_to(life).await;
                let link = link_of(owner.fd());
                let (owner, is_left_alone) = owner.split();
                let shared = Core::with(|core| Arc::clone(&core.shared));
                *leaves.lock().unwrap() = Some((link, is_left_alone, shared));
                match keeper {
                    Keeper::Thread => KEPT.set(Some(owner)),
                    Keeper::Task => crate::spawn(async move {
                        let _owner = owner;
                        pending::<()>().await;
                    })
                    .detach(),
                }
            });
            let (link, mut is_left_alone, shared) = left.lock().unwrap().take().expect("left there");
            assert!(!is_open(&link), "{what}: open still");
            assert!(is_left_alone(), "{what}: the other end hears nothing");
            assert_eq!(shared.counters.ops_leaked.get(), 0, "{what}");
            // The memory of the buffers keeps a reference to it.
            assert_eq!(Arc::strong_count(&shared), 1, "{what}: memory is kept");
        }
    }
}

#[test]
fn multishots_are_left_to_the_end_of_the_runtime() {
    if may_accept_many() {
        left_to_the_end::<Listening<true>>();
    }
    left_to_the_end::<Receiving>();
    left_to_the_end::<Datagrams>();
}
