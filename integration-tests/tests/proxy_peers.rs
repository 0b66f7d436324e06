//! `annulus proxy` between the servers and the tools of others: nginx, HAProxy, Redis and PostgreSQL, behind
//! it and before it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use annulus_integration_tests::files::{Sample, Tree};
use annulus_integration_tests::peers::{self, Peer};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{curl, digest, net, watch};

const ROADS: [&str; 2] = ["ring", "inline"];
const MIB: u64 = 1 << 20;

/// nginx that serves the files of `tree`.
fn nginx_with(tree: &Tree) -> Peer {
    let root = tree.root().display();
    Peer::nginx(&format!("http {{ sendfile on; server {{ listen @; root {root}; }} }}"))
}

/// A small file and a large one.
fn samples(tree: &Tree) -> [Sample; 2] {
    [tree.file("small", 1000), tree.file("large", 64 * MIB)]
}

#[track_caller]
fn fetched(at: SocketAddr, samples: &[Sample], how: &str) {
    for sample in samples {
        let url = format!("http://{at}{}", sample.path);
        assert_eq!(curl::sum(&url), sample.sum, "{} {how}", sample.path);
    }
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn what_nginx_serves_comes_through() {
    if !peers::have(["nginx"]) {
        return;
    }
    let tree = Tree::new();
    let samples = samples(&tree);
    let nginx = nginx_with(&tree);
    for road in ROADS {
        let proxy = Launch::proxy(nginx.addr()).road(road).start();
        fetched(proxy.addr(), &samples, road);
        proxy.stop();
    }
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn haproxy_and_nginx_relay_to_it() {
    if !peers::have(["nginx", "haproxy"]) {
        return;
    }
    let tree = Tree::new();
    let samples = samples(&tree);
    let nginx = nginx_with(&tree);
    let proxy = Launch::proxy(nginx.addr()).start();
    let to = proxy.addr();
    let haproxy = Peer::haproxy(&format!("listen l\n mode tcp\n bind @\n server s {to}\n"));
    fetched(haproxy.addr(), &samples, "by HAProxy");
    let before = Peer::nginx(&format!("stream {{ server {{ listen @; proxy_pass {to}; }} }}"));
    fetched(before.addr(), &samples, "by nginx");
    drop((haproxy, before));
    proxy.stop();
}

/// Asks `server`, behind which somebody answers with the client that it was told of; and our own address.
#[track_caller]
fn told_client(server: &Server) -> (String, String) {
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asking");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the answer");
    let body = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}")).1;
    (body.trim().to_owned(), client.local_addr().expect("our address").to_string())
}

/// Seen to fail: with the ports of a header in the other order.
#[test]
fn nginx_and_haproxy_read_our_headers() {
    if !peers::have(["nginx", "haproxy"]) {
        return;
    }
    let nginx = Peer::nginx(
        "http { server { listen @ proxy_protocol; \
         location / { return 200 $proxy_protocol_addr:$proxy_protocol_port; } } }",
    );
    let haproxy = Peer::haproxy(
        "frontend f\n mode http\n bind @ accept-proxy\n \
         http-request return status 200 content-type text/plain lf-string %[src]:%[src_port]\n",
    );
    for version in ["v1", "v2"] {
        for (name, at) in [("nginx", nginx.addr()), ("HAProxy", haproxy.addr())] {
            let proxy = Launch::proxy(at).args(["--send-proxy", version]).start();
            let (told, ours) = told_client(&proxy);
            assert_eq!(told, ours, "{name}, {version}");
            proxy.stop();
        }
    }
}

/// An upstream that tells the first line that each connection brings.
fn first_lines() -> (Upstream, Receiver<String>) {
    let (tell, told) = channel();
    let upstream = Upstream::start(move |mut stream| {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.last() != Some(&b'\n') && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            line.push(byte[0]);
        }
        let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
        let _ = stream.write_all(b"taken");
    });
    (upstream, told)
}

/// Seen to fail: without `--proxy-protocol-from` the upstream is told of the connection of the one before.
#[test]
fn their_headers_are_read() {
    if !peers::have(["nginx", "haproxy"]) {
        return;
    }
    let (upstream, told) = first_lines();
    let proxy = Launch::proxy(upstream.addr())
        .args(["--proxy-protocol-from", "127.0.0.0/8", "--send-proxy", "v1"])
        .start();
    let to = proxy.addr();
    let haproxy = |flag| Peer::haproxy(&format!("listen l\n mode tcp\n bind @\n server s {to} {flag}\n"));
    let nginx =
        Peer::nginx(&format!("stream {{ server {{ listen @; proxy_pass {to}; proxy_protocol on; }} }}"));
    for (name, before) in [("v1", haproxy("send-proxy")), ("v2", haproxy("send-proxy-v2")), ("nginx", nginx)]
    {
        let mut client = net::connect(before.addr()).expect("connecting");
        client.write_all(b"hello").expect("sending");
        client.read_exact(&mut [0; 5]).expect("the upstream's word");
        let ours = client.local_addr().expect("our address");
        // Whoever looked whether the server listens yet was relayed too.
        let is_ours = |line: &String| line.contains(&format!(" {} ", ours.port()));
        let next = || told.recv_timeout(watch::LIMIT).expect("the upstream's first line");
        let line = std::iter::repeat_with(next).find(is_ours).expect("it goes on for ever");
        let due = format!("PROXY TCP4 {} 127.0.0.1 {} {}\r\n", ours.ip(), ours.port(), to.port());
        assert_eq!(line, due, "{name}");
    }
    proxy.stop();
}

/// Small questions one by one and in batches, large values, and each on a connection of its own.
///
/// Seen to fail: with the first byte of a burst changed.
#[test]
fn redis_is_asked_through_it() {
    if !peers::have(["redis-server", "redis-benchmark"]) {
        return;
    }
    let redis = Peer::redis();
    for road in ROADS {
        let proxy = Launch::proxy(redis.addr()).road(road).start();
        let port = proxy.port().to_string();
        for (tests, n, size, clients, pipeline, keep) in [
            ("ping,set,get,lpush,lpop", "5000", "3", "50", "1", "1"),
            ("ping,set,get", "20000", "100", "20", "16", "1"),
            ("set,get", "500", "300000", "10", "1", "1"),
            ("ping,set", "500", "3", "20", "1", "0"),
        ] {
            let said = peers::tool(
                "redis-benchmark",
                &[
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-q",
                    "-t",
                    tests,
                    "-n",
                    n,
                    "-d",
                    size,
                    "-c",
                    clients,
                    "-P",
                    pipeline,
                    "-k",
                    keep,
                ],
            );
            assert!(said.contains("requests per second"), "{said}");
            assert!(!said.to_lowercase().contains("error"), "{said}");
        }
        proxy.stop();
    }
}

/// Transactions on connections that stay, and each on one of its own; what is written is there.
///
/// Seen to fail: with the first byte of a burst changed.
#[test]
fn postgresql_is_asked_through_it() {
    if !peers::have(["initdb", "postgres", "pgbench", "psql"]) {
        return;
    }
    let postgres = Peer::postgres();
    for road in ROADS {
        let proxy = Launch::proxy(postgres.addr()).road(road).start();
        let port = proxy.port().to_string();
        let at = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"];
        let with = |tool, flags: &[&str]| {
            let words: Vec<&str> = flags.iter().chain(&at).copied().collect();
            peers::tool(tool, &words)
        };
        with("pgbench", &["-i", "-q", "-s", "1"]);
        for (flags, due) in [
            (&["-n", "-c", "8", "-j", "2", "-t", "50"][..], "400/400"),
            (&["-n", "-C", "-c", "4", "-t", "10"][..], "40/40"),
        ] {
            let said = with("pgbench", flags);
            assert!(said.contains(&format!("transactions actually processed: {due}")), "{said}");
            assert!(said.contains("failed transactions: 0 "), "{said}");
        }
        let said = with("psql", &["-At", "-c", "select count(*) from pgbench_history"]);
        assert_eq!(said.trim(), "440");
        // An answer of some MiB in one go.
        let said = with("psql", &["-At", "-c", "select repeat('x', 20000000)"]);
        assert_eq!(digest::of(said.trim_end().as_bytes()), digest::of(&vec![b'x'; 20_000_000]), "{road}");
        proxy.stop();
    }
}
