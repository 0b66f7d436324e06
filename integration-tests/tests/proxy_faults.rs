//! `annulus proxy` where something is missing: ports, a resolver, an upstream that is somebody else.
//! Most of these take a network of their own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::namespace::Namespace;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::watch;

/// A proxy within `namespace` to `to`, that is reached by the Unix socket `at` from everywhere.
fn proxy(namespace: &Namespace, to: &str, at: &Path) -> Launch {
    let unix = format!("unix:{}", at.display());
    Launch::new()
        .args(["proxy", "--to", to, "--processes", "one", "--listen", "127.0.0.1:5000", "--listen", &unix])
        .under(&namespace.within())
}

/// A file server within `namespace`.
fn files(namespace: &Namespace, tree: &Tree, at: &str) -> Launch {
    Launch::serve(tree.root()).listen(at).args(["--access-log", "-"]).under(&namespace.within())
}

#[track_caller]
fn connected(at: &Path) -> UnixStream {
    let stream = UnixStream::connect(at).expect("the proxy listens");
    stream.set_read_timeout(Some(watch::LIMIT)).expect("a read timeout");
    stream.set_write_timeout(Some(watch::LIMIT)).expect("a write timeout");
    stream
}

/// The status of an answer; `None` where the connection ends without one.
fn status(mut stream: &UnixStream) -> Option<u16> {
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

#[track_caller]
fn says(server: &Server, word: &str) {
    let found = server.err().wait_for(word, |line| line.contains(word).then_some(()));
    found.unwrap_or_else(|| panic!("it ended without {word:?}"));
}

/// One port for connections to the upstream: the second client is reset, and that is not the upstream's
/// fault, so the third is served at once.
///
/// Seen to fail: with every failure to connect counted against the upstream.
#[test]
fn without_a_port_a_client_is_reset_and_the_upstream_is_not_to_blame() {
    let one_port = "echo 40001 40001 > /proc/sys/net/ipv4/ip_local_port_range";
    let Some(namespace) = Namespace::new(one_port) else { return };
    let tree = Tree::new();
    tree.file("a", 10);
    let at = tree.at("socket");
    let upstream = files(&namespace, &tree, "127.0.0.1:6000").start();
    let server = proxy(&namespace, "127.0.0.1:6000", &at).args(["--out-time", "600"]).start();
    let first = connected(&at);
    assert_eq!(status(&first), Some(200));
    assert_eq!(status(&connected(&at)), None, "there is no port for it");
    says(&server, "this machine cannot make a connection");
    // The first goes, and its port is free when the upstream has been told.
    drop(first);
    watch::until("a client is served again", || (status(&connected(&at)) == Some(200)).then_some(()));
    server.stop();
    upstream.stop();
}

/// A name that the resolver does not know about at the start, nor cannot: clients wait. It becomes known, and
/// they are served; the resolver goes, and they still are.
///
/// Seen to fail: with a failure that takes the addresses away.
#[test]
fn a_resolver_that_is_gone_costs_nobody_what_is_known() {
    let tree = Tree::new();
    tree.file("a", 10);
    let hosts = tree.at("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("a file of ours");
    let Some(namespace) = Namespace::new(&format!("mount --bind {} /etc/hosts", hosts.display())) else {
        return;
    };
    let at = tree.at("socket");
    let upstream = files(&namespace, &tree, "127.0.0.1:6000").start();
    let server = proxy(&namespace, "late.example:6000", &at)
        .args(["--resolve-interval", "1", "--queue-timeout", "80"])
        .start();
    let waits = connected(&at);
    std::fs::write(&hosts, "127.0.0.1 late.example\n").expect("a file of ours");
    assert_eq!(status(&waits), Some(200), "who has waited is served");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("a file of ours");
    says(&server, "the name is not found; its addresses stay as they were");
    assert_eq!(status(&connected(&at)), Some(200), "and who comes now");
    server.stop();
    upstream.stop();
}

/// What cannot be known at the start: the name of the upstream comes to stand for the relay itself.
#[test]
fn a_relay_that_becomes_its_own_upstream_says_so_and_resets() {
    let tree = Tree::new();
    let hosts = tree.at("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("a file of ours");
    let Some(namespace) = Namespace::new(&format!("mount --bind {} /etc/hosts", hosts.display())) else {
        return;
    };
    let at = tree.at("socket");
    let server = proxy(&namespace, "late.example:5000", &at)
        .args(["--resolve-interval", "1", "--queue-timeout", "80"])
        .start();
    let waits = connected(&at);
    std::fs::write(&hosts, "127.0.0.1 late.example\n").expect("a file of ours");
    assert_eq!(status(&waits), None, "nobody serves it");
    says(&server, "this relay is its own upstream");
    server.stop();
}

/// The upstream sees the client's own address: a privilege of whoever has the network.
///
/// Seen to fail: with connections from any address.
#[test]
fn connections_come_from_the_clients_own_address() {
    let Some(namespace) = Namespace::new("true") else { return };
    let tree = Tree::new();
    tree.file("a", 10);
    let at = tree.at("socket");
    let upstream = files(&namespace, &tree, "127.0.0.1:6000").start();
    let server = proxy(&namespace, "127.0.0.1:6000", &at).args(["--source", "client"]).start();
    let (is_well, said) =
        namespace.run(&["curl", "-qsS", "--fail", "--interface", "127.0.0.77", "http://127.0.0.1:5000/a"]);
    assert!(is_well, "{said}");
    server.stop();
    let ended = upstream.stop();
    assert!(ended.out.iter().any(|line| line.starts_with("127.0.0.77 ")), "{ended:#?}");
}
