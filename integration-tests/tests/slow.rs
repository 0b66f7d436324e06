//! `--slow`: what is planted is named, once, by the request or connection that it has held up.

use annulus_integration_tests::files::{Lease, Tree};
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::{Launch, Server, Stopped};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, net, watch};
use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

/// From when on something is slow, in milliseconds.
const SLOW: &str = "100";
/// What is planted lasts so long: the planted time itself is no wait for something that could be awaited.
const LONG: Duration = Duration::from_millis(300);

/// The line of a slow request or connection: what it says in all, and its times by name, the longest first.
#[derive(Debug)]
struct Told {
    line: String,
    times: Vec<(String, f64)>,
}

impl Told {
    fn of(line: &str) -> Option<Told> {
        let (_, text) = line.split_once("annulus::slow: ").filter(|_| line.contains(" took "))?;
        let (took, text) = text.rsplit_once(" took ")?.1.split_once(" ms")?;
        let (_, times) = text.split_once(": ")?;
        let times = times.split(" client=").next()?.split(';').next()?;
        let time = |part: &str| {
            let (name, ms) = part.rsplit_once(' ')?;
            Some((name.to_owned(), ms.parse().ok()?))
        };
        let times: Vec<(String, f64)> = times.split(", ").map(time).collect::<Option<_>>()?;
        // Nothing else is told: what was idle would be more. Each time is rounded by half a millisecond. What
        // is not told is less than what is told first, however late a busy machine is between two of them.
        let (took, sum) = (took.parse::<f64>().ok()?, times.iter().map(|(_, ms)| ms).sum::<f64>());
        let rounded = times.len() as f64;
        assert!(sum < took + rounded && took - sum < times[0].1 + rounded, "{line}");
        Some(Told { line: line.to_owned(), times })
    }

    /// It has cost so many milliseconds at least, and more than anything else.
    fn is_mostly(&self, name: &str, ms: f64) {
        let (longest, time) = self.times.first().expect("a time");
        assert!(longest == name && *time >= ms, "{name}, {ms} ms: {}", self.line);
    }

    fn of_name(&self, name: &str) -> f64 {
        self.times.iter().find(|(known, _)| known == name).map_or(0.0, |(_, ms)| *ms)
    }
}

/// What is told of what has `word` in its line.
fn told(server: &Server, word: &str) -> Told {
    let line = server.err().wait_for(word, |line| Told::of(line).filter(|_| line.contains(word)));
    line.expect("the server lives")
}

/// Its lines about what has `word` in them, once all have come.
fn all_told(server: Server, word: &str) -> Vec<Told> {
    let ended = server.stop();
    ended.err.iter().filter(|line| line.contains(word)).filter_map(|line| Told::of(line)).collect()
}

fn one_core() -> String {
    cpus::allowed()[0].to_string()
}

fn files(tree: &Tree) -> Launch {
    Launch::serve(tree.root()).cores(&one_core()).args(["--slow", SLOW])
}

/// Seen to fail: with a socket that takes no bytes told as one that gives none.
#[test]
fn a_client_that_does_not_read_is_named() {
    let tree = Tree::new();
    tree.file("quick.bin", 3000);
    let large = tree.file("large.bin", 32 << 20);
    for road in ["inline", "ring"] {
        let server = files(&tree).road(road).start();
        let mut client = Client::connect(server.addr());
        client.get("/quick.bin");
        client.send(http::get("/large.bin")).expect("sending");
        assert_eq!(client.head().expect("a head").status, 200);
        std::thread::sleep(LONG);
        assert_eq!(client.body_sum(large.sum.len).expect("a body"), large.sum);
        let line = told(&server, "/large.bin");
        line.is_mostly("client", 150.0);
        assert!(line.line.contains("status=200 bytes=33554432") && line.line.contains("method=\"GET\""));
        assert_eq!(all_told(server, "/large.bin").len(), 1, "told twice");
    }
    let server = Launch::serve(tree.root()).args(["--slow", "3600000"]).start();
    Client::connect(server.addr()).get("/large.bin");
    assert_eq!(all_told(server, "client=").len(), 0, "told though it was quick");
}

/// A file under a lease opens when its holder gives it back.
///
/// Seen to fail: with the wait told of a timer.
#[test]
fn a_file_that_cannot_be_opened_yet_is_named() {
    let tree = Tree::new();
    tree.bytes("leased.txt", b"at last");
    let server = files(&tree).start();
    let Some(lease) = Lease::take(&tree.at("leased.txt")) else { return };
    let mut client = Client::connect(server.addr());
    client.send(http::get("/leased.txt")).unwrap();
    watch::until("the lease is asked for", || lease.is_asked_for().then_some(()));
    std::thread::sleep(LONG);
    drop(lease);
    assert_eq!(client.response().expect("an answer").body, b"at last");
    told(&server, "/leased.txt").is_mostly("lease", 150.0);
    server.stop();
}

/// A file whose pages are on the disk alone.
#[test]
fn a_disk_is_named() {
    let tree = Tree::new();
    let sample = tree.file("cold.bin", 64 << 20);
    let file = std::fs::File::open(tree.at("cold.bin")).expect("our file");
    file.sync_all().expect("a disk that takes it");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    let mut byte = [0];
    let mut into = [std::io::IoSliceMut::new(&mut byte)];
    let now = rustix::io::preadv2(&file, &mut into, 32 << 20, rustix::io::ReadWriteFlags::NOWAIT);
    if now != Err(rustix::io::Errno::AGAIN) {
        eprintln!("note: a file of TMPDIR stays in memory, so no disk can be slow: {now:?}");
        return;
    }
    let server = Launch::serve(tree.root()).cores(&one_core()).args(["--slow", "1"]).start();
    let mut client = Client::connect(server.addr());
    client.send(http::get("/cold.bin")).expect("sending");
    client.head().expect("a head");
    assert_eq!(client.body_sum(sample.sum.len).expect("a body"), sample.sum);
    let line = told(&server, "/cold.bin");
    assert!(line.of_name("disk") + line.of_name("io-wq") > 0.5, "{}", line.line);
    server.stop();
}

/// A server that was not run: one connection had a request under way, another one was not accepted yet.
///
/// Seen to fail: without what the kernel knows of the queue.
#[test]
fn a_core_that_is_not_run_is_named_and_so_is_the_queue_before_it() {
    let tree = Tree::new();
    tree.file("first.bin", 3000);
    tree.file("known.bin", 3000);
    tree.file("new.bin", 3000);
    let server = files(&tree).start();
    let mut known = Client::connect(server.addr());
    known.get("/first.bin");
    let mut new = {
        let _stopped = Stopped::new(&server);
        known.send(http::get("/known.bin")).expect("sending");
        let mut new = Client::connect(server.addr());
        new.send(http::get("/new.bin")).expect("sending");
        std::thread::sleep(LONG);
        new
    };
    assert_eq!((known.response().unwrap().head.status, new.response().unwrap().head.status), (200, 200));
    told(&server, "/known.bin").is_mostly("core", 250.0);
    told(&server, "/new.bin").is_mostly("accept", 250.0);
    let lines = server.stop().err;
    for path in ["/known.bin", "/new.bin"] {
        assert_eq!(lines.iter().filter(|line| line.contains(path)).count(), 1, "{lines:#?}");
    }
}

/// Many requests at once: those that are polled last wait for the task, and while the first ones are polled
/// the core hears of nothing else.
#[test]
fn a_busy_core_is_named() {
    let tree = Tree::new();
    tree.file("large.bin", 2 << 20);
    let server = Launch::serve(tree.root()).cores(&one_core()).args(["--slow", "1"]).start();
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(server.addr())).collect();
    clients.iter_mut().for_each(|client| drop(client.get("/large.bin")));
    {
        let _stopped = Stopped::new(&server);
        clients.iter_mut().for_each(|client| client.send(http::get("/large.bin")).expect("sending"));
    }
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").head.status, 200);
    }
    drop(clients);
    let lines = all_told(server, "/large.bin");
    let most = |name: &str| lines.iter().map(|line| line.of_name(name)).fold(0.0, f64::max);
    assert!(most("task") > 1.0 && most("ticks") > 0.5, "{lines:#?}");
}

/// More requests at once than receive buffers.
///
/// Seen to fail: with the lack of a buffer forgotten.
#[test]
fn exhausted_buffers_are_named() {
    let tree = Tree::new();
    tree.file("small.bin", 3000);
    let args = ["--slow", "1", "--pool", "256K", "--pool-limit", "256K"];
    let server = Launch::serve(tree.root()).cores(&one_core()).args(args).start();
    let mut clients: Vec<Client> = (0..400).map(|_| Client::connect(server.addr())).collect();
    clients.iter_mut().for_each(|client| drop(client.get("/small.bin")));
    {
        let _stopped = Stopped::new(&server);
        clients.iter_mut().for_each(|client| client.send(http::get("/small.bin")).expect("sending"));
    }
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").head.status, 200);
    }
    drop(clients);
    let lines = all_told(server, "/small.bin");
    assert!(lines.iter().any(|line| line.of_name("buffers") > 0.0), "{lines:#?}");
}

/// Of a relayed connection: an upstream and a client that do not read, and its turn. Its idle time is no part
/// of it.
///
/// Seen to fail: with the side that sends named in place of the one that does not read.
#[test]
fn who_holds_a_relayed_connection_up_is_named() {
    const BULK: usize = 32 << 20;
    let (tell, told_of_idle) = channel();
    // The first byte says what is to be done.
    let upstream = Upstream::start(move |mut stream| {
        let mut what = [0];
        let _ = stream.read_exact(&mut what).and_then(|()| match &what {
            b"r" => {
                std::thread::sleep(LONG);
                std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
            }
            b"w" => stream.write_all(&vec![0; BULK]),
            _ => {
                let _ = tell.send(());
                std::thread::sleep(LONG);
                stream.write_all(b"!")
            }
        });
    });
    for road in ["inline", "ring"] {
        let launch = || Launch::proxy(upstream.addr()).cores(&one_core()).args(["--slow", SLOW]).road(road);
        let server = launch().start();
        let mut idle = net::connect(server.addr()).expect("connecting");
        idle.write_all(b"i").expect("sending");
        assert_eq!(idle.read(&mut [0]).expect("an answer"), 1);
        drop(idle);
        told_of_idle.recv().expect("the upstream has it");
        let mut stream = net::connect(server.addr()).expect("connecting");
        stream.write_all(&[&b"r"[..], &vec![0; BULK]].concat()).expect("sending");
        stream.shutdown(std::net::Shutdown::Write).expect("sending");
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        told(&server, &format!("up={}", BULK + 1)).is_mostly("upstream", 150.0);

        let mut stream = net::connect(server.addr()).expect("connecting");
        stream.write_all(b"w").expect("sending");
        stream.read_exact(&mut [0]).expect("the first byte");
        std::thread::sleep(LONG);
        std::io::copy(&mut stream, &mut std::io::sink()).expect("the rest");
        drop(stream);
        told(&server, &format!("down={BULK}")).is_mostly("client", 150.0);
        all_told(server, "client=");
    }
    let server = Launch::proxy(upstream.addr())
        .cores(&one_core())
        .args(["--slow", SLOW, "--upstream-max-connections", "1"])
        .start();
    let mut first = net::connect(server.addr()).expect("connecting");
    first.write_all(b"i").expect("sending");
    told_of_idle.recv().expect("its place is taken");
    let second = std::thread::spawn({
        let address = server.addr();
        move || {
            let mut second = net::connect(address).expect("connecting");
            second.write_all(b"w").expect("sending");
            std::io::copy(&mut second, &mut std::io::sink()).expect("bytes")
        }
    });
    assert_eq!(first.read(&mut [0]).expect("an answer"), 1);
    drop(first);
    assert_eq!(second.join().expect("it is served"), BULK as u64);
    let line = told(&server, &format!("down={BULK}"));
    assert!(line.of_name("queue") > 100.0, "{}", line.line);
    server.stop();
}
