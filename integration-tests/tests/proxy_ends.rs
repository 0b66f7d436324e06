//! `annulus proxy`: how relays begin and end. Half-closes, refusals, resets, and what is given back
//! afterwards.

use annulus_integration_tests::digest::{self, Sum};
use annulus_integration_tests::pattern::{self, Pattern};
use annulus_integration_tests::prepare::Sigpipe;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{net, procfs, watch};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

const MIB: u64 = 1 << 20;
const ROADS: [&str; 2] = ["ring", "inline"];

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn the_client_ends_its_side_first_and_then_gets_its_answer() {
    // The answer is made of what came, so it cannot come before the end that the client sent.
    for road in ROADS {
        for len in [0, 1, 5 * MIB] {
            let upstream = Upstream::start(move |mut stream| {
                let sum = digest::of_reader(&mut stream).expect("the upstream reads to the end");
                stream.write_all(&sum.hash.to_le_bytes()).expect("the upstream answers");
                pattern::write_to(&mut stream, 2, len).expect("the upstream answers");
            });
            let server = Launch::proxy(upstream.addr()).road(road).start();
            let mut client = net::connect(server.addr()).expect("connecting");
            pattern::write_to(&mut client, 1, len).expect("sending");
            client.shutdown(Shutdown::Write).expect("ending our side");
            let mut hash = [0; 8];
            client.read_exact(&mut hash).expect("the answer");
            assert_eq!(u64::from_le_bytes(hash), Pattern::sum(1, len).hash, "{len} bytes by {road}");
            let rest = digest::of_reader(&mut client).expect("the rest of the answer");
            assert_eq!(rest, Pattern::sum(2, len), "{len} bytes by {road}");
            server.stop();
        }
    }
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn the_upstream_ends_its_side_first_and_the_client_goes_on_sending() {
    for road in ROADS {
        for len in [0, 1, 10 * MIB] {
            let (tell, told) = channel::<Sum>();
            let upstream = Upstream::start(move |mut stream| {
                stream.write_all(b"that is all").expect("the upstream greets");
                stream.shutdown(Shutdown::Write).expect("the upstream ends its side");
                let _ = tell.send(digest::of_reader(&mut stream).expect("the upstream reads on"));
            });
            let server = Launch::proxy(upstream.addr()).road(road).start();
            let mut client = net::connect(server.addr()).expect("connecting");
            let mut greeting = Vec::new();
            client.read_to_end(&mut greeting).expect("the greeting and its end");
            assert_eq!(greeting, b"that is all", "by {road}");
            // The end has arrived; now the other direction begins.
            pattern::write_to(&mut client, 1, len).expect("sending after the upstream's end");
            client.shutdown(Shutdown::Write).expect("ending our side");
            assert_eq!(
                told.recv().expect("the upstream's word"),
                Pattern::sum(1, len),
                "{len} bytes by {road}"
            );
            server.stop();
        }
    }
}

/// Waits until the process has only its listeners left of all sockets.
#[track_caller]
fn only_listeners_are_left(server: &Server) {
    let listeners = procfs::listeners(server.port());
    watch::until("the relays' sockets are closed", || {
        (procfs::sockets(server.pid()) == listeners).then_some(())
    });
}

#[track_caller]
fn is_closed_without_a_byte(mut client: TcpStream) {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty(), "{rest:?} from an upstream that is not there"),
        Err(e) => assert!(net::is_gone(&e), "the client should see a close: {e}"),
    }
}

#[test]
fn an_upstream_that_refuses_closes_the_client_and_is_logged() {
    let nobody = net::free_addr();
    let mut server = Launch::proxy(nobody).start();
    for _ in 0..20 {
        let _gone = net::connect_unless_reset(server.addr()).map(is_closed_without_a_byte);
    }
    let line = server
        .err()
        .wait_for("the log line about the upstream", |line| {
            (line.contains(&nobody.to_string()) && !line.contains("listening on")).then(|| line.to_owned())
        })
        .expect("the server lives and logs");
    assert!(line.to_lowercase().contains("refused"), "{line:?} says why");
    server.must_live();
    only_listeners_are_left(&server);
    // It was the upstream that was missing and nothing else: when it comes, the same server relays to it.
    let listener = TcpListener::bind(nobody).expect("binding the upstream's port at last");
    let _upstream = Upstream::on(listener, |stream| drop(annulus_integration_tests::upstream::echo(stream)));
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(b"hello").expect("sending");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("the echo");
    assert_eq!(&back, b"hello");
    drop(client);
    server.stop();
}

#[test]
fn bytes_sent_before_the_upstream_refuses_harm_nobody() {
    let nobody = net::free_addr();
    let mut server = Launch::proxy(nobody).start();
    for _ in 0..50 {
        // Connecting may seem to fail already: the server resets as soon as it knows.
        let Some(mut client) = net::connect_unless_reset(server.addr()) else { continue };
        let _ = client.write_all(&[7; 100_000]);
        is_closed_without_a_byte(client);
    }
    server.must_live();
    only_listeners_are_left(&server);
    server.stop();
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn five_hundred_short_connections() {
    let upstream = Upstream::echo();
    for road in ROADS {
        let server = Launch::proxy(upstream.addr()).road(road).start();
        let relay_one = |i: u64| {
            let mut client = net::connect(server.addr()).expect("connecting");
            let message = Pattern::bytes(i, 100);
            client.write_all(&message).expect("sending");
            client.shutdown(Shutdown::Write).expect("ending our side");
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("the echo and its end");
            assert_eq!(back, message, "connection {i} by {road}");
        };
        thread::scope(|scope| {
            for lane in 0..4 {
                scope.spawn(move || (0..125).for_each(|i| relay_one(lane * 1000 + i)));
            }
        });
        only_listeners_are_left(&server);
        server.stop();
    }
}

/// An upstream that sends for ever and tells when that fails, or reads for ever and tells when that ends.
fn endless() -> (Upstream, std::sync::mpsc::Receiver<()>) {
    let (tell, told) = channel();
    let upstream = Upstream::start(move |mut stream| {
        let mut what = [0];
        if stream.read_exact(&mut what).is_ok() {
            let mut block = vec![what[0]; 64 * 1024];
            match what[0] {
                b's' => while stream.write_all(&block).is_ok() {},
                _ => while stream.read(&mut block).is_ok_and(|n| n > 0) {},
            }
        }
        let _ = tell.send(());
    });
    (upstream, told)
}

fn clients_vanish(launch: Launch, told: &std::sync::mpsc::Receiver<()>) {
    const TIMES: usize = 40;
    let mut server = launch.start();
    for i in 0..TIMES {
        let mut client = net::connect(server.addr()).expect("connecting");
        if i % 2 == 0 {
            client.write_all(b"s").expect("sending");
            let mut some = vec![0; MIB as usize];
            client.read_exact(&mut some).expect("some of what the upstream sends");
        } else {
            client.write_all(&vec![b'r'; MIB as usize]).expect("sending");
        }
        if i % 4 < 2 {
            net::reset(client);
        }
    }
    for i in 0..TIMES {
        told.recv_timeout(watch::LIMIT)
            .unwrap_or_else(|e| panic!("upstream connection {i} was never let go: {e}"));
    }
    only_listeners_are_left(&server);
    server.must_live();
    server.stop();
}

/// Seen to fail: with a socket that each relay leaves open.
#[test]
fn clients_that_vanish_free_their_upstreams() {
    for road in ROADS {
        let (upstream, told) = endless();
        clients_vanish(Launch::proxy(upstream.addr()).road(road).sigpipe(Sigpipe::Kills), &told);
    }
}

/// Seen to fail: with a socket that each relay leaves open.
#[test]
fn upstreams_that_vanish_free_their_clients() {
    for road in ROADS {
        // Takes a byte, sends a little, and is gone with a reset.
        let upstream = Upstream::start(|mut stream| {
            let mut one = [0];
            if stream.read_exact(&mut one).is_ok() && stream.write_all(&[1; 1000]).is_ok() {
                net::reset(stream);
            }
        });
        let mut server = Launch::proxy(upstream.addr()).road(road).sigpipe(Sigpipe::Kills).start();
        for i in 0..40 {
            let mut client = net::connect(server.addr()).expect("connecting");
            client.write_all(b"x").expect("sending");
            if i % 2 == 0 {
                // In the middle of a stream of our own: it fails sooner or later, and is not waited for for
                // ever.
                let block = vec![0; 64 * 1024];
                while client.write_all(&block).is_ok() {}
            } else {
                let mut rest = Vec::new();
                if let Err(e) = client.read_to_end(&mut rest) {
                    assert!(net::is_gone(&e), "by {road}: {e}");
                }
            }
        }
        server.must_live();
        only_listeners_are_left(&server);
        server.stop();
    }
}

/// Seen to fail: with a socket that each relay leaves open.
#[test]
fn clients_that_leave_before_they_are_relayed_harm_nobody() {
    let upstream = Upstream::echo();
    let mut server = Launch::proxy(upstream.addr()).start();
    for i in 0..200 {
        let client = net::connect(server.addr()).expect("connecting");
        if i % 2 == 0 {
            net::reset(client);
        }
    }
    only_listeners_are_left(&server);
    server.must_live();
    server.stop();
}

/// Seen to fail: with a descriptor that each relay leaves open.
#[test]
fn what_relays_held_is_given_back() {
    let upstream = Upstream::echo();
    for road in ROADS {
        let server = Launch::proxy(upstream.addr()).road(road).start();
        let round = || {
            let mut clients: Vec<TcpStream> =
                (0..50).map(|_| net::connect(server.addr()).expect("connecting")).collect();
            for client in &mut clients {
                client.write_all(&[1; 5000]).expect("sending");
            }
            for client in &mut clients {
                client.read_exact(&mut [0; 5000]).expect("the echo");
            }
            drop(clients);
            only_listeners_are_left(&server);
            procfs::open_files(server.pid())
        };
        round();
        let after_two = round();
        for _ in 0..3 {
            round();
        }
        let after_five = round();
        assert!(
            after_five <= after_two + 20,
            "open files grow with the relays that were: {after_two}, {after_five} ({road})"
        );
        server.stop();
    }
}
