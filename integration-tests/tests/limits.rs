//! Few file descriptors: the server waits for free ones and forgets nobody. Little memory: it serves on
//! without.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, curl, digest, net, procfs, stats, watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::net::TcpStream;

const FILES: u64 = 64;

#[test]
fn clients_that_no_descriptor_is_left_for_are_served_once_there_is() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 3000);
    let mut server = Launch::serve(tree.root()).open_files(FILES).arg("--stats").start();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(server.addr())).collect();
    // Nobody has asked for anything: all that the server has of them is their connections, and it cannot
    // have 200. A quarter of the descriptors it leaves to files.
    watch::until("the server has as many connections as it can have", || {
        (procfs::open_files(server.pid()) as u64 >= FILES * 3 / 4 - 4).then_some(())
    });
    server.must_live();
    // The last ones are certainly still in the queue. All others leave.
    let mut last = clients.split_off(180);
    drop(clients);
    for (i, client) in last.iter_mut().enumerate() {
        let response =
            client.try_get(&sample.path).unwrap_or_else(|e| panic!("client {i} of the last 20: {e}"));
        assert_eq!((response.head.status, response.body.len() as u64), (200, sample.sum.len), "client {i}");
    }
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    server.must_live();
    let stats = stats::of(&server.stop());
    assert!(stats.total("accept_backoffs") > 0, "the server did run out of descriptors: {stats:?}");
}

/// With however few descriptors it serves a client on each core, or does not start and says what to raise.
///
/// Seen to fail: without the look before the line "listening", at 12 to 20 descriptors.
#[test]
fn it_never_says_that_it_listens_when_it_can_serve_nobody() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 200_000);
    let upstream = Upstream::echo();
    let mut refused = 0;
    for count in (8..28).step_by(2).chain([64]) {
        for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
            match launch.open_files(count).start_or_end() {
                Ok(server) => {
                    if server.line().contains("relaying") {
                        let mut client = net::connect(server.addr()).expect("connecting");
                        let echoes =
                            client.write_all(b"hello").is_ok() && client.read_exact(&mut [0; 5]).is_ok();
                        assert!(echoes, "nobody is relayed with {count} descriptors");
                    } else {
                        assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum, "{count} descriptors");
                    }
                    server.stop();
                }
                Err(ended) => {
                    // The log may say before or behind it that accepting rests.
                    let told = |line: &String| {
                        line.starts_with("annulus: ") && line.contains("RLIMIT_NOFILE (ulimit -n")
                    };
                    let is_told = ended.err.iter().any(told);
                    assert!(ended.code() == 3 && is_told, "{count} descriptors: {ended:#?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused >= 8, "some were too few: {refused}");
}

#[test]
fn two_hundred_clients_who_all_ask_are_all_served_with_64_descriptors() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 3000);
    let large = tree.file("large.bin", 2 << 20);
    let mut server = Launch::serve(tree.root()).open_files(FILES).start();
    let mut clients: Vec<Option<Client>> = (0..200).map(|_| Some(Client::connect(server.addr()))).collect();
    let sample = |i: usize| if i.is_multiple_of(10) { &large } else { &small };
    for (i, client) in clients.iter_mut().flatten().enumerate() {
        client.send(http::get(&sample(i).path)).expect("sending");
    }
    let mut left = clients.len();
    while left > 0 {
        // Whoever is answered leaves, and so makes room for others: in whatever order the server takes them.
        let waiting: Vec<usize> = (0..clients.len()).filter(|&i| clients[i].is_some()).collect();
        let mut polls: Vec<PollFd> =
            clients.iter().flatten().map(|c| PollFd::new(c.stream(), PollFlags::IN)).collect();
        let limit = Timespec { tv_sec: watch::LIMIT.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut polls, Some(&limit)).expect("poll of our sockets");
        assert_ne!(
            ready,
            0,
            "{left} of 200 clients are still not answered; {} open files",
            procfs::open_files(server.pid())
        );
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        for (i, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut client = clients[i].take().expect("a client that waits");
            let response = client.response().unwrap_or_else(|e| panic!("client {i}: {e}"));
            assert_eq!(response.head.status, 200, "client {i}");
            assert_eq!(response.body.len() as u64, sample(i).sum.len, "client {i}");
            left -= 1;
        }
    }
    server.must_live();
    server.stop();
}

/// The pool has one block, and may not have more. Who does not read keeps it; the others' files go without
/// one.
#[test]
fn clients_that_take_nothing_cost_no_memory_and_hold_nobody_up() {
    let tree = Tree::new();
    let sample = tree.file("file.bin", 60_000);
    let first = cpus::list(&cpus::allowed()[..1]);
    let launch = Launch::serve(tree.root()).cores(&first).arg("--stats");
    let mut server = launch.arg("--pool").arg("256K").arg("--pool-limit").arg("256K").start();
    let mut slow = net::connect(server.addr()).expect("connecting");
    net::small_receive_buffer(&slow, 4096);
    // More than all buffers on the way hold.
    for _ in 0..300 {
        slow.write_all(http::get(&sample.path).as_bytes()).expect("sending");
    }
    let mut client = Client::connect(server.addr());
    for _ in 0..200 {
        let response = client.get(&sample.path);
        assert_eq!((response.head.status, digest::of(&response.body)), (200, sample.sum));
    }
    server.must_live();
    drop(slow);
    let stats = stats::of(&server.stop());
    assert!(stats.total("file_bytes_inline") > 0, "there were blocks all the time: {stats:?}");
    assert_eq!(stats.total("pool_grown_bytes"), 0, "{stats:?}");
}

/// An empty file's head is all there is of its answer: where no block is left, too, it does not wait for
/// something to leave with (MSG_MORE: 200 ms), so it is there long before somebody who asked later has had
/// twenty answers, one after the other.
///
/// Seen to fail: with `more` for every head in `large`.
#[test]
fn an_empty_file_is_answered_at_once_while_no_block_is_free() {
    let tree = Tree::new();
    tree.file("s", 8192);
    tree.file("empty", 0);
    let first = cpus::list(&cpus::allowed()[..1]);
    let launch = Launch::serve(tree.root()).cores(&first).arg("--stats");
    let server = launch.arg("--pool").arg("256K").arg("--pool-limit").arg("256K").start();
    let mut slow = net::connect(server.addr()).expect("connecting");
    net::small_receive_buffer(&slow, 4096);
    // More than all buffers on the way hold, in few bytes.
    slow.write_all("GET /s HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000).as_bytes()).expect("sending");
    let mut client = Client::connect(server.addr());
    let mut later = Client::connect(server.addr());
    for _ in 0..100 {
        client.send(http::get("/empty")).expect("sending");
        (0..20).for_each(|_| assert_eq!(later.get("/none").head.status, 404));
        let mut events = [PollFd::new(client.stream(), PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut events, Some(&at_once)), Ok(1), "the answer is late");
        let response = client.response().expect("an answer");
        assert_eq!((response.head.status, response.body.len()), (200, 0));
    }
    drop(slow);
    let stats = stats::of(&server.stop());
    assert!(stats.total("blocks_refused") > 0, "there were blocks all the time: {stats:?}");
}

/// A relay needs several descriptors, so some of these clients may be turned away; the proxy must be itself
/// again afterwards.
#[test]
fn a_proxy_that_ran_out_of_descriptors_recovers() {
    let upstream = Upstream::echo();
    for road in ["ring", "inline"] {
        let mut server = Launch::proxy(upstream.addr()).road(road).open_files(FILES).start();
        let mut clients: Vec<TcpStream> =
            (0..200).filter_map(|_| net::connect_unless_reset(server.addr())).collect();
        for client in &mut clients {
            // Whether it is relayed, waits or is turned away is not asked here.
            let _ = client.write_all(&[1; 5000]);
        }
        watch::until("the proxy has as many descriptors as it can have", || {
            (procfs::open_files(server.pid()) as u64 >= FILES * 3 / 4 - 4).then_some(())
        });
        drop(clients);
        // The old relays are still being taken down at first, and a new one may find no descriptors for its
        // pipes.
        watch::until("a new client is relayed", || {
            let mut client = net::connect_unless_reset(server.addr())?;
            let mut echoes = || client.write_all(b"hello").is_ok() && client.read_exact(&mut [0; 5]).is_ok();
            (echoes() && echoes()).then_some(())
        });
        let listeners = procfs::listeners(server.port());
        watch::until("all relays are taken down", || {
            (procfs::sockets(server.pid()) == listeners).then_some(())
        });
        server.must_live();
        server.stop();
    }
}

#[test]
fn a_server_that_has_no_descriptor_left_ends_cleanly_too() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let upstream = Upstream::echo();
    for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
        let server = launch.open_files(FILES).start();
        // More than it can have, so that some are in the queue, where it cannot even take them to close them.
        let clients: Vec<TcpStream> =
            (0..200).filter_map(|_| net::connect_unless_reset(server.addr())).collect();
        watch::until("the server has as many descriptors as it can have", || {
            (procfs::open_files(server.pid()) as u64 >= FILES * 3 / 4 - 4).then_some(())
        });
        server.stop();
        drop(clients);
    }
}
