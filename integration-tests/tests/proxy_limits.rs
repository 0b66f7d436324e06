//! `annulus proxy`: no connection without an end, none that takes the place of others, and none that hides
//! how it was ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;

use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{net, procfs, watch};
use rustix::process::Signal;

const ROADS: [&str; 2] = ["ring", "inline"];

/// Reads to the end: what came, and whether the end was a reset.
fn read_to_end(mut stream: &TcpStream) -> (usize, bool) {
    let (mut total, mut piece) = (0, [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (total, false),
            Ok(n) => total += n,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return (total, true),
            Err(e) => panic!("after {total} bytes: {e}"),
        }
    }
}

/// A new connection is reset, be it before the client knows that it has one.
#[track_caller]
fn next_is_reset(server: &Server) {
    match net::connect(server.addr()) {
        Ok(stream) => is_reset(&stream),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
    }
}

#[track_caller]
fn is_reset(stream: &TcpStream) {
    assert_eq!(read_to_end(stream), (0, true), "a reset, and nothing before it");
}

/// An upstream that says hello, and then how its connection ended.
fn silent() -> (Upstream, std::sync::mpsc::Receiver<bool>) {
    let (tell, told) = channel();
    let upstream = Upstream::start(move |mut stream| {
        stream.write_all(b"hello").expect("the upstream greets");
        let _ = tell.send(read_to_end(&stream).1);
    });
    (upstream, told)
}

#[track_caller]
fn greeted(server: &Server) -> TcpStream {
    let mut client = net::connect(server.addr()).expect("connecting");
    client.read_exact(&mut [0; 5]).expect("the greeting");
    client
}

/// Seen to fail: with plain closes both sides find an end.
#[test]
fn deadlines_end_connections_by_a_reset_of_both_sides() {
    for road in ROADS {
        let (upstream, told) = silent();
        for flag in ["--idle-timeout", "--lifetime"] {
            let server = Launch::proxy(upstream.addr()).road(road).args([flag, "1"]).start();
            is_reset(&greeted(&server));
            assert!(told.recv_timeout(watch::LIMIT).expect("its end"), "the upstream too, by {flag}");
            server.stop();
        }
        // Both end in order before any deadline.
        let server = Launch::proxy(upstream.addr()).road(road).args(["--half-closed-timeout", "600"]).start();
        let client = greeted(&server);
        client.shutdown(Shutdown::Write).expect("ending our side");
        assert_eq!(read_to_end(&client), (0, false));
        assert!(!told.recv_timeout(watch::LIMIT).expect("its end"));
        server.stop();
    }
}

/// Seen to fail: with the idle time for it too.
#[test]
fn a_half_closed_connection_has_a_deadline_of_its_own() {
    // It takes the end, and neither answers nor closes.
    let (keep, kept) = channel();
    let upstream = Upstream::start(move |mut stream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let _ = keep.send(stream);
    });
    let server = Launch::proxy(upstream.addr()).args(["--half-closed-timeout", "1"]).start();
    let client = net::connect(server.addr()).expect("connecting");
    client.shutdown(Shutdown::Write).expect("ending our side");
    is_reset(&client);
    drop(kept);
    server.stop();
}

/// What has no room at a client that never reads waits at the upstream, and the idle time is over for both.
///
/// Seen to fail, by the watchdog: with idle time that begins anew at each look.
#[test]
fn a_client_that_never_reads_is_idle() {
    for road in ROADS {
        let (tell, told) = channel();
        let upstream = Upstream::start(move |mut stream| {
            let block = vec![7; 64 << 10];
            let refused = loop {
                if let Err(e) = stream.write_all(&block) {
                    break e;
                }
            };
            let _ = tell.send(net::is_gone(&refused));
        });
        let server = Launch::proxy(upstream.addr()).road(road).args(["--idle-timeout", "1"]).start();
        let client = net::connect(server.addr()).expect("connecting");
        assert!(told.recv_timeout(watch::LIMIT).expect("its end"), "the upstream is reset, by {road}");
        let (came, is_reset) = read_to_end(&client);
        assert!(came > 0 && is_reset, "{came} bytes by {road}");
        server.stop();
    }
}

/// Seen to fail: without the look at the rate.
#[test]
fn what_drips_is_too_slow() {
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr()).args(["--min-rate", "1000"]).start();
    let mut client = net::connect(server.addr()).expect("connecting");
    client.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a time-out");
    let begun = std::time::Instant::now();
    // A byte now and then, until it is refused.
    loop {
        assert!(begun.elapsed() < watch::LIMIT, "it drips for ever");
        if let Err(e) = client.write_all(b"x") {
            assert!(net::is_gone(&e), "{e}");
            break;
        }
        match client.read(&mut [0; 16]) {
            Ok(n) => assert!(n > 0, "an end that looks like success"),
            Err(e) if net::is_gone(&e) => break,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    server.stop();
}

/// Seen to fail: with connections that are merely dropped at the end.
#[test]
fn the_end_of_the_program_cuts_by_resets() {
    for road in ROADS {
        // Of two that are alike the second may be lost.
        for (grace, signals) in [(1, &[Signal::TERM][..]), (600, &[Signal::TERM, Signal::INT])] {
            let (upstream, told) = silent();
            let server = Launch::proxy(upstream.addr()).road(road).grace(grace).start();
            let client = greeted(&server);
            for signal in signals {
                server.signal(*signal);
            }
            is_reset(&client);
            assert!(told.recv_timeout(watch::LIMIT).expect("its end"), "the upstream is reset");
            assert_eq!(server.wait().code(), 0);
        }
    }
}

/// Seen to fail: with a client that is closed in place of reset.
#[test]
fn without_an_upstream_the_client_is_reset() {
    let server = Launch::proxy(net::free_addr()).start();
    for _ in 0..5 {
        next_is_reset(&server);
    }
    server.stop();
}

/// A listener whose backlog is full: what connects to it is not answered.
fn deaf_listener() -> (TcpListener, Vec<TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(net::own_loopback(), 0)).expect("binding");
    listen(&socket, 0).expect("listening");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("its address");
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)) {
        fill.push(stream);
    }
    (listener, fill)
}

/// Seen to fail: without the look-out the attempt goes on for the minute that it may take.
#[test]
fn a_client_that_goes_ends_the_attempt_and_one_that_has_sent_its_end_waits() {
    let (deaf, _fill) = deaf_listener();
    let to = deaf.local_addr().expect("its address");
    let server = Launch::proxy(to).args(["--connect-timeout", "3600"]).start();
    let before = procfs::sockets(server.pid());
    let gone = net::connect(server.addr()).expect("connecting");
    let waits = net::connect(server.addr()).expect("connecting");
    waits.shutdown(Shutdown::Write).expect("ending our side");
    watch::until("both attempts are made", || (procfs::sockets(server.pid()) == before + 4).then_some(()));
    net::reset(gone);
    watch::until("one has ended", || (procfs::sockets(server.pid()) == before + 2).then_some(()));
    // The other one goes on: there is no end to be found yet.
    waits.set_nonblocking(true).expect("a socket");
    let e = (&waits).read(&mut [0]).expect_err("nothing is there");
    assert_eq!(e.kind(), ErrorKind::WouldBlock);
    // Also after its end a reset is noticed.
    net::reset(waits);
    watch::until("the other has ended", || (procfs::sockets(server.pid()) == before).then_some(()));
    server.stop();
}

/// Seen to fail: with a client that is closed in place of reset.
#[test]
fn an_upstream_that_does_not_answer_is_given_up() {
    let (deaf, _fill) = deaf_listener();
    let to = deaf.local_addr().expect("its address");
    let server = Launch::proxy(to).args(["--connect-timeout", "1"]).start();
    next_is_reset(&server);
    let line = server
        .err()
        .wait_for("the line about it", |line| line.contains("does not answer").then(|| line.to_owned()));
    assert!(line.expect("the server lives").contains(&to.to_string()));
    server.stop();
}

/// Seen to fail: with ports that are never the same.
#[test]
fn a_relay_is_not_its_own_upstream() {
    let port = net::free_addr().port();
    let to = format!("127.0.0.1:{port}");
    let name = format!("localhost:{port}");
    for (listen, to) in [
        (to.as_str(), to.as_str()),
        (&format!("0.0.0.0:{port}"), &to),
        (&format!(":{port}"), &to),
        (&to, &format!("0.0.0.0:{port}")),
        (&to, &name),
    ] {
        let ended = Launch::new().args(["proxy", "--to", to]).listen(listen).processes("one").run();
        let line = ended.one_line(2);
        assert!(line.contains("its own upstream"), "{listen} to {to}: {line}");
    }
}

/// Seen to fail: with a place for everyone, and with as many for each client as it wants.
#[test]
fn connections_past_the_limits_wait_or_are_reset() {
    let upstream = Upstream::echo();
    let asked = |client: &mut TcpStream| {
        client.write_all(b"?").expect("asking");
        client.read_exact(&mut [0]).expect("the answer");
    };
    for flag in ["--max-connections", "--max-connections-per-core"] {
        let server = Launch::proxy(upstream.addr()).cores("0").args([flag, "2"]).start();
        let mut clients: Vec<TcpStream> =
            (0..4).map(|_| net::connect(server.addr()).expect("connecting")).collect();
        for client in &mut clients[..2] {
            asked(client);
        }
        // The others have connected as far as they know, and nobody reads what they say.
        clients[2].write_all(b"?").expect("asking");
        clients[2].set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a time-out");
        assert_eq!(clients[2].read(&mut [0]).expect_err("it waits").kind(), ErrorKind::WouldBlock);
        clients[2].set_read_timeout(Some(watch::LIMIT)).expect("a time-out");
        drop(clients.remove(0));
        clients[1].read_exact(&mut [0]).expect("now it is served");
        drop(clients.remove(0));
        asked(&mut clients[1]);
        drop(clients);
        server.stop();
    }
    let server = Launch::proxy(upstream.addr()).args(["--max-connections-per-client", "1"]).start();
    let mut first = net::connect(server.addr()).expect("connecting");
    asked(&mut first);
    next_is_reset(&server);
    drop(first);
    watch::until("the place is free again", || {
        let mut client = net::connect(server.addr()).ok()?;
        (client.write_all(b"?").is_ok() && client.read_exact(&mut [0]).is_ok()).then_some(())
    });
    server.stop();
}

/// Seen to fail: without the comparison the relay starts.
#[test]
fn a_user_timeout_below_the_idle_timeout_is_refused() {
    let launch = || Launch::proxy(net::free_addr());
    let ended = launch().args(["--user-timeout", "10"]).run();
    assert!(ended.one_line(2).contains("--idle-timeout"));
    launch().args(["--user-timeout", "600"]).start().stop();
}

/// The kernel is told of both sides.
///
/// Seen to fail: without the call for the upstream.
#[test]
fn keepalive_is_on_for_both_sides() {
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr()).start();
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(b"?").expect("asking");
    client.read_exact(&mut [0]).expect("the answer");
    let has_keepalive = |found: Vec<procfs::Tcp>| found.len() == 1 && found[0].has_keepalive;
    watch::until("nothing is under way, and keepalive waits", || {
        let ours = procfs::tcp(|it| it.local.port() == server.port());
        let upstreams = procfs::tcp(|it| it.remote == upstream.addr());
        (has_keepalive(ours) && has_keepalive(upstreams)).then_some(())
    });
    drop(client);
    server.stop();
}
