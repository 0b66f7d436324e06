//! `annulus proxy`: what upstreams learn of the client, and TLS by server name.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{net, watch};

/// An upstream that says its letter, and tells where each connection came from and what it got.
fn telling(letter: u8) -> (Upstream, Receiver<(SocketAddr, Vec<u8>)>) {
    let (tell, told) = channel();
    let upstream = Upstream::start(move |mut stream| {
        let peer = stream.peer_addr().expect("its peer");
        let mut got = Vec::new();
        if stream.write_all(&[letter]).is_ok() && stream.read_to_end(&mut got).is_ok() {
            let _ = tell.send((peer, got));
        }
    });
    (upstream, told)
}

#[track_caller]
fn exchange(server: &Server, sends: &[u8]) -> (SocketAddr, u8) {
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(sends).expect("sending");
    client.shutdown(std::net::Shutdown::Write).expect("ending our side");
    let mut letter = [0];
    client.read_exact(&mut letter).expect("an upstream's letter");
    (client.local_addr().expect("our address"), letter[0])
}

/// Seen to fail: without the header.
#[test]
fn upstreams_are_told_who_the_client_is() {
    let (upstream, told) = telling(b'a');
    for version in ["v1", "v2"] {
        let server = Launch::proxy(upstream.addr()).args(["--send-proxy", version]).start();
        for sends in [&b"hello"[..], b""] {
            let (client, _) = exchange(&server, sends);
            let (_, got) = told.recv_timeout(watch::LIMIT).expect("what the upstream got");
            let mut due = match version {
                "v1" => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.port(), server.port())
                    .into_bytes(),
                _ => {
                    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                    header.extend(client.port().to_be_bytes());
                    header.extend(server.port().to_be_bytes());
                    header
                }
            };
            due.extend(sends);
            assert_eq!(got, due, "{version}");
        }
        server.stop();
    }
}

/// A ClientHello for `name`, as small as it may be (RFC 8446, 4.1.2; RFC 6066, 3).
fn client_hello(name: &str) -> Vec<u8> {
    let with_length =
        |n: usize, content: &[u8]| [&(content.len() as u32).to_be_bytes()[4 - n..], content].concat();
    let entry = [&[0][..], &with_length(2, name.as_bytes())].concat();
    let extensions = [&[0, 0][..], &with_length(2, &with_length(2, &entry))].concat();
    let body =
        [&[3, 3][..], &[1; 32], &[0], &with_length(2, &[0x13, 1]), &[1, 0], &with_length(2, &extensions)]
            .concat();
    let message = [&[1][..], &with_length(3, &body)].concat();
    [&[22, 3, 1][..], &with_length(2, &message)].concat()
}

/// Seen to fail: with the name looked for in the first segment only.
#[test]
fn tls_goes_where_its_name_says_untouched() {
    let [(a, got_a), (b, got_b), (rest, got_rest)] = [b'a', b'b', b'r'].map(telling);
    let server = Launch::proxy(rest.addr())
        .arg("--sni")
        .arg(format!("a.example={}", a.addr()))
        .arg("--sni")
        .arg(format!("*.example={}", b.addr()))
        .start();
    for (name, letter, got) in [
        ("a.example", b'a', &got_a),
        ("A.Example", b'a', &got_a),
        ("x.example", b'b', &got_b),
        ("other", b'r', &got_rest),
    ] {
        let sends = [client_hello(name), b"more".to_vec()].concat();
        assert_eq!(exchange(&server, &sends).1, letter, "{name}");
        assert_eq!(got.recv_timeout(watch::LIMIT).expect("what came").1, sends, "{name}");
    }
    // A byte at a time.
    let sends = client_hello("x.example");
    let mut client = net::connect(server.addr()).expect("connecting");
    for byte in &sends {
        client.write_all(&[*byte]).expect("sending");
        std::thread::yield_now();
    }
    client.read_exact(&mut [0]).expect("the letter");
    drop(client);
    assert_eq!(got_b.recv_timeout(watch::LIMIT).expect("what came").1, sends);
    // No TLS, and nothing at all.
    for sends in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"\x16\x03"] {
        assert_eq!(exchange(&server, sends).1, b'r');
        assert_eq!(got_rest.recv_timeout(watch::LIMIT).expect("what came").1, sends);
    }
    server.stop();
}

/// Seen to fail: with `--sni-only` that is not looked at, and with clients that are closed in place of reset.
#[test]
fn names_that_nobody_has_are_refused_where_asked() {
    let [(a, _got_a), (rest, _got_rest)] = [b'a', b'r'].map(telling);
    let launch = Launch::proxy(rest.addr())
        .arg("--sni")
        .arg(format!("a.example={}", a.addr()))
        .args(["--sni-only", "--sni-timeout"]);
    let server = launch.clone().arg("600").start();
    assert_eq!(exchange(&server, &client_hello("a.example")).1, b'a');
    server.stop();
    let server = launch.arg("1").start();
    let is_reset = |mut client: TcpStream| {
        assert_eq!(client.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    };
    for sends in
        [client_hello("b.example"), b"SSH-2.0-x\r\n".to_vec(), client_hello("a.example")[..9].to_vec()]
    {
        let mut client = net::connect(server.addr()).expect("connecting");
        match client.write_all(&sends) {
            Ok(()) => is_reset(client),
            // It came so late that the relay waited no more.
            Err(e) => assert!(net::is_gone(&e), "sending: {e}"),
        }
    }
    server.stop();
}

/// Seen to fail: with connections from any address.
#[test]
fn connections_come_from_the_address_that_was_named() {
    let (upstream, told) = telling(b'a');
    let from = Ipv4Addr::new(127, 0, 0, 9);
    let server = Launch::proxy(upstream.addr()).arg("--source").arg(from.to_string()).start();
    exchange(&server, b"");
    assert_eq!(told.recv_timeout(watch::LIMIT).expect("its peer").0.ip(), from);
    server.stop();
    // The client's own takes a privilege; without it the client is reset, and a line says why.
    let server = Launch::proxy(upstream.addr()).args(["--source", "client"]).start();
    let asked = net::connect(server.addr()).and_then(|mut client| client.read_exact(&mut [0]));
    match asked {
        Ok(()) => {
            assert_eq!(told.recv_timeout(watch::LIMIT).expect("its peer").0.ip(), Ipv4Addr::LOCALHOST);
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::ConnectionReset);
            let why = |line: &str| line.contains("another machine").then_some(());
            server.err().wait_for("the reason", why).expect("it lives");
        }
    }
    server.stop();
}
