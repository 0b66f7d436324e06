//! SIGINT and SIGTERM: the server ends with 0, whatever is open; what can be finished is, and a second signal
//! does not wait.

use annulus_integration_tests::digest;
use annulus_integration_tests::files::{self, LARGE, Sample};
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, curl, net, watch};
use rustix::process::Signal;
use std::io::{Read, Write};

/// A grace that no test waits for, in seconds: what ends before, ended for another reason.
const AN_HOUR: u32 = 3600;

/// A connection that has had an answer and waits for nothing.
fn idle(server: &Server, small: &Sample) -> Client {
    let mut client = Client::connect(server.addr());
    assert_eq!(client.get(&small.path).head.status, 200);
    client
}

/// A connection with a download of which only the head has been read.
fn busy(server: &Server, large: &Sample) -> Client {
    let mut client = Client::connect(server.addr());
    client.send(http::get(&large.path)).expect("sending");
    assert_eq!(client.head().expect("a head").content_length(), LARGE);
    client
}

#[test]
fn a_signal_ends_an_idle_server_with_0() {
    let (tree, ..) = files::small_and_large();
    let upstream = Upstream::echo();
    for signal in [Signal::INT, Signal::TERM] {
        for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
            for launch in [launch.clone(), launch.signals_blocked()] {
                let server = launch.grace(AN_HOUR).start();
                server.signal(signal);
                let ended = server.wait();
                assert_eq!(ended.code(), 0, "{signal:?}: {ended:#?}");
            }
        }
    }
}

#[test]
fn a_signal_closes_connections_that_wait_for_nothing() {
    let (tree, small, _) = files::small_and_large();
    for signal in [Signal::INT, Signal::TERM] {
        let server = Launch::serve(tree.root()).grace(AN_HOUR).start();
        let mut idle: Vec<Client> = (0..32).map(|_| idle(&server, &small)).collect();
        // Has never asked for anything.
        let mut silent = Client::connect(server.addr());
        server.signal(signal);
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{signal:?}: {ended:#?}");
        idle.iter_mut().for_each(Client::must_be_closed);
        silent.read_to_close().expect("closed");
    }
}

#[test]
fn a_download_in_progress_is_finished_if_the_client_reads_on() {
    let (tree, small, large) = files::small_and_large();
    for road in ["ring", "inline"] {
        let server = Launch::serve(tree.root()).road(road).grace(AN_HOUR).start();
        let mut idle: Vec<Client> = (0..16).map(|_| idle(&server, &small)).collect();
        let mut busy: Vec<Client> = (0..4).map(|_| busy(&server, &large)).collect();
        server.signal(Signal::TERM);
        // When those that wait for nothing are closed, the server has heard; the downloads are all under way.
        idle.iter_mut().for_each(Client::must_be_closed);
        for (i, client) in busy.iter_mut().enumerate() {
            let sum = client.body_sum(LARGE).unwrap_or_else(|e| panic!("download {i} by {road}: {e}"));
            assert_eq!(sum, large.sum, "download {i} by {road}");
            client.must_be_closed();
        }
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
}

#[test]
fn nobody_new_is_taken_after_a_signal_while_others_are_finished() {
    let (tree, small, large) = files::small_and_large();
    let server = Launch::serve(tree.root()).grace(AN_HOUR).start();
    let mut busy = busy(&server, &large);
    let addr = server.addr();
    server.signal(Signal::TERM);
    // Whoever was in a queue when the signal came may still be answered, but for the last time; then the
    // kernel refuses.
    watch::until("new connections are refused", || {
        let mut client = match net::connect(addr) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Some(()),
            Err(e) => panic!("connecting to {addr}: {e}"),
            Ok(stream) => Client::over(stream),
        };
        // An answer is whole, or there is none. It need not say that it is the last: the signal may not have
        // been read yet.
        if let Ok(response) = client.try_get(&small.path) {
            assert_eq!(response.body.len() as u64, small.sum.len, "an answer after the signal");
        }
        None
    });
    assert_eq!(busy.body_sum(LARGE).expect("the body"), large.sum);
    assert_eq!(server.wait().code(), 0);
}

#[test]
fn a_client_that_does_not_read_cannot_keep_the_server_for_ever() {
    let (tree, _, large) = files::small_and_large();
    let server = Launch::serve(tree.root()).start();
    let mut busy = busy(&server, &large);
    // Nor one that does not say what it wants.
    let mut half = Client::connect(server.addr());
    half.send("GET /small.txt HT").expect("sending");
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    half.read_to_close().expect("closed");
    assert!(busy.read_to_close().expect("closed") < LARGE, "a download that nobody read was cut");
}

#[test]
fn a_second_signal_does_not_wait() {
    let (tree, small, large) = files::small_and_large();
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)]
    {
        let server = Launch::serve(tree.root()).grace(AN_HOUR).start();
        let mut idle = idle(&server, &small);
        let mut busy = busy(&server, &large);
        server.signal(first);
        idle.must_be_closed();
        server.signal(second);
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        assert!(busy.read_to_close().expect("closed") < LARGE, "a download that nobody read was cut");
    }
}

#[test]
fn relays_in_progress_are_finished_if_both_sides_go_on() {
    const LEN: u64 = 32 << 20;
    let upstream = Upstream::start(|mut stream| {
        let mut one = [0];
        if stream.read_exact(&mut one).is_ok() {
            // The client may be cut; the test looks at that end.
            let _ = annulus_integration_tests::pattern::write_to(&mut stream, 7, LEN);
        }
    });
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).grace(AN_HOUR).start();
        let mut client = net::connect(server.addr()).expect("connecting");
        client.write_all(b"!").expect("sending");
        let mut first = [0; 1024];
        client.read_exact(&mut first).expect("the first of what the upstream sends");
        server.signal(Signal::TERM);
        let mut digest = digest::Digest::new();
        digest.update(&first);
        let mut block = vec![0; 64 * 1024];
        loop {
            match client.read(&mut block).expect("reading on") {
                0 => break,
                n => digest.update(&block[..n]),
            }
        }
        assert_eq!(digest.sum(), annulus_integration_tests::pattern::Pattern::sum(7, LEN), "by {road}");
        drop(client);
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
}

#[test]
fn a_second_signal_cuts_relays() {
    let upstream = Upstream::echo();
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).grace(AN_HOUR).start();
        let mut client = net::connect(server.addr()).expect("connecting");
        client.write_all(b"hello").expect("sending");
        let mut back = [0; 5];
        client.read_exact(&mut back).expect("the echo");
        server.signal(Signal::TERM);
        server.signal(Signal::INT);
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "by {road}: {ended:#?}");
        match client.read(&mut back) {
            Ok(0) => {}
            Ok(n) => panic!("{n} bytes from nowhere"),
            Err(e) => assert!(net::is_gone(&e), "by {road}: {e}"),
        }
    }
}

#[test]
fn signals_while_clients_come_and_go_end_it_with_0() {
    let (tree, small, _) = files::small_and_large();
    for _ in 0..5 {
        let server = Launch::serve(tree.root()).grace(AN_HOUR).start();
        let addr = server.addr();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Until the server refuses: each connection ends as the server's end wants it.
                    while let Ok(stream) = net::connect(addr) {
                        let mut client = Client::over(stream);
                        while client.try_get(&small.path).is_ok() {}
                    }
                });
            }
            assert_eq!(curl::status(&[], &server.url(&small.path)), 200);
            server.signal(Signal::TERM);
            let ended = server.wait();
            assert_eq!(ended.code(), 0, "{ended:#?}");
        });
    }
}

#[test]
fn sigusr1_prints_the_counters_and_ends_nothing() {
    let (tree, small, _) = files::small_and_large();
    let mut server = Launch::serve(tree.root()).start();
    let mut client = idle(&server, &small);
    for _ in 0..3 {
        server.signal(Signal::USR1);
    }
    let line = server
        .err()
        .wait_for("a line of counters", |line| line.contains("file_bytes_ring=").then(|| line.to_owned()));
    assert!(line.is_some(), "the server ended");
    assert_eq!(client.get(&small.path).head.status, 200, "the connection is still there");
    server.must_live();
    server.stop();
}

#[test]
fn options_that_trade_cpu_time_and_latency_are_in_force_and_serve_all_the_same() {
    let (tree, small, large) = files::small_and_large();
    let cpu = cpus::allowed()[0].to_string();
    let asked = [
        ["--spin", "50", "--sqpoll", "1", "--sqpoll-cpus", &cpu],
        ["--busy-poll", "20", "--min-wait", "40", "--min-wait-for", "9"],
    ];
    let server = Launch::serve(tree.root()).cores(&cpu).args(asked[0]).args(asked[1]).start();
    drop(idle(&server, &small));
    assert_eq!(curl::sum(&server.url(&large.path)), large.sum);
    server.signal(Signal::USR1);
    let options = "options: spin 50 us, sqpoll 1 ms, busy_poll 20 us, min_wait 40 us for 9 completions";
    let line = server.err().wait_for("the options", |line| line.contains(options).then(|| line.to_owned()));
    let line = line.expect("the server ended");
    assert!(line.contains(&format!("polled from CPU {cpu}")), "{line}");
    server.stop();
}
