//! Each bare server under the load driver, every byte checked, ended by SIGTERM with 0.

use annulus_benches::contest::contestants::{Contestant, Learn, contestants};
use annulus_benches::contest::launch::{Place, Running, start};
use annulus_benches::contest::table::Kind;
use annulus_benches::drive::{Backend, Direction, Load};
use annulus_benches::{cputime, pattern};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A directory of the test's own, and the place in which its servers run.
struct Scene {
    place: Place,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&scratch).unwrap();
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let cpu = (0..1024).find(|cpu| allowed.is_set(*cpu)).unwrap() as u32;
        let bare = Path::new(env!("CARGO_BIN_EXE_bare_http")).parent().unwrap().to_owned();
        let (root, file) = (scratch.clone(), "file".to_owned());
        let (peers, other_cpu, to) = (bare.clone(), cpu, NOWHERE);
        Scene {
            place: Place { bare, peers, annulus: None, cpu, other_cpu, root, file, body: 1, to, scratch },
        }
    }

    fn with_file(mut self, bytes: u64) -> Scene {
        self.place.body = bytes;
        std::fs::write(self.place.root.join("file"), pattern::bytes(bytes as usize)).unwrap();
        self
    }

    fn to(mut self, backend: SocketAddr) -> Scene {
        self.place.to = backend;
        self
    }

    fn start(&self, command: &str) -> Running {
        let command = command.split_ascii_whitespace().map(str::to_owned).collect();
        let who = Contestant { name: "test".into(), command, learn: Learn::Line, conf: None, streams: false };
        start(&who, &self.place).unwrap()
    }
}

/// The bare contestants of a kind.
fn bare(kind: Kind) -> impl Iterator<Item = Contestant> {
    contestants(kind).into_iter().filter(|who| who.command[0].starts_with("{bare}"))
}

fn http(body: u64, connections: usize) -> Load {
    Load::Http { path: "/file".into(), body, connections }
}

fn check(server: Running, load: &Load, backend: Option<&Backend>) {
    load.open(server.address, backend, false).unwrap().verify().unwrap();
    let mut session = load.open(server.address, backend, false).unwrap();
    let outcome = session.run(8).unwrap();
    assert!(outcome.requests > 0);
    drop(session);
    assert!(server.stop().unwrap().success());
}

#[test]
fn http_bodies_are_right_and_large_ones_survive_short_sends() {
    for (body, connections) in [(1, 1), (1024, 64), (8 << 20, 3)] {
        let scene = Scene::new("http").with_file(body);
        check(scene.start("{bare}/bare_http --cpu {cpu} --body {body}"), &http(body, connections), None);
    }
}

#[test]
fn http_answers_pipelined_requests_cut_anywhere_and_then_sees_the_end() {
    let server = Scene::new("pipelined").start("{bare}/bare_http --cpu {cpu} --body 5");
    let mut client = TcpStream::connect(server.address).unwrap();
    client.set_nodelay(true).unwrap();
    let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    for piece in requests.chunks(7) {
        client.write_all(piece).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).unwrap();
    assert_eq!(answers.windows(9).filter(|w| w == b"HTTP/1.1 ").count(), 3);
    assert_eq!(answers.len() % 3, 0);
    assert!(answers.ends_with(&pattern::bytes(5)));
    assert!(server.stop().unwrap().success());
}

#[test]
fn echo_brings_messages_back_also_with_fewer_blocks_than_connections() {
    let scene = Scene::new("echo");
    let load = Load::Echo { size: 1000, connections: 32, relayed: false };
    for more in ["", "--buffers 2 --buffer-size 128"] {
        check(scene.start(&format!("{{bare}}/bare_echo --cpu {{cpu}} {more}")), &load, None);
    }
}

#[test]
fn echo_brings_a_stream_back_that_is_larger_than_all_buffers() {
    let server = Scene::new("stream").start("{bare}/bare_echo --cpu {cpu} --buffers 4");
    let mut client = TcpStream::connect(server.address).unwrap();
    let mut writer = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        writer.write_all(&pattern::bytes(16 << 20)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    sending.join().unwrap();
    assert_eq!(back.len(), 16 << 20);
    assert_eq!(pattern::check(&back, 0), Ok(()));
    assert!(server.stop().unwrap().success());
}

#[test]
fn every_file_road_delivers_every_byte() {
    for (bytes, connections) in [(1, 2), (65_536, 16), (5 * (1 << 20) + 4_097, 3)] {
        let scene = Scene::new(&format!("file-{bytes}")).with_file(bytes);
        for who in bare(Kind::File(bytes)) {
            let server = start(&who, &scene.place).unwrap_or_else(|e| panic!("{}: {e}", who.name));
            check(server, &http(bytes, connections), None);
        }
    }
}

#[test]
fn file_roads_outlive_clients_that_leave_in_the_middle() {
    let scene = Scene::new("leave").with_file(6 << 20);
    for who in bare(Kind::File(0)) {
        let server = start(&who, &scene.place).unwrap();
        for _ in 0..3 {
            let mut client = TcpStream::connect(server.address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            client.read_exact(&mut [0; 70_000]).unwrap();
        }
        check(server, &http(6 << 20, 2), None);
    }
}

#[test]
fn registered_blocks_are_waited_for_when_there_are_few() {
    let scene = Scene::new("few").with_file(1 << 20);
    for road in ["read-fixed-send:64k", "read-fixed-send-zc:64k"] {
        let server =
            scene.start(&format!("{{bare}}/bare_file {{file}} --cpu {{cpu}} --road {road} --pool 210k"));
        check(server, &http(1 << 20, 8), None);
    }
}

#[test]
fn time_of_io_wq_workers_is_in_the_clock_of_the_process() {
    let scene = Scene::new("clock").with_file(4 << 20);
    let server = scene.start("{bare}/bare_file {file} --cpu {cpu} --road splice-sqe:64k");
    http(4 << 20, 2).open(server.address, None, false).unwrap().verify().unwrap();
    let threads = cputime::threads_ns(server.pid()).unwrap();
    let worker: u64 = threads.iter().filter(|(name, _)| name.starts_with("iou-wrk")).map(|(_, ns)| ns).sum();
    let own: u64 = threads.iter().filter(|(name, _)| !name.starts_with("iou-wrk")).map(|(_, ns)| ns).sum();
    assert!(worker > 0 && own > 0, "{threads:?}");
    assert!(server.cpu_ns().unwrap() >= worker + own, "{threads:?}");
    assert!(server.stop().unwrap().success());
}

#[test]
fn every_relay_road_carries_bulk_both_ways_and_small_messages() {
    let backend = Backend::new(NOWHERE).unwrap();
    let scene = Scene::new("relay").to(backend.address());
    let loads = [
        (Load::Bulk { direction: Direction::Down, connections: 1 }, 1 << 20),
        (Load::Bulk { direction: Direction::Down, connections: 16 }, 1 << 20),
        (Load::Bulk { direction: Direction::Up, connections: 4 }, 1 << 20),
        (Load::Echo { size: 1024, connections: 16, relayed: true }, 100),
    ];
    for who in bare(Kind::RelayBulk) {
        let server = start(&who, &scene.place).unwrap();
        for (load, work) in &loads {
            let mut session = load.open(server.address, Some(&backend), false).unwrap();
            session.verify().unwrap_or_else(|e| panic!("{} {load:?}: {e}", who.name));
            session.run(*work).unwrap();
        }
        assert!(server.stop().unwrap().success());
    }
}

#[test]
fn relay_roads_pass_on_each_half_close() {
    let listener = TcpListener::bind(NOWHERE).unwrap();
    let scene = Scene::new("half").to(listener.local_addr().unwrap());
    for who in bare(Kind::RelayBulk) {
        let server = start(&who, &scene.place).unwrap();
        for client_first in [true, false] {
            let mut client = TcpStream::connect(server.address).unwrap();
            let (mut behind, _) = listener.accept().unwrap();
            let (first, second) =
                if client_first { (&mut client, &mut behind) } else { (&mut behind, &mut client) };
            first.write_all(b"question").unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            let mut asked = String::new();
            second.read_to_string(&mut asked).unwrap();
            assert_eq!(asked, "question", "{}", who.name);
            second.write_all(b"answer").unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            let mut answered = String::new();
            first.read_to_string(&mut answered).unwrap();
            assert_eq!(answered, "answer", "{}", who.name);
        }
        assert!(server.stop().unwrap().success());
    }
}

#[test]
fn a_relay_closes_the_client_when_nobody_is_behind_and_lives() {
    let gone = TcpListener::bind(NOWHERE).unwrap().local_addr().unwrap();
    let server = Scene::new("refused").to(gone).start("{bare}/bare_relay --to {to} --cpu {cpu} --road mshot");
    for _ in 0..3 {
        let mut client = TcpStream::connect(server.address).unwrap();
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert!(server.stop().unwrap().success());
}

#[test]
fn a_relay_carries_bulk_with_fewer_blocks_than_connections() {
    let backend = Backend::new(NOWHERE).unwrap();
    let scene = Scene::new("few-blocks").to(backend.address());
    let server = scene.start("{bare}/bare_relay --to {to} --cpu {cpu} --road mshot --buffers 4");
    let load = Load::Bulk { direction: Direction::Down, connections: 8 };
    load.open(server.address, Some(&backend), false).unwrap().verify().unwrap();
    assert!(server.stop().unwrap().success());
}
