//! `--road ring` moves bulk by splice SQEs on io_uring's workers, `--road inline` by splice(2) on the core:
//! what the counters say, and what the kernel's threads show.

use annulus_integration_tests::cpus;
use annulus_integration_tests::curl;
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::net;
use annulus_integration_tests::pattern;
use annulus_integration_tests::procfs::{self, Thread};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::stats::{self, Stats};
use annulus_integration_tests::upstream::{self, Upstream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;
/// No core needs more kernel threads than this to move bytes, however many relays it has.
const WORKERS_PER_CORE: usize = 16;

/// The bytes of one kind of bulk: all went by the road that was asked for, and none by the other.
///
/// The inline road takes pages that the page cache has lost into the pipe by an SQE, and says so
/// (`file_bytes_cold`).
#[track_caller]
fn all_by(stats: &Stats, kind: &str, road: &str, bytes: u64) {
    let ring = stats.total(&format!("{kind}_bytes_ring"));
    let mut inline = stats.total(&format!("{kind}_bytes_inline"));
    if kind == "file" {
        inline += stats.total("file_bytes_cold");
    }
    let due = if road == "ring" { (bytes, 0) } else { (0, bytes) };
    assert_eq!((ring, inline), due, "({kind} bytes by SQE, {kind} bytes by call) by {road}: {stats:?}");
}

#[test]
fn every_byte_of_a_large_file_takes_the_road_that_was_asked_for() {
    let tree = Tree::new();
    let samples =
        [tree.file("a.bin", 10 * MIB), tree.file("b.bin", 33 * MIB + 12345), tree.sparse("c.bin", 500 * MIB)];
    let bytes: u64 = samples.iter().map(|sample| sample.sum.len).sum();
    for road in ["ring", "inline"] {
        let cores = cpus::two();
        let server = Launch::serve(tree.root()).road(road).cores(&cpus::list(&cores)).arg("--stats").start();
        for sample in &samples {
            assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum, "{} by {road}", sample.path);
        }
        let stats = stats::of(&server.stop());
        assert_eq!(stats.cores.len(), cores.len(), "one line for each core");
        all_by(&stats, "file", road, bytes);
        all_by(&stats, "relay", road, 0);
    }
}

/// Has the kernel write a file back and forget its pages. `false` on a file system that has nowhere to forget
/// them to.
fn forget_pages(path: &std::path::Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let file = std::fs::File::open(path).expect("opening our own file");
    file.sync_all().expect("fsync of our own file");
    let kind = rustix::fs::fstatfs(&file).expect("fstatfs of our own file").f_type as i64;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .expect("POSIX_FADV_DONTNEED of our own file");
    kind != TMPFS_MAGIC
}

#[test]
fn files_that_have_to_be_read_from_disk_arrive_whole_by_both_roads() {
    let tree = Tree::new();
    let sample = tree.file("cold.bin", 40 * MIB + 777);
    for road in ["ring", "inline"] {
        let server = Launch::serve(tree.root()).road(road).arg("--stats").start();
        let cold = forget_pages(&tree.at("cold.bin"));
        assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum, "by {road}");
        let stats = stats::of(&server.stop());
        all_by(&stats, "file", road, sample.sum.len);
        match (road, cold) {
            ("inline", true) => {
                assert!(stats.total("file_bytes_cold") > 0, "the core itself waited for the disk: {stats:?}")
            }
            (_, false) => eprintln!("note: TMPDIR is in memory, so nothing here is ever read from a disk"),
            _ => {}
        }
    }
}

#[test]
fn every_byte_of_a_bulk_relay_takes_the_road_that_was_asked_for() {
    const LEN: u64 = 200 * MIB;
    let upstream = Upstream::echo();
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).arg("--stats").start();
        let client = net::connect(server.addr()).expect("connecting");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pattern::write_to(&mut &client, 1, LEN).expect("sending");
                client.shutdown(Shutdown::Write).expect("ending our side");
            });
            let came = annulus_integration_tests::digest::of_reader(&mut &client).expect("the echo");
            assert_eq!(came, pattern::Pattern::sum(1, LEN));
        });
        drop(client);
        let stats = stats::of(&server.stop());
        // All but what comes before the proxy has seen that it is bulk.
        let copied = stats.total("relay_bytes_copied");
        assert!(copied < LEN / 50, "{copied} bytes were copied by {road}: {stats:?}");
        all_by(&stats, "relay", road, 2 * LEN - copied);
        all_by(&stats, "file", road, 0);
    }
}

/// Connections that an upstream holds and does not read.
type Held = Arc<Mutex<Vec<TcpStream>>>;

/// An upstream that echoes for a connection whose first byte is `e`, and puts others aside without reading
/// on.
fn echo_or_hold() -> (Upstream, Held) {
    let held = Held::default();
    let holds = Arc::clone(&held);
    let upstream = Upstream::start(move |mut stream| {
        let mut what = [0];
        match stream.read_exact(&mut what) {
            // The test looks at the other end.
            Ok(()) if what == *b"e" => drop(upstream::echo(stream)),
            Ok(()) => holds.lock().expect("no holder of this lock panics").push(stream),
            Err(_) => {}
        }
    });
    (upstream, held)
}

/// Sends on all connections until none takes more: everything between here and the upstream's reader is full.
#[track_caller]
fn fill(clients: &mut [TcpStream]) {
    let block = vec![b's'; 64 * 1024];
    for client in clients.iter() {
        client.set_nonblocking(true).expect("O_NONBLOCK on a socket of ours");
    }
    // Nobody announces that nothing will move any more; that nothing moved for this long is near enough. What
    // the test asserts does not depend on it: if a relay still moved, it would only be a relay that moves.
    let quiet = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    loop {
        let mut polls: Vec<PollFd> =
            clients.iter().map(|client| PollFd::new(client, PollFlags::OUT)).collect();
        if poll(&mut polls, Some(&quiet)).expect("poll of our sockets") == 0 {
            return;
        }
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            loop {
                match client.write(&block) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("filling a relay: {e}"),
                }
            }
        }
    }
}

#[track_caller]
fn echoes(server: &Server, len: u64) {
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(b"e").expect("sending");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pattern::write_to(&mut &client, 9, len).expect("sending");
            client.shutdown(Shutdown::Write).expect("ending our side");
        });
        let came = annulus_integration_tests::digest::of_reader(&mut &client).expect("the echo");
        assert_eq!(came, pattern::Pattern::sum(9, len));
    });
}

/// The initial PID namespace has a number that never changes (`PROC_PID_INIT_INO` of linux/proc_ns.h).
fn in_initial_pid_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == "pid:[4026531836]")
}

#[track_caller]
fn workers_are_pinned_and_few(server: &Server, cores: &[usize], when: &str) -> Vec<Thread> {
    let threads = procfs::threads(server.pid());
    let workers: Vec<Thread> = threads.iter().filter(|t| t.is_io_worker()).cloned().collect();
    for worker in &workers {
        // Its name has the number that its core's thread has in the initial PID namespace: in another it
        // finds nobody, or a stranger, and only its CPU can be looked at.
        let core =
            threads.iter().find(|t| Some(t.tid) == worker.works_for() && t.name.starts_with("annulus-"));
        if let Some(core) = core {
            assert_eq!(worker.cpus, core.cpus, "{when}: {worker:?} is pinned as its core is");
        } else {
            assert!(!in_initial_pid_namespace(), "{when}: {worker:?} works for none of {threads:#?}");
        }
        assert!(
            worker.cpus.len() == 1 && cores.contains(&worker.cpus[0]),
            "{when}: {worker:?} is on one of {cores:?}"
        );
    }
    let bound = WORKERS_PER_CORE * cores.len();
    assert!(
        workers.len() <= bound,
        "{when}: {} io-wq workers, more than {bound}: {workers:#?}",
        workers.len()
    );
    workers
}

#[test]
fn io_workers_are_pinned_and_bounded_and_nobody_waits_for_stalled_relays() {
    let (upstream, held) = echo_or_hold();
    for cores in [vec![cpus::allowed()[0]], cpus::two()] {
        let server = Launch::proxy(upstream.addr()).road("ring").cores(&cpus::list(&cores)).start();
        echoes(&server, 8 * MIB);
        let some = workers_are_pinned_and_few(&server, &cores, "after one relay");
        assert!(!some.is_empty(), "the ring road moves bulk on io_uring's workers; there are none");

        // 50 that wait for somebody to say something, and 50 that wait for a reader who does not read.
        let idle: Vec<TcpStream> = (0..50)
            .map(|_| {
                let mut client = net::connect(server.addr()).expect("connecting");
                client.write_all(b"e1").expect("sending");
                client.read_exact(&mut [0]).expect("the echo");
                client
            })
            .collect();
        let mut stalled: Vec<TcpStream> = (0..50)
            .map(|_| {
                let client = net::connect(server.addr()).expect("connecting");
                rustix::net::sockopt::set_socket_send_buffer_size(&client, 32 * 1024).expect("SO_SNDBUF");
                client
            })
            .collect();
        fill(&mut stalled);
        workers_are_pinned_and_few(&server, &cores, "with 100 relays that stand still");

        // A worker that is held by a relay that stands still is missing here.
        for _ in 0..3 {
            echoes(&server, 8 * MIB);
        }
        workers_are_pinned_and_few(&server, &cores, "with 100 relays that stand still and one that runs");
        drop((idle, stalled));
        // Closed with bytes unread, which is a reset: the relays see it and end.
        held.lock().expect("no holder of this lock panics").clear();
        echoes(&server, 8 * MIB);
        server.stop();
    }
}

#[test]
fn the_inline_road_needs_no_io_workers_for_relays() {
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr()).road("inline").start();
    let mut client = net::connect(server.addr()).expect("connecting");
    for _ in 0..64 {
        client.write_all(&[1; 64 * 1024]).expect("sending");
        client.read_exact(&mut [0; 64 * 1024]).expect("the echo");
    }
    let workers: Vec<Thread> =
        procfs::threads(server.pid()).into_iter().filter(Thread::is_io_worker).collect();
    // In another PID namespace each core has woken one worker at its start, to learn its name; it goes after
    // five idle seconds.
    let at_most = if in_initial_pid_namespace() { 0 } else { cpus::allowed().len() };
    assert!(workers.len() <= at_most, "{workers:#?}");
    drop(client);
    server.stop();
}

#[test]
fn file_workers_are_pinned_and_bounded_too() {
    let tree = Tree::new();
    let sample = tree.file("large.bin", 64 * MIB);
    let cores = cpus::two();
    let server = Launch::serve(tree.root()).road("ring").cores(&cpus::list(&cores)).start();
    // 64 downloads that stand still after a while.
    let mut clients: Vec<annulus_integration_tests::http::Client> =
        (0..64).map(|_| annulus_integration_tests::http::Client::connect(server.addr())).collect();
    for client in &mut clients {
        client.send(annulus_integration_tests::http::get(&sample.path)).expect("sending");
        client.head().expect("a head");
    }
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum, "beside 64 downloads that stand still");
    let workers = workers_are_pinned_and_few(&server, &cores, "with 64 downloads that stand still");
    assert!(!workers.is_empty(), "the ring road moves files on io_uring's workers; there are none");
    drop(clients);
    server.stop();
}
