//! `annulus proxy`: several upstreams, and what becomes of clients when some of them cannot be had.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::{Upstream, letter};
use annulus_integration_tests::{net, watch};

/// `annulus proxy --to A --to B ...` on one core.
fn relay(to: &[String]) -> Launch {
    let launch = Launch::new().arg("proxy").listen("127.0.0.1:0").processes("one").cores("0");
    to.iter().fold(launch, |launch, to| launch.arg("--to").arg(to))
}

#[track_caller]
fn counts(letters: impl IntoIterator<Item = u8>) -> HashMap<u8, usize> {
    letters.into_iter().fold(HashMap::new(), |mut counts, letter| {
        *counts.entry(letter).or_default() += 1;
        counts
    })
}

#[track_caller]
fn is_refused(server: &Server) {
    let refused = net::connect(server.addr()).and_then(|mut client| client.read_exact(&mut [0]));
    assert_eq!(refused.expect_err("no upstream takes it").kind(), ErrorKind::ConnectionReset);
}

/// Seen to fail: with weights that are not looked at, and with a hash that is a draw.
#[test]
fn connections_are_shared_out() {
    let upstreams = [b'a', b'b', b'c'].map(Upstream::lettered);
    let to = |weights: [&str; 3]| -> Vec<String> {
        upstreams.iter().zip(weights).map(|(it, weight)| format!("{}{weight}", it.addr())).collect()
    };
    let server = relay(&to([" weight=3", "", ""])).start();
    let got = counts((0..50).map(|_| letter(&server).1));
    assert_eq!((got[&b'a'], got[&b'b'], got[&b'c']), (30, 10, 10));
    server.stop();
    // All in one word, and connections that stay.
    let server = relay(&[to([""; 3]).join(",")]).args(["--balance", "leastconn"]).start();
    let held: Vec<_> = (0..9).map(|_| letter(&server)).collect();
    assert!(counts(held.iter().map(|it| it.1)).values().all(|n| *n == 3));
    // Those of one upstream go, and the next come to it.
    let (gone, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|it| it.1 == b'b');
    drop(gone);
    watch::until("the upstream has room", || (letter(&server).1 == b'b').then_some(()));
    drop(rest);
    server.stop();
    let server = relay(&to([""; 3])).args(["--balance", "hash"]).start();
    let got = counts((0..20).map(|_| letter(&server).1));
    assert_eq!(got.len(), 1, "one client, one upstream: {got:?}");
    server.stop();
    for (how, least) in [("first", 1), ("random2", 3)] {
        let server = relay(&to([""; 3])).args(["--balance", how]).start();
        let got = counts((0..60).map(|_| letter(&server).1));
        assert_eq!(got.len(), least, "{how}: {got:?}");
        server.stop();
    }
}

/// Seen to fail: without the time out each client asks the dead one, and each writes a line.
#[test]
fn a_dead_upstream_costs_no_client_and_is_not_asked_by_each() {
    let alive = Upstream::lettered(b'a');
    for how in ["first", "roundrobin", "leastconn", "random2", "hash"] {
        let dead = net::free_addr();
        let server = relay(&[dead.to_string(), alive.addr().to_string()])
            .args(["--balance", how, "--out-time", "600"])
            .start();
        for _ in 0..30 {
            assert_eq!(letter(&server).1, b'a', "{how}");
        }
        let ended = server.stop();
        let asked = ended.err.iter().filter(|line| line.contains("refuses")).count();
        assert!(asked <= 1, "{how}: the dead one was asked {asked} times");
    }
}

/// Seen to fail: with an hour in place of the time-out.
#[test]
fn a_silent_upstream_is_given_up_for_the_next() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(net::own_loopback(), 0)).expect("binding");
    listen(&socket, 0).expect("listening");
    let deaf = TcpListener::from(socket);
    let address = deaf.local_addr().expect("its address");
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fill.push(stream);
    }
    let alive = Upstream::lettered(b'a');
    let server = relay(&[address.to_string(), alive.addr().to_string()])
        .args(["--balance", "first", "--connect-timeout", "1"])
        .start();
    for _ in 0..5 {
        assert_eq!(letter(&server).1, b'a');
    }
    drop(fill);
    server.stop();
}

/// An upstream that goes and comes back on its port.
struct Restless {
    address: SocketAddr,
    running: Option<Upstream>,
}

impl Restless {
    fn new(letter: u8) -> Self {
        let running = Upstream::lettered(letter);
        Self { address: running.addr(), running: Some(running) }
    }

    fn kill(&mut self) {
        self.running = None;
    }

    fn revive(&mut self, letter: u8) {
        let listener = TcpListener::bind(self.address).expect("its port again");
        self.running = Some(Upstream::lettered_on(listener, letter));
    }
}

/// Seen to fail: without the next upstream after one that refuses.
#[test]
fn no_client_fails_while_upstreams_are_killed_and_revived() {
    let mut restless: Vec<Restless> = [b'a', b'b', b'c'].map(Restless::new).into();
    let to: Vec<String> = restless.iter().map(|it| it.address.to_string()).collect();
    // A listener that closes forgets a connection whose handshake it has not seen to its end, and says
    // nothing: only a keepalive probe finds that the upstream is not there.
    let server = relay(&to).args(["--out-time", "1", "--keepalive", "1", "--access-log", "-"]).start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, address) = (Arc::clone(&stop), server.addr());
            thread::spawn(move || {
                let mut served = 0;
                while served == 0 || !stop.load(Ordering::Relaxed) {
                    let asked = net::connect(address).and_then(|mut client| client.read_exact(&mut [0]));
                    match asked {
                        Ok(()) => served += 1,
                        // A listener that closes resets what its kernel had accepted: the upstream had
                        // taken the connection.
                        Err(e) if net::is_gone(&e) || e.kind() == ErrorKind::UnexpectedEof => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            })
        })
        .collect();
    for round in 0..12 {
        let it = &mut restless[round % 3];
        it.kill();
        thread::sleep(Duration::from_millis(60));
        it.revive(b'x');
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no panic");
    }
    let ended = server.stop();
    assert!(ended.out.len() > 50, "a line for each connection: {ended:#?}");
    let failed: Vec<_> = ended.out.iter().filter(|line| line.contains("no upstream")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Seen to fail: with checks whose outcome is not counted.
#[test]
fn checks_take_an_upstream_out_and_in() {
    let mut one = Restless::new(b'a');
    let other = Upstream::lettered(b'b');
    let server = relay(&[one.address.to_string(), other.addr().to_string()])
        .args(["--balance", "first", "--check", "tcp", "--check-interval", "1", "--fall", "1", "--rise", "1"])
        .start();
    assert_eq!(letter(&server).1, b'a');
    one.kill();
    server.err().wait_for("the line", |line| line.contains("is down").then_some(())).expect("it lives");
    assert_eq!(letter(&server).1, b'b');
    one.revive(b'c');
    server.err().wait_for("the line", |line| line.contains("is up again").then_some(())).expect("it lives");
    watch::until("it is first again", || (letter(&server).1 == b'c').then_some(()));
    server.stop();
}

/// Seen to fail: with any status.
#[test]
fn a_check_by_http_looks_at_the_status() {
    let tree = Tree::new();
    let sample = tree.file("well.txt", 10);
    let files = Launch::serve(tree.root()).start();
    for (path, is_up) in [(sample.path.as_str(), true), ("/missing", false)] {
        let check = format!("http:{path}");
        let server = relay(&[files.addr().to_string()])
            .args(["--check", &check, "--check-interval", "1", "--check-timeout", "600", "--fall", "1"])
            .start();
        if is_up {
            // As many checks as would take it down.
            thread::sleep(Duration::from_millis(1500));
            assert!(net::connect(server.addr()).is_ok());
            let ended = server.stop();
            assert!(!ended.err.iter().any(|line| line.contains("is down")), "{ended:#?}");
        } else {
            let down = |line: &str| line.contains("is down").then(|| line.to_owned());
            let line = server.err().wait_for("the line", down).expect("it lives");
            assert!(line.contains("status 404"), "{line}");
            is_refused(&server);
            server.stop();
        }
    }
    files.stop();
}

/// Seen to fail: with an upstream that is never full.
#[test]
fn a_full_upstream_is_waited_for() {
    let upstream = Upstream::lettered(b'a');
    let launch =
        || relay(&[upstream.addr().to_string()]).args(["--upstream-max-connections", "1", "--queue-timeout"]);
    let server = launch().arg("1").start();
    let first = letter(&server);
    is_refused(&server);
    drop(first);
    server.stop();
    let server = launch().arg("600").start();
    let first = letter(&server);
    let address = server.addr();
    let waits = thread::spawn(move || {
        let mut client = net::connect(address).expect("connecting");
        client.read_exact(&mut [0])
    });
    thread::sleep(Duration::from_millis(100));
    drop(first);
    waits.join().expect("no panic").expect("it is served when there is room");
    server.stop();
    let server = launch().args(["600", "--queue", "0"]).start();
    let first = letter(&server);
    is_refused(&server);
    drop(first);
    server.stop();
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn an_upstream_may_be_a_unix_socket() {
    let tree = Tree::new();
    let path = tree.root().join("socket");
    let listener = UnixListener::bind(&path).expect("a Unix socket");
    let serves = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut question = Vec::new();
        stream.read_to_end(&mut question).expect("the question");
        stream.write_all(&question).expect("the answer");
        question.len()
    });
    let server = relay(&[format!("unix:{}", path.display())]).start();
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(&[7; 300_000]).expect("asking");
    client.shutdown(std::net::Shutdown::Write).expect("ending our side");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the answer");
    assert_eq!(answer, [7; 300_000]);
    assert_eq!(serves.join().expect("no panic"), 300_000);
    server.stop();
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn a_name_is_looked_up() {
    let upstream = Upstream::lettered(b'a');
    let server = relay(&[format!("localhost:{}", upstream.addr().port())]).start();
    assert!(server.line().contains("relaying to localhost:"), "{}", server.line());
    for _ in 0..5 {
        assert_eq!(letter(&server).1, b'a');
    }
    server.stop();
}
