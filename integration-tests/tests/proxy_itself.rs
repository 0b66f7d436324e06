//! `annulus proxy` to a port of its own machine that nobody listens on: TCP lets the two ends of one socket
//! meet there (simultaneous open, RFC 9293 section 3.5).

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;

use annulus_integration_tests::server::Launch;
use annulus_integration_tests::{files, watch};

/// The one port that a connection may have at this end.
const PORT: &str = "40001";

/// A network of its own in which the kernel has that port only to give. Then it gives it each time to whoever
/// connects.
const ONE_PORT: &str =
    "ip link set lo up && echo 40001 40001 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";

const IN_IT: [&str; 5] = ["unshare", "-rn", "sh", "-c", ONE_PORT];

/// Whether this machine lets us have such a network, and `ip(8)` is there.
fn can() -> bool {
    let tried = Command::new(IN_IT[0]).args(&IN_IT[1..]).args(["sh", "true"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// Seen to fail: without the look at both ends of a new connection the client is given its own bytes back.
#[test]
fn no_client_is_given_its_own_bytes_and_the_upstream_can_start() {
    if !can() {
        println!("no network namespace with one port here");
        return;
    }
    let dir = files::Tree::new();
    let socket = dir.at("proxy");
    let unix = format!("unix:{}", socket.display());
    let to = format!("127.0.0.1:{PORT}");
    let wrapper: Vec<_> = IN_IT.into_iter().chain(["sh"]).collect();
    let proxy =
        Launch::new().arg("proxy").args(["--to", &to, "--processes", "one", "--listen", "127.0.0.1:5000"]);
    let proxy = proxy.arg("--listen").arg(&unix).under(&wrapper).start();
    for _ in 0..3 {
        let mut client = UnixStream::connect(&socket).expect("the proxy listens");
        client.set_read_timeout(Some(watch::LIMIT)).expect("a read timeout");
        // It may have been given up by now.
        let _ = std::io::Write::write_all(&mut client, b"my own bytes");
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert!(got.is_empty(), "its own bytes: {got:?}");
    }
    // One more that waits while the upstream starts.
    let _client = UnixStream::connect(&socket).expect("the proxy listens");
    let pid = proxy.pid().to_string();
    let beside = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", &pid];
    let upstream = Launch::serve(dir.root()).listen(&to).under(&beside).start();
    assert_eq!(upstream.addr().to_string(), to);
    upstream.stop();
    proxy.stop();
}
