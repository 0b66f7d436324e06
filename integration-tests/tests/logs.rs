//! Logs: nobody waits for them, what was dropped is counted, and the access log has a line for each request.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::{Ended, Launch, Server, Unread};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, curl, net, watch};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::path::Path;

/// A grace that no test waits for, in seconds.
const AN_HOUR: u32 = 3600;
/// What a pipe holds if nobody changes it, in bytes.
const PIPE: usize = 64 << 10;

/// Makes the server log some 3000 lines: it refuses each of these requests.
fn be_refused(server: &Server) {
    for i in 0..3000 {
        let mut client = Client::connect(server.addr());
        client.send("NONSENSE\r\n\r\n").expect("sending");
        assert_eq!(client.head().unwrap_or_else(|e| panic!("request {i}: {e}")).status, 400);
    }
}

/// The same for a relay: a line or more for each connection.
fn be_relayed(server: &Server) {
    for i in 0..1500 {
        let mut client = net::connect(server.addr()).expect("connecting");
        client.write_all(b"hello").expect("sending");
        client.shutdown(std::net::Shutdown::Write).expect("half a close");
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap_or_else(|e| panic!("connection {i}: {e}"));
        assert_eq!(back, "hello");
    }
}

fn bytes(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

/// Seen to fail, by waiting for ever: with lines that are written by who has them, and with an end that joins
/// the thread of the log.
#[test]
fn a_stderr_that_nobody_reads_holds_nobody_up() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let upstream = Upstream::echo();
    for unread in [Unread::Pipe, Unread::Fifo] {
        let files = Launch::serve(tree.root());
        for (launch, be_served) in
            [(files, be_refused as fn(&Server)), (Launch::proxy(upstream.addr()), be_relayed)]
        {
            let server = launch.arg("-vv").grace(AN_HOUR).unread(unread).start();
            be_served(&server);
            // Nor does a signal wait.
            server.signal(Signal::USR1);
            server.signal(Signal::USR2);
            be_served(&server);
            server.signal(Signal::TERM);
            let ended = server.wait();
            assert_eq!(ended.code(), 0, "{unread:?}");
            assert!(bytes(&ended.err) > PIPE / 2, "{unread:?}: the pipe was full: {}", bytes(&ended.err));
        }
    }
    drop(small);
}

/// Seen to fail, by waiting for ever: with lines that are written by who has them; and with each of them
/// told, on their number.
#[test]
fn a_file_that_cannot_be_read_is_told_once_and_counted() {
    for unread in [None, Some(Unread::Pipe)] {
        // The server's own memory: nothing is mapped at its beginning, so reading it fails for everybody.
        let launch = Launch::serve(Path::new("/proc/self")).cores(&cpus::allowed()[0].to_string());
        let launch = unread.map_or(launch.clone(), |unread| launch.unread(unread));
        let server = launch.grace(AN_HOUR).start();
        let mut client = Client::connect(server.addr());
        let from = client.stream().local_addr().expect("its own address");
        client.send("GET /mem HTTP/1.1\r\nHost: h\r\nX-Request-Id: a \"name\"\r\n\r\n").expect("sending");
        assert_eq!(client.response().expect("an answer").head.status, 500);
        for _ in 1..2000 {
            assert_eq!(client.get("/mem").head.status, 500);
        }
        assert_eq!(Client::connect(server.addr()).get("/none").head.status, 404);
        drop(client);
        let ended = server.stop();
        let told: Vec<_> = ended.err.iter().filter(|line| line.contains("a file cannot be read")).collect();
        let (sums, each): (Vec<&String>, Vec<&String>) =
            told.iter().partition(|line| line.contains("more like this in the last"));
        let counted: u64 = sums.iter().map(|line| count_of(line)).sum();
        assert_eq!(each.len() as u64 + counted, 2000, "{told:#?}");
        assert!(told.len() < 100, "{told:#?}");
        // Who it was, and the name that the request came with.
        assert!(each[0].contains(&format!("client={from}")), "{told:#?}");
        assert!(each[0].contains(r#"request{id="a \"name\""}"#), "{told:#?}");
    }
}

/// The number in `... N more like this ...`.
fn count_of(line: &str) -> u64 {
    let before = line.split(" more like this").next().expect("something before");
    before.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

/// What `--stats` says of the access log at the end: logged, written and dropped lines.
#[track_caller]
fn counts(ended: &Ended) -> [u64; 3] {
    let line = ended.err.iter().find(|line| line.contains("log access ")).expect("a line with counts");
    ["logged", "written", "dropped"].map(|name| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {line:?}"))
    })
}

/// Asks so often, by some connections, with many requests at a time.
fn ask(server: &Server, path: &str, connections: usize, requests: usize) {
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::connect(server.addr());
                let burst = 100;
                for _ in 0..requests / burst {
                    client.send(http::get(path).repeat(burst)).expect("sending");
                    for _ in 0..burst {
                        assert_eq!(client.response().expect("an answer").head.status, 200);
                    }
                }
            });
        }
    });
}

/// Seen to fail: with an end that writes nothing more.
#[test]
fn every_request_has_its_line_on_disk_when_the_program_has_ended() {
    let (tree, logs) = (Tree::new(), Tree::new());
    let small = tree.file("small.txt", 100);
    for format in ["common", "combined", "json"] {
        let log = logs.at(format);
        let server = Launch::serve(tree.root())
            .args(["--access-log-format", format, "--stats"])
            .arg("--access-log")
            .arg(&log)
            .start();
        // Fewer than a queue holds: none is dropped, however late the thread of the log gets its CPU.
        ask(&server, &small.path, 4, 1000);
        let ended = server.stop();
        let text = std::fs::read_to_string(&log).expect("the access log");
        assert_eq!(counts(&ended), [4000, text.lines().count() as u64, 0], "{format}");
        let like = |line: &str| match format {
            "json" => {
                line.starts_with("{\"time\":\"20")
                    && line.contains("\"method\":\"GET\",\"target\":\"/small.txt\"")
                    && line.contains("\"status\":200,\"bytes\":100,\"seconds\":0.")
            }
            "common" => line.ends_with("] \"GET /small.txt HTTP/1.1\" 200 100"),
            _ => line.ends_with("] \"GET /small.txt HTTP/1.1\" 200 100 \"-\" \"-\""),
        };
        assert!(text.lines().all(like), "{format}: {:?}", text.lines().find(|line| !like(line)));
    }
}

/// Seen to fail: with an end that does not count what is left.
#[test]
fn lines_that_nobody_reads_are_dropped_and_counted_and_hold_nobody_up() {
    let (tree, logs) = (Tree::new(), Tree::new());
    let small = tree.file("small.txt", 100);
    logs.fifo("access");
    let path = logs.at("access");
    // A reader that reads nothing.
    let reader = std::fs::File::options().read(true).write(true).open(&path).expect("opening a FIFO");
    let server = Launch::serve(tree.root()).arg("--access-log").arg(&path).arg("--stats").start();
    ask(&server, &small.path, 4, 10_000);
    let ended = server.stop();
    let [logged, written, dropped] = counts(&ended);
    assert_eq!(logged, 40_000);
    assert!(dropped > 0 && written > 0 && written + dropped == logged, "{written} + {dropped}");
    assert!(ended.err.iter().any(|line| line.contains("lines of the access log were")), "{ended:#?}");
    // What was written is there, line by line.
    let mut text = vec![0; PIPE];
    let len = rustix::io::read(&reader, &mut text).expect("reading the FIFO");
    let lines = String::from_utf8_lossy(&text[..len]).into_owned();
    assert_eq!(lines.lines().count() as u64, written);
    assert!(lines.lines().all(|line| line.ends_with("200 100 \"-\" \"-\"")), "{lines}");
}

/// As many connections as the machine does, of which each has a line that is far longer than what it carries.
///
/// Seen to fail: with a queue that waits for room, by the watchdog; with dropped lines that are not counted.
#[test]
fn a_relays_lines_that_nobody_reads_are_dropped_and_counted_and_hold_nobody_up() {
    const THREADS: usize = 8;
    const EACH: usize = 2000;
    let upstream = Upstream::echo();
    let logs = Tree::new();
    logs.fifo("access");
    let path = logs.at("access");
    // A reader that reads nothing.
    let _reader = std::fs::File::options().read(true).write(true).open(&path).expect("opening a FIFO");
    // One core has one queue, which is full the sooner.
    let launch = Launch::proxy(upstream.addr()).cores(&cpus::allowed()[0].to_string());
    let launch = launch.args(["--access-log-format", "json", "--stats", "--access-log"]);
    let server = launch.arg(&path).start();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for i in 0..EACH {
                    let mut client = net::connect(server.addr()).expect("connecting");
                    client.write_all(b"?").expect("asking");
                    client.read_exact(&mut [0]).unwrap_or_else(|e| panic!("connection {i}: {e}"));
                    // It leaves no port behind that waits.
                    net::reset(client);
                }
            });
        }
    });
    let ended = server.stop();
    let [logged, written, dropped] = counts(&ended);
    assert_eq!(logged, (THREADS * EACH) as u64);
    assert!(dropped > 0 && written > 0 && written + dropped == logged, "{written} + {dropped}");
    assert!(ended.err.iter().any(|line| line.contains("lines of the access log were")), "{ended:#?}");
}

/// As many requests as the machine does: each is answered, and has its line in the file or is counted. Seen
/// to fail: with one line in a thousand that is neither queued nor counted.
#[test]
fn a_flood_of_requests_is_written_or_counted_and_holds_nobody_up() {
    let (tree, logs) = (Tree::new(), Tree::new());
    let small = tree.file("small.txt", 100);
    for format in ["combined", "json"] {
        let log = logs.at(format);
        let launch = Launch::serve(tree.root()).args(["--access-log-format", format, "--stats"]);
        let server = launch.arg("--access-log").arg(&log).start();
        ask(&server, &small.path, 8, 10_000);
        let ended = server.stop();
        let text = std::fs::read_to_string(&log).expect("the access log");
        let [logged, written, dropped] = counts(&ended);
        assert_eq!((logged, written + dropped), (80_000, 80_000), "{format}");
        assert_eq!(text.lines().count() as u64, written, "{format}");
        let whole = |line: &str| match format {
            "json" => line.starts_with('{') && line.ends_with('}'),
            _ => line.starts_with("127.0.0.1 - - [") && line.ends_with("200 100 \"-\" \"-\""),
        };
        assert!(text.lines().all(whole), "{format}: {:?}", text.lines().find(|line| !whole(line)));
    }
}

/// Seen to fail: with each refusal told; with lines that are not counted at the end.
#[test]
fn a_full_disk_is_told_and_holds_nobody_up() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let server = Launch::serve(tree.root()).args(["--access-log", "/dev/full", "--stats"]).start();
    ask(&server, &small.path, 2, 2000);
    let ended = server.stop();
    assert_eq!(counts(&ended), [4000, 0, 4000]);
    let told: Vec<_> = ended.err.iter().filter(|line| line.contains("cannot be written")).collect();
    assert_eq!(told.len(), 1, "{ended:#?}");
    assert!(told[0].contains("/dev/full") && told[0].contains("No space left"), "{told:?}");
    let told: Vec<_> =
        ended.err.iter().filter(|line| line.contains("4000 lines of the access log")).collect();
    assert_eq!(told.len(), 1, "{ended:#?}");
}

/// Seen to fail: with the error passed over.
#[test]
fn a_log_that_cannot_be_opened_is_refused_before_anything_starts() {
    let tree = Tree::new();
    for (path, word) in [("/no/such/directory/log", "directory"), ("/", "name a file in it")] {
        let ended = Launch::serve(tree.root()).args(["--access-log", path]).run();
        let line = ended.one_line(2);
        assert!(line.contains(path) && line.contains(word), "{line:?}");
    }
    tree.fifo("fifo");
    let ended = Launch::serve(tree.root()).arg("--access-log").arg(tree.at("fifo")).run();
    assert!(ended.one_line(2).contains("start what reads this FIFO first"), "{ended:#?}");
}

/// Seen to fail: with a failed opening that gives the old file up.
#[test]
fn sigusr2_opens_the_log_anew_and_loses_nothing() {
    let (tree, logs) = (Tree::new(), Tree::new());
    let small = tree.file("small.txt", 100);
    logs.dir("d");
    let (log, old) = (logs.at("d/access"), logs.at("access.1"));
    let server = Launch::serve(tree.root()).arg("--access-log").arg(&log).arg("--stats").start();
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&server, &small.path, 4, 5000));
        std::fs::rename(&log, &old).expect("moving the log away");
        server.signal(Signal::USR2);
        watch::until("the log is there anew", || log.exists().then_some(()));
    });
    // Its directory is gone: it goes on in the file that it has.
    let kept = logs.at("kept");
    std::fs::hard_link(&log, &kept).expect("a second name");
    std::fs::remove_dir_all(logs.at("d")).expect("taking its directory away");
    server.signal(Signal::USR2);
    let told = server.err().wait_for("the failure", |line| {
        (line.contains("cannot be opened anew") && line.contains("d/access")).then_some(())
    });
    assert!(told.is_some());
    ask(&server, &small.path, 1, 100);
    let ended = server.stop();
    let lines = |path: &Path| std::fs::read_to_string(path).expect("a log").lines().count() as u64;
    assert_eq!(counts(&ended), [20_100, 20_100, 0]);
    assert_eq!(lines(&old) + lines(&kept), 20_100);
    assert!(lines(&kept) >= 100);
}

/// Seen to fail: without the escapes; without the line of what is no request.
#[test]
fn standard_output_has_lines_of_whoever_asks_for_what() {
    let tree = Tree::new();
    tree.file("small.txt", 100);
    let server = Launch::serve(tree.root()).args(["--access-log", "-"]).start();
    let mut client = Client::connect(server.addr());
    let asked = [
        ("HEAD /small.txt HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("GET /small.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=1-10\r\nUser-Agent: a\"b\\\tü\r\n\r\n", 206),
        ("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        ("POST /small.txt HTTP/1.0\r\n\r\n", 405),
        ("\x16\x03\x01\"\r\n\r\n", 400),
    ];
    drop(client);
    for (request, status) in asked {
        client = Client::connect(server.addr());
        client.send(request).expect("sending");
        assert_eq!(client.head().expect("a head").status, status, "{request:?}");
    }
    let ended = server.stop();
    let found = |tail: &str| {
        let is_it = |line: &String| line.starts_with("127.0.0.1 - - [") && line.ends_with(tail);
        assert!(ended.out.iter().any(is_it), "{tail}: {:#?}", ended.out);
    };
    assert_eq!(ended.out.len(), asked.len(), "{:#?}", ended.out);
    found(r#""HEAD /small.txt HTTP/1.1" 200 0 "-" "-""#);
    found(r#""GET /small.txt HTTP/1.1" 206 10 "-" "a\x22b\x5C\x09\xC3\xBC""#);
    assert!(ended.out.iter().any(|line| line.contains(r#" "GET /none HTTP/1.1" 404 "#)), "{:#?}", ended.out);
    assert!(
        ended.out.iter().any(|line| line.contains(r#" "POST /small.txt HTTP/1.0" 405 "#)),
        "{:#?}",
        ended.out
    );
    assert!(ended.out.iter().any(|line| line.contains(r#" "\x16\x03\x01\x22" 400 "#)), "{:#?}", ended.out);
}

/// Seen to fail: with the bytes of the other direction, in either format.
#[test]
fn a_relayed_connection_has_its_line() {
    let upstream = Upstream::start(|mut stream| {
        let mut asked = String::new();
        // The test looks at the other end.
        let _ = stream.read_to_string(&mut asked).and_then(|_| stream.write_all(b"and back"));
    });
    let logs = Tree::new();
    for (format, road) in [("combined", "inline"), ("json", "ring")] {
        let log = logs.at(format);
        let launch = Launch::proxy(upstream.addr()).road(road).args(["--access-log-format", format]);
        let server = launch.arg("--access-log").arg(&log).start();
        let mut client = net::connect(server.addr()).expect("connecting");
        let from = client.local_addr().expect("its own address");
        client.write_all(b"hello").expect("sending");
        client.shutdown(std::net::Shutdown::Write).expect("half a close");
        let mut back = String::new();
        client.read_to_string(&mut back).expect("the answer");
        server.stop();
        let text = std::fs::read_to_string(&log).expect("the access log");
        assert_eq!(text.lines().count(), 1, "{text}");
        let (to, from) = (upstream.addr().to_string(), from.to_string());
        let parts = match format {
            "json" => [
                format!("\"client\":\"{from}\",\"upstream\":\"{to}\",\"bytes_up\":5,\"bytes_down\":8,"),
                format!("\"road\":\"{road}\",\"end\":\"closed\"}}"),
            ],
            _ => [format!("{from} ["), format!("TCP \"{to}\" up=5 down=8 seconds=0.")],
        };
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    // Nobody is there to carry it to.
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let server = Launch::proxy(nobody).args(["--access-log", "-"]).start();
    let (from, client) = net::connect_known(server.addr());
    match client {
        // It ends, or it is reset: nobody has answered.
        Ok(mut client) => drop(client.read_to_end(&mut Vec::new())),
        Err(e) => assert!(net::is_gone(&e), "connecting: {e}"),
    }
    let ended = server.stop();
    assert!(
        ended.out[0].contains("TCP \"-\" up=0 down=0") && ended.out[0].contains("no upstream"),
        "{ended:#?}"
    );
    let warned = ended.err.iter().find(|line| line.contains("the upstream refuses")).expect("a warning");
    assert!(warned.contains(&format!("client={from}")), "{warned:?}");
}

/// Seen to fail: with a log that each process opens at its beginning.
#[test]
fn lines_of_several_processes_stay_whole() {
    let (tree, logs) = (Tree::new(), Tree::new());
    let small = tree.file("small.txt", 100);
    let log = logs.at("access");
    let launch = Launch::serve(tree.root()).processes("core").arg("--access-log").arg(&log);
    let server = launch.start();
    ask(&server, &small.path, 8, 2000);
    server.signal(Signal::USR2);
    assert_eq!(curl::status(&[], &server.url(&small.path)), 200);
    server.stop();
    let text = std::fs::read_to_string(&log).expect("the access log");
    assert_eq!(text.lines().count(), 16_001);
    let tail = |line: &str| {
        line.starts_with("127.0.0.1 - - [") && line.contains("\"GET /small.txt HTTP/1.1\" 200 100 \"-\" \"")
    };
    assert!(text.lines().all(tail), "{:?}", text.lines().find(|line| !tail(line)));
}
