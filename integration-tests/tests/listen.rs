//! Where the program listens, what it says about it, and which addresses it refuses.

use annulus_integration_tests::files::{Sample, Tree};
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Ended, Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, curl, net, peers, procfs, stats};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::channel;

fn tree() -> (Tree, Sample) {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 1000);
    (tree, sample)
}

/// Whether a line holds something that a program waiting for an address would take for one.
fn has_address(line: &str) -> bool {
    line.contains("://")
        || line.split(|c: char| c.is_whitespace() || ",;()'\"`".contains(c)).any(|word| {
            word.trim_end_matches(['.', '/']).parse::<SocketAddr>().is_ok() || word.starts_with("localhost:")
        })
}

/// The rules for the listening line, over all that a server said on standard error.
#[track_caller]
fn one_listening_line(ended: &Ended, line: &str) {
    let listening: Vec<&String> = ended.err.iter().filter(|line| line.contains("listening on")).collect();
    assert_eq!(listening, [line], "exactly one listening line: {ended:#?}");
    let before = ended.err.iter().take_while(|other| *other != line);
    for earlier in before.chain(&ended.out) {
        assert!(!has_address(earlier), "an address before the listening line: {earlier:?} in {ended:#?}");
    }
}

#[test]
fn serve_says_where_in_one_plain_line() {
    let (tree, sample) = tree();
    let server = Launch::serve(tree.root()).start();
    let line = server.line().to_owned();
    assert_eq!(line, format!("annulus: listening on http://127.0.0.1:{}", server.port()));
    assert_ne!(server.port(), 0);
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    one_listening_line(&server.stop(), &line);
}

#[test]
fn proxy_says_where_and_to_whom_in_one_plain_line() {
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr()).start();
    let line = server.line().to_owned();
    assert_eq!(
        line,
        format!("annulus: listening on 127.0.0.1:{}, relaying to {}", server.port(), upstream.addr())
    );
    one_listening_line(&server.stop(), &line);
}

/// The line is a promise: whoever connects after it is served.
#[test]
fn every_core_accepts_when_the_line_is_there() {
    let (tree, sample) = tree();
    for _ in 0..10 {
        let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::two())).start();
        assert_eq!(procfs::listeners(server.port()), cpus::two().len(), "one listener for each core");
        let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(server.addr())).collect();
        for client in &mut clients {
            assert_eq!(client.get(&sample.path).head.status, 200);
        }
        server.stop();
    }
}

#[test]
fn port_0_is_one_port_for_all_cores() {
    let (tree, sample) = tree();
    let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::two())).arg("--stats").start();
    assert_eq!(procfs::listeners(server.port()), cpus::two().len());
    // The kernel spreads connections over the listeners by a hash: 200 of them reach all.
    for i in 0..200 {
        let mut client = Client::connect(server.addr());
        let response = client.get(&sample.path);
        assert_eq!(
            (response.head.status, response.body.len() as u64),
            (200, sample.sum.len),
            "connection {i}"
        );
    }
    let line = server.line().to_owned();
    let ended = server.stop();
    one_listening_line(&ended, &line);
    let stats = stats::of(&ended);
    assert_eq!(stats.total("accepts"), 200);
    assert!(stats.cores.iter().all(|core| core["accepts"] > 0), "every core has accepted: {stats:?}");
}

/// However much the log says, a program that takes the first address it sees takes the right one.
#[test]
fn no_address_comes_before_the_line_in_the_fullest_log() {
    let (tree, sample) = tree();
    let server = Launch::serve(tree.root()).arg("-vvv").start();
    let line = server.line().to_owned();
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    one_listening_line(&server.stop(), &line);
}

#[test]
fn ipv6_is_served_where_there_is_ipv6() {
    if let Err(e) = TcpListener::bind("[::1]:0") {
        eprintln!("note: no IPv6 on this machine ({e})");
        return;
    }
    let (tree, sample) = tree();
    let server = Launch::serve(tree.root()).listen("[::1]:0").start();
    assert_eq!(server.line(), format!("annulus: listening on http://[::1]:{}", server.port()));
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    server.stop();
}

#[track_caller]
fn is_refused_as_used(launch: Launch, addr: SocketAddr) {
    let ended = launch.listen(&addr.to_string()).run();
    let line = ended.one_line(2).to_lowercase();
    assert!(
        line.contains(&addr.to_string()) && line.contains("in use"),
        "{line:?} names {addr} and says why"
    );
}

#[test]
fn a_used_port_is_refused() {
    let (tree, _) = tree();
    let upstream = Upstream::echo();
    let plain = TcpListener::bind("127.0.0.1:0").expect("binding a port");
    let plain = (plain.local_addr().expect("its address"), plain);
    let shared =
        net::shared_listener("127.0.0.1:0".parse().expect("an address")).expect("binding a shared port");
    let shared = (shared.local_addr().expect("its address"), shared);
    for addr in [plain.0, shared.0] {
        is_refused_as_used(Launch::serve(tree.root()), addr);
        is_refused_as_used(Launch::proxy(upstream.addr()), addr);
    }
}

#[test]
fn a_port_that_annulus_holds_is_refused() {
    let (tree, sample) = tree();
    let upstream = Upstream::echo();
    let mut first = Launch::serve(tree.root()).cores(&cpus::list(&cpus::two())).start();
    is_refused_as_used(Launch::serve(tree.root()), first.addr());
    is_refused_as_used(Launch::proxy(upstream.addr()), first.addr());
    first.must_live();
    for _ in 0..50 {
        assert_eq!(
            Client::connect(first.addr()).get(&sample.path).head.status,
            200,
            "the first goes on alone"
        );
    }
    first.stop();
}

/// Starts `count` servers at once on one port, each under `wrapper`, and checks that one of them has it
/// alone.
#[track_caller]
fn one_of(count: usize, wrapper: &[&str]) {
    let (tree, sample) = tree();
    let addr = net::free_addr();
    let launch = Launch::serve(tree.root()).listen(&addr.to_string()).under(wrapper);
    // Each is started and waited for on a thread of its own, which keeps the server: it dies with its thread.
    let (tell, told) = channel::<()>();
    let gate = Mutex::new(told);
    let (results, outcomes) = channel();
    std::thread::scope(|scope| {
        for _ in 0..count {
            let (launch, results, gate) = (launch.clone(), results.clone(), &gate);
            scope.spawn(move || match launch.start_or_end() {
                Ok(server) => {
                    results.send(Ok(server.addr())).expect("the test takes outcomes");
                    let asked_to_end = gate.lock().expect("one server holds this at a time").recv();
                    asked_to_end.expect_err("the sender is dropped, nothing is sent");
                    server.stop();
                }
                Err(ended) => results.send(Err(ended)).expect("the test takes outcomes"),
            });
        }
        // Only the threads hold senders now: if one panics, this does not wait for its outcome.
        drop(results);
        let all: Vec<Result<SocketAddr, Ended>> = outcomes.iter().take(count).collect();
        let serving = all.iter().filter(|outcome| outcome.is_ok()).count();
        let listeners = procfs::listeners(addr.port());
        let body = Client::connect(addr).try_get(&sample.path).map(|response| response.body.len() as u64);
        drop(tell);
        assert_eq!(serving, 1, "of {count} on {addr}: {all:#?}");
        for outcome in &all {
            if let Err(ended) = outcome {
                ended.one_line(2);
            }
        }
        assert_eq!(listeners, cpus::allowed().len(), "all listeners are the one server's");
        assert_eq!(body.expect("a response"), sample.sum.len);
    });
}

#[test]
fn of_several_that_start_on_one_port_one_serves() {
    for _ in 0..5 {
        one_of(4, &[]);
    }
}

/// With SO_REUSEADDR two sockets may be bound to one port as long as neither listens, so what is done between
/// bind and listen decides whether both may. strace holds each process there long enough for the other to
/// arrive.
#[test]
fn of_two_that_are_bound_before_either_listens_one_serves() {
    // Without it that moment is too short to be met.
    if !peers::have(["strace"]) {
        return;
    }
    // -D: the program stays our own child, and strace is its child.
    one_of(2, &["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=listen:delay_enter=300000"]);
}

/// The closed connections of the server before are in TIME_WAIT; a restart must not have to wait for them.
#[test]
fn a_port_is_free_again_at_once_when_the_server_before_has_ended() {
    let (tree, sample) = tree();
    let addr = net::free_addr();
    for _ in 0..3 {
        let server: Server = Launch::serve(tree.root()).listen(&addr.to_string()).start();
        let mut open = Client::connect(addr);
        assert_eq!(open.get(&sample.path).head.status, 200);
        // The server closes first here, and so it is its side that stays in TIME_WAIT.
        server.stop();
        open.must_be_closed();
    }
}

/// Lines that say where it listens, as they have come so far.
fn listening_lines(server: &Server) -> Vec<String> {
    server.err().so_far().into_iter().filter(|line| line.contains("listening on")).collect()
}

#[test]
fn several_addresses_have_a_line_each_in_the_order_given() {
    let (tree, sample) = tree();
    let path = tree.at("socket");
    let unix = format!("unix:{}", path.display());
    let listen = ["--listen", "127.0.0.1:0", "--listen", &unix, "--listen", "127.0.0.1:0"];
    let server =
        Launch::new().arg("serve").arg(tree.root()).args(listen).args(["--unix-mode", "600"]).start();
    let mut seen = 0;
    let count = |line: &str| {
        seen += usize::from(line.contains("listening on"));
        (seen == 3).then_some(())
    };
    server.err().wait_for("the last line", count);
    let lines = listening_lines(&server);
    let addresses: Vec<&str> =
        lines.iter().filter_map(|line| line.strip_prefix("annulus: listening on ")).collect();
    assert_eq!(addresses[1], unix, "{lines:#?}");
    for address in [addresses[0], addresses[2]] {
        assert_eq!(curl::sum(&format!("{address}{}", sample.path)), sample.sum);
    }
    assert_ne!(addresses[0], addresses[2]);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("the socket's file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let socket = path.to_str().expect("a path");
    let size = curl::must([
        "--unix-socket",
        socket,
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &format!("http://name{}", sample.path),
    ]);
    assert_eq!(size, sample.sum.len.to_string());
    server.stop();
    assert!(!path.exists(), "the socket's file is taken away");
}

/// A port alone is all addresses of both families, and so is `[::]`, whatever the system's default.
#[test]
fn a_port_alone_is_both_families() {
    let (tree, sample) = tree();
    let has_v6 = TcpListener::bind("[::1]:0").is_ok();
    for listen in ["0", ":0", "[::]:0"] {
        if !has_v6 && listen == "[::]:0" {
            continue;
        }
        let server = Launch::serve(tree.root()).listen(listen).start();
        assert_eq!(server.addr().is_ipv6(), has_v6, "{}", server.line());
        assert_eq!(curl::sum(&format!("http://127.0.0.1:{}{}", server.port(), sample.path)), sample.sum);
        if has_v6 {
            assert_eq!(curl::sum(&format!("http://[::1]:{}{}", server.port(), sample.path)), sample.sum);
        }
        server.stop();
    }
}

/// `[::]` leaves IPv4 to a listener that says 0.0.0.0, so that both may be written down.
#[test]
fn both_families_may_be_written_apart() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("note: no IPv6 on this machine");
        return;
    }
    let (tree, sample) = tree();
    let port = net::free_port();
    let (v4, v6) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    for pair in [[&v4, &v6], [&v6, &v4]] {
        let server = Launch::new()
            .arg("serve")
            .arg(tree.root())
            .args(["--listen", pair[0], "--listen", pair[1]])
            .start();
        for host in ["127.0.0.1", "[::1]"] {
            assert_eq!(curl::sum(&format!("http://{host}:{port}{}", sample.path)), sample.sum);
        }
        server.stop();
    }
}
