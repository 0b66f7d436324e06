//! Whom connections and requests come from: PROXY headers, fields of HTTP proxies, lists of networks.

use annulus_integration_tests::files::{Sample, Tree};
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Ended, Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{curl, net};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

fn tree() -> (Tree, Sample) {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 1000);
    (tree, sample)
}

/// A server of files with these flags, and its access log on standard output.
fn serve(tree: &Tree, flags: &[&str]) -> Server {
    let launch = Launch::serve(tree.root()).args(["--access-log", "-", "-v"]);
    flags.iter().fold(launch, |launch, flag| launch.arg(flag)).start()
}

/// What a raw client gets for these bytes, up to the end of the connection.
fn said(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    // A reset is an answer too: of a connection that is closed with bytes unread, or at once.
    if let Some(mut stream) = net::connect_unless_reset(addr) {
        match stream.write_all(bytes) {
            Ok(()) => drop(stream.read_to_end(&mut answer)),
            Err(e) => assert!(net::is_gone(&e), "sending: {e}"),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The clients of the access log, sorted: cores write their lines in any order.
fn clients(ended: &Ended) -> Vec<&str> {
    let mut clients: Vec<&str> = ended.out.iter().filter_map(|line| line.split(' ').next()).collect();
    clients.sort_unstable();
    clients
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

const GET: &str = "GET /file.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

const V2: [u8; 28] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12, 192, 0, 2, 7, 10,
    0, 0, 1, 0x1f, 0x90, 0, 80,
];

#[test]
fn a_proxy_header_names_the_client() {
    let (tree, _) = tree();
    let server = serve(&tree, &["--proxy-protocol-from", "127.0.0.0/8"]);
    let v1 = format!("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n{GET}");
    assert_eq!(status(&said(server.addr(), v1.as_bytes())), "200");
    let v2 = [&V2[..], GET.as_bytes()].concat();
    assert_eq!(status(&said(server.addr(), &v2)), "200");
    let v6 = format!("PROXY TCP6 2001:db8::1 ::1 5000 80\r\n{GET}");
    assert_eq!(status(&said(server.addr(), v6.as_bytes())), "200");
    let unknown = format!("PROXY UNKNOWN\r\n{GET}");
    assert_eq!(status(&said(server.addr(), unknown.as_bytes())), "200");
    // Who is to send one and does not is not served: anybody could say anything then.
    assert_eq!(said(server.addr(), GET.as_bytes()), "");
    assert_eq!(said(server.addr(), b"PROXY TCP4 1.2.3.4\r\n"), "");
    let ended = server.stop();
    let clients = clients(&ended);
    assert_eq!(clients, ["127.0.0.1", "192.0.2.1", "192.0.2.7", "2001:db8::1"], "{ended:#?}");
}

/// Header and request in as many pieces as there are bytes.
#[test]
fn a_proxy_header_may_come_byte_by_byte() {
    let (tree, _) = tree();
    let server = serve(&tree, &["--proxy-protocol-from", "127.0.0.1"]);
    for header in [b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n".to_vec(), V2.to_vec()] {
        let mut stream = TcpStream::connect(server.addr()).expect("connecting");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        for byte in header.iter().chain(GET.as_bytes()) {
            stream.write_all(&[*byte]).expect("sending");
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    server.stop();
}

/// From a network that is not trusted a header is what it is: no HTTP.
#[test]
fn a_proxy_header_of_somebody_else_is_not_believed() {
    let (tree, _) = tree();
    let server = serve(&tree, &["--proxy-protocol-from", "10.0.0.0/8"]);
    let v1 = format!("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n{GET}");
    assert_eq!(status(&said(server.addr(), v1.as_bytes())), "400");
    assert_eq!(status(&said(server.addr(), GET.as_bytes())), "200");
    let ended = server.stop();
    assert!(ended.out.iter().all(|line| line.starts_with("127.0.0.1 ")), "{ended:#?}");
}

#[test]
fn a_relay_hands_on_what_stands_behind_a_proxy_header() {
    let upstream = Upstream::echo();
    let launch =
        Launch::proxy(upstream.addr()).args(["--proxy-protocol-from", "127.0.0.0/8", "--access-log", "-"]);
    let server = launch.start();
    let mut stream = TcpStream::connect(server.addr()).expect("connecting");
    stream.write_all(&[&V2[..], b"first"].concat()).expect("sending");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("an answer");
    assert_eq!(&back, b"first");
    stream.write_all(b"second").expect("sending");
    let mut back = [0; 6];
    stream.read_exact(&mut back).expect("an answer");
    assert_eq!(&back, b"second");
    drop(stream);
    let ended = server.stop();
    assert!(ended.out[0].starts_with("192.0.2.7"), "{ended:#?}");
}

#[test]
fn lists_say_who_may_come() {
    let (tree, sample) = tree();
    for (flags, comes) in [
        (&["--allow", "127.0.0.0/8"][..], true),
        (&["--allow", "10.0.0.0/8"], false),
        (&["--deny", "127.0.0.1"], false),
        (&["--allow", "127.0.0.0/8", "--deny", "127.0.0.1"], false),
        (&["--deny", "10.0.0.0/8", "--deny", "::1"], true),
    ] {
        let server = serve(&tree, flags);
        if comes {
            assert_eq!(Client::connect(server.addr()).get(&sample.path).head.status, 200, "{flags:?}");
        } else {
            assert_eq!(said(server.addr(), GET.as_bytes()), "", "{flags:?}");
            server
                .err()
                .wait_for("why", |line| line.contains("do not allow it").then_some(()))
                .expect("a line");
        }
        server.stop();
    }
    // They judge the client that a trusted proxy names, and not the proxy.
    let flags = ["--proxy-protocol-from", "127.0.0.1", "--allow", "192.0.2.0/24"];
    let server = serve(&tree, &flags);
    let from = |ip: &str| format!("PROXY TCP4 {ip} 10.0.0.1 5000 80\r\n{GET}");
    assert_eq!(status(&said(server.addr(), from("192.0.2.1").as_bytes())), "200");
    assert_eq!(said(server.addr(), from("192.0.3.1").as_bytes()), "");
    server.stop();
}

#[test]
fn requests_of_a_trusted_proxy_name_the_client() {
    let (tree, sample) = tree();
    let flags = ["--forwarded-from", "127.0.0.0/8", "--deny", "192.0.2.66"];
    let server = serve(&tree, &flags);
    let url = server.url(&sample.path);
    let field = |value: &str| format!("X-Forwarded-For: {value}");
    assert_eq!(curl::status(&["-H", &field("6.6.6.6, 192.0.2.1")], &url), 200);
    assert_eq!(
        curl::status(&["-H", "X-Forwarded-For: 192.0.2.2", "-H", "Forwarded: for=6.6.6.6"], &url),
        200
    );
    assert_eq!(curl::status(&["-H", &field("192.0.2.66")], &url), 403);
    // One connection, several clients.
    let mut proxy = Client::connect(server.addr());
    for client in ["192.0.2.3", "192.0.2.4"] {
        let request = format!("GET /file.txt HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", field(client));
        proxy.send(request.into_bytes()).expect("sending");
        let head = proxy.head().expect("a head");
        assert_eq!(head.status, 200);
        proxy.body_sum(head.content_length()).expect("a body");
    }
    drop(proxy);
    let ended = server.stop();
    let clients = clients(&ended);
    assert_eq!(clients, ["127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], "{ended:#?}");
}
