//! The played kernel against the real one. The same programs run on a kernel's ring and on a played one, with
//! peers that do the same, and must see the same.

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use super::Simulation;
use super::launch::on_a_core_of;
use super::network::{Ending, Peer};
use super::program::Bytes;
use super::random::{ANY, byte};
use super::trace::Tracing;
use crate::launch::played::Shape;
use crate::net::TcpStream;
use crate::testing::{on_a_core, small};

/// What a program has seen, in words.
type Seen = Vec<String>;
type Program = fn(TcpStream) -> Pin<Box<dyn Future<Output = Seen>>>;

/// A program, the bytes that its peer sends, and whether the peer ends by a reset.
struct Scene {
    name: &'static str,
    sends: u64,
    resets: bool,
    program: Program,
}

const SCENES: [Scene; 8] = [
    Scene { name: "all and the end", sends: 50_000, resets: false, program: |s| Box::pin(to_the_end(s)) },
    Scene { name: "nothing and the end", sends: 0, resets: false, program: |s| Box::pin(to_the_end(s)) },
    Scene { name: "bytes before a reset", sends: 3_000, resets: true, program: |s| Box::pin(late(s)) },
    Scene { name: "a reset alone", sends: 0, resets: true, program: |s| Box::pin(late(s)) },
    Scene { name: "told to a send", sends: 100, resets: true, program: |s| Box::pin(sends_first(s)) },
    Scene { name: "into a buffer", sends: 100, resets: true, program: |s| Box::pin(into_a_buffer(s)) },
    Scene { name: "half closed", sends: 10, resets: false, program: |s| Box::pin(half_closed(s)) },
    Scene { name: "quieted and gone", sends: 9_000, resets: false, program: |s| Box::pin(travels(s)) },
];

fn word<T>(what: &str, result: &Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => format!("{what}: well"),
        Err(e) => format!("{what}: {e}"),
    }
}

/// Reads to the end, and once more.
async fn reads(stream: &TcpStream, seen: &mut Seen) {
    let mut bytes = 0;
    let end = loop {
        match stream.recv().await {
            Ok(Some(chunk)) => bytes += chunk.len(),
            other => break other,
        }
    };
    seen.push(format!("{bytes} bytes"));
    seen.push(word("the end", &end));
    seen.push(word("once more", &stream.recv().await));
}

async fn to_the_end(stream: TcpStream) -> Seen {
    let mut seen = Seen::new();
    reads(&stream, &mut seen).await;
    seen
}

async fn late(stream: TcpStream) -> Seen {
    stream.gone().await;
    to_the_end(stream).await
}

async fn sends_first(stream: TcpStream) -> Seen {
    stream.gone().await;
    let mut seen = Seen::new();
    for what in ["a send", "another"] {
        seen.push(word(what, &stream.send_all(Bytes(vec![byte(ANY, 0); 7])).await.map_err(|e| e.error)));
    }
    reads(&stream, &mut seen).await;
    seen
}

async fn into_a_buffer(stream: TcpStream) -> Seen {
    stream.gone().await;
    let (mut seen, mut bytes) = (Seen::new(), 0);
    let end = loop {
        match stream.recv_into(Vec::with_capacity(64)).await {
            Ok((n, _)) if n > 0 => bytes += n,
            other => break other.map_err(|e| e.error),
        }
    };
    seen.push(format!("{bytes} bytes"));
    seen.push(word("the end", &end));
    reads(&stream, &mut seen).await;
    seen
}

async fn half_closed(stream: TcpStream) -> Seen {
    let mut seen = Seen::new();
    reads(&stream, &mut seen).await;
    let sends = async || stream.send_all(Bytes(vec![byte(ANY, 0); 40])).await.map_err(|e| e.error);
    seen.push(word("a send", &sends().await));
    seen.push(word("shutdown", &stream.shutdown(Shutdown::Write)));
    seen.push(word("another", &sends().await));
    seen
}

async fn travels(stream: TcpStream) -> Seen {
    let mut seen = Seen::new();
    seen.push(word("a receive", &stream.recv().await));
    drop(stream.quiesce().await);
    let stream = stream.detach().await.expect("a descriptor is left").attach();
    while let Ok(Some(_)) = stream.recv().await {}
    let stream = stream.detach().await.expect("a descriptor is left").attach();
    reads(&stream, &mut seen).await;
    seen
}

/// With the kernel's ring, network and a peer that is a thread.
fn with_the_kernel(scene: &'static Scene) -> Seen {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (connects, connected) = mpsc::channel();
    let peer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        // A reset that comes while the kernel still connects is told to the connect.
        connected.recv().unwrap();
        peer.write_all(&vec![1; scene.sends as usize]).unwrap();
        if scene.resets {
            rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
            return;
        }
        peer.shutdown(Shutdown::Write).unwrap();
        peer.read_to_end(&mut Vec::new()).unwrap();
    });
    let (tell, told) = mpsc::channel();
    on_a_core(small(64), async move || {
        let stream = TcpStream::connect(address).await.unwrap();
        connects.send(()).unwrap();
        tell.send((scene.program)(stream).await).unwrap();
    });
    peer.join().unwrap();
    told.recv().unwrap()
}

fn played(scene: &'static Scene, seed: u64) -> Seen {
    let simulation = Rc::new(Simulation::new(seed, Tracing::Off));
    let seen = Rc::new(RefCell::new(Seen::new()));
    let (fd, _) = simulation.connect(Peer {
        sends: 1,
        total: scene.sends,
        expects: ANY,
        window: 64 << 10,
        ending: if scene.resets { Ending::ResetAtIn(scene.sends) } else { Ending::Fin },
        vanishes: false,
        patience: 0,
        stalls: 0,
    });
    let (fd, into) = (RefCell::new(Some(fd)), Rc::clone(&seen));
    let ended = on_a_core_of(&simulation, Shape { pool_bytes: 1 << 20, ..Shape::default() }, move || {
        let (stream, into) = (TcpStream::from_fd(fd.take().expect("once")), Rc::clone(&into));
        async move {
            let seen = (scene.program)(stream).await;
            into.replace(seen);
            Ok(())
        }
    });
    assert_eq!(ended, Ok(()), "{}, seed {seed}", scene.name);
    assert_eq!(simulation.state.borrow().failure, None, "{}, seed {seed}", scene.name);
    seen.take()
}

#[test]
fn a_played_ring_is_like_the_kernels() {
    for scene in &SCENES {
        let seen = with_the_kernel(scene);
        for seed in 0..10 {
            assert_eq!(played(scene, seed), seen, "{}, seed {seed}", scene.name);
        }
    }
}
