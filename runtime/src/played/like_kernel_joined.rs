//! As [`like_kernel`](super::like_kernel), for connections that the core makes, accepts and joins, and for
//! files.

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

use super::Simulation;
use super::connects::Behaviour;
use super::file_tasks::Place;
use super::launch::on_a_core_of;
use super::network::{Ending, Peer};
use super::program::{Bytes, lacks_descriptors};
use super::random::{ANY, byte};
use super::trace::Tracing;
use crate::fs::{Dir, File, OpenOptions};
use crate::launch::played::Shape;
use crate::net::{TcpListener, TcpStream};
use crate::testing::{on_a_core, small};
use crate::transfer::{Road, relay};

/// Bytes that each peer sends.
const SENT: usize = 70_000;
/// Clients that connect to a listener of a program.
const CLIENTS: usize = 3;

/// What a program has seen, in words.
type Seen = Vec<String>;

/// What there is around a core: a server that answers, a server that refuses, and clients that come to a
/// listener.
struct Around {
    answers: SocketAddr,
    refuses: SocketAddr,
    come: Box<dyn Fn(&TcpListener)>,
}

/// A program, how many connections it makes to the server that answers, and whether the first of these is
/// reset when its peer has had a byte.
struct Scene {
    name: &'static str,
    connections: usize,
    resets: bool,
    program: fn(Around) -> Pin<Box<dyn Future<Output = Seen>>>,
}

const SCENES: [Scene; 5] = [
    Scene { name: "connects", connections: 1, resets: false, program: |a| Box::pin(connects(a)) },
    Scene { name: "accepts", connections: 0, resets: false, program: |a| Box::pin(accepts(a)) },
    Scene {
        name: "joins, inline",
        connections: 2,
        resets: false,
        program: |a| Box::pin(joins(a, Road::Inline)),
    },
    Scene { name: "joins, ring", connections: 2, resets: false, program: |a| Box::pin(joins(a, Road::Ring)) },
    Scene { name: "one is reset", connections: 2, resets: true, program: |a| Box::pin(one_is_reset(a)) },
];

/// Connects, also when a play lets it lack a descriptor at first.
async fn connected(to: SocketAddr) -> crate::Result<TcpStream> {
    loop {
        match TcpStream::connect(to).await {
            Err(e) if lacks_descriptors(&e) => {}
            other => return other,
        }
    }
}

fn errno(e: &crate::Error) -> Option<i32> {
    e.io_error().and_then(std::io::Error::raw_os_error)
}

async fn read(stream: &TcpStream) -> String {
    let mut bytes = 0;
    loop {
        match stream.recv().await {
            Ok(Some(chunk)) => bytes += chunk.len(),
            Ok(None) => return format!("{bytes} bytes"),
            Err(e) => return format!("{bytes} bytes, {:?}", errno(&e)),
        }
    }
}

async fn connects(around: Around) -> Seen {
    let refused = connected(around.refuses).await.expect_err("it refuses");
    let stream = connected(around.answers).await.expect("it answers");
    vec![format!("{:?}", errno(&refused)), read(&stream).await]
}

async fn accepts(around: Around) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address of ours");
    (around.come)(&listener);
    let mut seen = Seen::new();
    while seen.len() < CLIENTS {
        // A play tells errors of accepting that pass.
        let Ok(stream) = listener.accept().await else { continue };
        seen.push(read(&stream).await);
    }
    seen
}

async fn joins(around: Around, road: Road) -> Seen {
    let (a, b) = (connected(around.answers).await, connected(around.answers).await);
    let ended = relay(a.expect("it answers"), b.expect("it answers"), road).await;
    vec![format!("{} and {} bytes, {:?}, {:?}", ended.a_to_b, ended.b_to_a, ended.cause, ended.result)]
}

async fn one_is_reset(around: Around) -> Seen {
    let (a, b) = (connected(around.answers).await, connected(around.answers).await);
    let ended = relay(a.expect("it answers"), b.expect("it answers"), Road::Ring).await;
    vec![format!("{:?}, well: {}", ended.cause, ended.result.is_ok())]
}

/// The other end of a connection, with the kernel. What it is told when it is reset is of no account.
fn peer(mut stream: StdStream, resets: bool) {
    let _ = stream.write_all(&[byte(ANY, 0); SENT]);
    if resets {
        let _ = stream.read(&mut [0]);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket of ours");
        return;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// An address that is taken and where nobody listens, as long as the socket is open.
fn refusing() -> (OwnedFd, SocketAddr) {
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&held, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("an address");
    let address = getsockname(&held).expect("it is bound").try_into().expect("an address of IPv4");
    (held, address)
}

fn with_the_kernel(scene: &'static Scene) -> Seen {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (answers, (_held, refuses)) = (listener.local_addr().unwrap(), refusing());
    let server = thread::spawn(move || {
        let accepted = (0..scene.connections).map(|_| listener.accept().unwrap().0);
        let peers = accepted
            .enumerate()
            .map(|(at, stream)| thread::spawn(move || peer(stream, scene.resets && at == 0)));
        peers.collect::<Vec<_>>().into_iter().for_each(|peer| peer.join().unwrap());
    });
    let (tell, told) = mpsc::channel();
    on_a_core(small(64), async move || {
        let come = |listener: &TcpListener| {
            for _ in 0..CLIENTS {
                let stream = StdStream::connect(listener.local_addr()).unwrap();
                thread::spawn(move || peer(stream, false));
            }
        };
        let around = Around { answers, refuses, come: Box::new(come) };
        tell.send((scene.program)(around).await).unwrap();
    });
    server.join().unwrap();
    told.recv().unwrap()
}

/// The other end of a connection, played.
fn played_peer(ending: Ending) -> Peer {
    let (total, window) = (SENT as u64, 64 << 10);
    Peer { sends: ANY, total, expects: ANY, window, ending, vanishes: false, patience: 0, stalls: 0 }
}

fn played(scene: &'static Scene, seed: u64) -> Seen {
    let simulation = Rc::new(Simulation::new(seed, Tracing::Off));
    let [answers, refuses] = [1, 2].map(|host| SocketAddr::from(([198, 18, 0, host], 80)));
    let mut peers = vec![played_peer(Ending::Fin); scene.connections];
    if scene.resets {
        // The last is taken first.
        *peers.last_mut().expect("one that is reset") =
            Peer { patience: u64::MAX, ..played_peer(Ending::ResetAtOut(1)) };
    }
    simulation.serve(answers, Behaviour::Answers, peers);
    simulation.serve(refuses, Behaviour::Refuses(libc::ECONNREFUSED), Vec::new());
    let come = |simulation: &Rc<Simulation>| {
        let simulation = Rc::clone(simulation);
        Box::new(move |listener: &TcpListener| {
            simulation.listen(listener.as_fd().as_raw_fd(), vec![played_peer(Ending::Fin); CLIENTS]);
        })
    };
    on_a_played_core(&simulation, seed, || {
        (scene.program)(Around { answers, refuses, come: come(&simulation) })
    })
}

fn on_a_played_core<Fut>(simulation: &Rc<Simulation>, seed: u64, program: impl Fn() -> Fut) -> Seen
where
    Fut: Future<Output = Seen> + 'static,
{
    let seen = Rc::new(RefCell::new(Seen::new()));
    let ended = on_a_core_of(simulation, Shape { pool_bytes: 1 << 20, ..Shape::default() }, || {
        let (program, into) = (program(), Rc::clone(&seen));
        async move {
            let seen = program.await;
            into.replace(seen);
            Ok(())
        }
    });
    assert_eq!(ended, Ok(()), "seed {seed}");
    assert_eq!(simulation.state.borrow().failure, None, "seed {seed}");
    seen.take()
}

/// Seen to fail: with a player that tells a server's refusal as `EHOSTUNREACH`.
#[test]
fn connections_that_a_played_core_makes_accepts_and_joins_are_like_the_kernels() {
    for scene in &SCENES {
        let seen = with_the_kernel(scene);
        for seed in 0..10 {
            assert_eq!(played(scene, seed), seen, "{}, seed {seed}", scene.name);
        }
    }
}

/// Waits for what makes a descriptor, also when a play lets it lack one at first.
async fn opened<T>(open: impl AsyncFn() -> crate::Result<T>) -> crate::Result<T> {
    loop {
        match open().await {
            Err(e) if lacks_descriptors(&e) => {}
            other => return other,
        }
    }
}

/// Writes, reads, renames and removes, and asks for what is not there.
async fn uses_files(place: Rc<Place>) -> Seen {
    let dir = opened(async || Dir::open(place.path()).await).await.expect("it was made");
    let (new, old) = (OpenOptions::new().write(true).create(true), OpenOptions::new());
    let file = opened(async || dir.open_beneath("one", new).await).await.expect("a new file");
    let bytes: Vec<u8> = (0..SENT as u64).map(|at| byte(1, at)).collect();
    let mut seen = Seen::new();
    let written = file.write_all_at(Bytes(bytes[..50_000].to_vec()), 0).await;
    seen.push(format!("written: {}", written.is_ok()));
    let parts = [Bytes(bytes[50_000..50_007].to_vec()), Bytes(bytes[50_007..].to_vec())];
    seen.push(format!("written on: {}", file.write_all_vectored_at(parts, 50_000).await.is_ok()));
    seen.push(format!("synced: {:?}", file.sync_all().await));
    let whole = file.read_exact_at(Vec::with_capacity(SENT), SENT, 0).await;
    seen.push(format!("as it was written: {}", whole.is_ok_and(|whole| whole == bytes)));
    let beyond = file.read_at(Vec::with_capacity(9), SENT as u64).await.map(|(n, _)| n).map_err(|e| e.error);
    seen.push(format!("beyond its end: {beyond:?}"));
    let too_much = file.read_exact_at(Vec::with_capacity(9), 9, SENT as u64 - 3).await;
    seen.push(format!("more than there is: {:?}", too_much.map_err(|e| e.error.to_string())));
    seen.push(format!("{} bytes", file.stat().await.expect("it is open").size));
    for name in ["nothing", "../one"] {
        let missing = opened(async || dir.open_beneath(name, old).await).await;
        seen.push(format!("{name}: {:?}", missing.err().and_then(|e| errno(&e))));
    }
    let missing = opened(async || File::open(place.path().join("nothing"), old).await).await;
    seen.push(format!("by a path: {:?}", missing.err().and_then(|e| errno(&e))));
    seen
}

/// Seen to fail: with a player that tells of a file that is not there as `EACCES`.
#[test]
fn files_of_a_played_core_are_like_the_kernels() {
    let (tell, told) = mpsc::channel();
    on_a_core(small(64), async move || {
        let place = Rc::new(Place::new().unwrap());
        tell.send(uses_files(place).await).unwrap();
    });
    let seen = told.recv().unwrap();
    for seed in 0..20 {
        let simulation = Rc::new(Simulation::new(seed, Tracing::Off));
        let files = || uses_files(Rc::new(Place::new().expect("a place for files")));
        assert_eq!(on_a_played_core(&simulation, seed, files), seen, "seed {seed}");
    }
}
