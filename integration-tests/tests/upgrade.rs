//! A new program takes the place of the one that runs, and every connection is accounted for.

use annulus_integration_tests::files::{Sample, Tree};
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{bin, cpus, watch};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often a program is replaced under load: more of it in `scripts/test --full`.
fn replacements() -> usize {
    std::env::var("ANNULUS_REPLACEMENTS").map_or(6, |count| count.parse().expect("a number"))
}

/// A program that is replaced: whoever serves now ends with it.
struct Replaced {
    server: Server,
    admin: String,
}

impl Replaced {
    fn start(tree: &Tree, launch: Launch) -> Replaced {
        let admin = format!("unix:{}", tree.at("admin").display());
        let server = launch.arg("--admin").arg(&admin).start();
        Replaced { server, admin }
    }

    fn upgrade(&self) -> Output {
        Command::new(bin::annulus())
            .args(["upgrade", "--admin", &self.admin])
            .output()
            .expect("a program to start")
    }

    #[track_caller]
    fn must_upgrade(&self) -> i32 {
        let before = self.pid();
        let ended = self.upgrade();
        assert!(ended.status.success(), "{ended:?}: {:#?}", self.server.err().so_far());
        let now = self.pid();
        assert_ne!(before, now);
        now
    }

    /// Who answers operators.
    #[track_caller]
    fn pid(&self) -> i32 {
        let told: serde_json::Value = serde_json::from_str(&self.ask("/upgrade")).expect("JSON");
        told["pid"].as_i64().expect("a number") as i32
    }

    #[track_caller]
    fn ask(&self, path: &str) -> String {
        let socket = self.admin.strip_prefix("unix:").expect("a path");
        let url = format!("http://localhost{path}");
        let output =
            Command::new("curl").args(["-sf", "--unix-socket", socket, &url]).output().expect("curl");
        assert!(output.status.success(), "{path}: {output:?}: {:#?}", self.server.err().so_far());
        String::from_utf8(output.stdout).expect("text")
    }

    /// Ends whoever serves, and waits for the first program, and for what all say to end.
    #[track_caller]
    fn stop(self) -> Vec<String> {
        let pid = Pid::from_raw(self.pid()).expect("a number");
        kill_process(pid, Signal::TERM).expect("it runs");
        let ended = self.server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        ended.err
    }
}

/// One connection and one request. Says what went wrong, if something did.
fn fetch(addr: SocketAddr, sample: &Sample) -> Result<(), String> {
    let what = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let mut stream = TcpStream::connect(addr).map_err(what("connect"))?;
    stream.set_read_timeout(Some(watch::LIMIT)).map_err(what("limit"))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", sample.path);
    stream.write_all(request.as_bytes()).map_err(what("write"))?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err("no answer in time".to_owned()),
        Err(error) => return Err(format!("read: {error}")),
    }
    let is_whole = answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 5000;
    if is_whole { Ok(()) } else { Err(format!("an answer of {} bytes", answer.len())) }
}

/// Clients that connect as fast as the machine gives, while `act` runs. Returns how many were served.
fn under_load<T>(addr: SocketAddr, sample: &Sample, act: impl FnOnce() -> T) -> (u64, T) {
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = || {
        while !stop.load(Ordering::Relaxed) {
            match fetch(addr, sample) {
                Ok(()) => served.fetch_add(1, Ordering::Relaxed),
                Err(why) => return Err(why),
            };
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32).map(|_| scope.spawn(client)).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client").unwrap_or_else(|why| panic!("a connection was lost: {why}"));
        }
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (served.load(Ordering::Relaxed), done)
    })
}

/// No connection is refused, reset, or left without its answer, and memory lies where it should after each.
///
/// Seen to fail: with an old program that shuts its sockets down when it closes them.
#[test]
fn every_connection_is_served_while_programs_are_replaced() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 5000);
    for processes in ["one", "core"] {
        let launch = Launch::serve(tree.root()).processes(processes).cores(&cpus::list(&cpus::two()));
        let replaced = Replaced::start(&tree, launch);
        let addr = replaced.server.addr();
        let (served, ()) = under_load(addr, &sample, || {
            for _ in 0..replacements() {
                replaced.must_upgrade();
                // A process that the machine holds up for seconds is left out of an answer.
                let status = watch::until("all cores are told of", || {
                    let status: serde_json::Value =
                        serde_json::from_str(&replaced.ask("/status")).expect("JSON");
                    (status["cores"].as_array()?.len() == cpus::two().len()).then_some(status)
                });
                assert!(
                    status["listeners"][0].as_str().expect("a line").contains(&addr.to_string()),
                    "{status}"
                );
                // Everything of every core is where it belongs, as in the program before.
                assert_eq!(status["strays"], serde_json::json!([]), "{status}");
            }
        });
        assert!(served > 0);
        println!(
            "--processes {processes}: {} replacements, {served} connections, all served",
            replacements()
        );
        let said = replaced.stop();
        let taken = said.iter().filter(|line| line.contains("has taken over")).count();
        assert_eq!(taken, replacements(), "{said:#?}");
        assert!(!said.iter().any(|line| line.contains("lost") || line.contains("WARN")), "{said:#?}");
    }
}

/// What was accepted is served by whoever accepted it, for as long as it takes; clients of a Unix socket come
/// to the new program by the same file.
#[test]
fn the_old_program_finishes_what_it_has() {
    let tree = Tree::new();
    let sample = tree.file("large.bin", 64 << 20);
    let socket = format!("unix:{}", tree.at("web").display());
    let launch = Launch::serve(tree.root()).arg("--listen").arg(&socket).grace(0);
    let replaced = Replaced::start(&tree, launch);
    let mut stream = TcpStream::connect(replaced.server.addr()).expect("it listens");
    let request = format!("GET {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", sample.path);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut first = [0; 1000];
    stream.read_exact(&mut first).expect("an answer that begins");
    let mut idle = Client::connect(replaced.server.addr());
    assert_eq!(idle.get(&sample.path).head.status, 200);

    replaced.must_upgrade();
    // Another of the old program would be closed.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the rest of the answer");
    assert!(first.len() + rest.len() > 64 << 20, "{}", rest.len());
    let local = Command::new("curl")
        .args(["-sf", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"])
        .arg(tree.at("web"))
        .arg(format!("http://h{}", sample.path))
        .output()
        .expect("curl");
    assert_eq!(local.stdout, b"200", "{local:?}");
    replaced.stop();
    assert!(!tree.at("web").exists() && !tree.at("admin").exists(), "the last one takes the files away");
}

/// The file is not what it was: the new program says what is wrong and ends, and nothing has changed. By the
/// number of the process as well.
#[test]
fn a_new_program_that_fails_leaves_the_old_one_serving() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 5000);
    let file = tree.at("annulus.toml");
    let text = |key: &str| {
        format!("{key}\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = \"{}\"\n", tree.root().display())
    };
    std::fs::write(&file, text("admin = \"127.0.0.1:0\"\nprocesses = \"one\""))
        .expect("writing a file of our own");
    let server = Launch::new().arg("run").arg(&file).start();
    let (addr, pid) = (server.addr(), server.pid().to_string());
    std::fs::write(&file, text("nonsense = 1")).expect("writing a file of our own");
    let by_number =
        || Command::new(bin::annulus()).args(["upgrade", "--pid", &pid]).output().expect("a program");
    let (served, ended) = under_load(addr, &sample, by_number);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("goes on") && said.contains("annulus.toml is wrong"), "{said}");
    assert!(served > 0);

    std::fs::write(&file, text("processes = \"one\"")).expect("writing a file of our own");
    let ended = by_number();
    assert!(ended.status.success(), "{ended:?}");
    // The first program ends; the second has to be found, and has no address for operators any more.
    let line = server.err().wait_for("who has taken over", |line| {
        line.strip_prefix("annulus: process ")?
            .strip_suffix(" has taken over: what is open here finishes")?
            .parse()
            .ok()
    });
    let next: i32 = line.expect("the line");
    assert_eq!(Client::connect(addr).get(&sample.path).head.status, 200);
    kill_process(Pid::from_raw(next).expect("a number"), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().code(), 0);
}

/// One core more or less: no socket of the old program is left without a core that accepts from it.
#[test]
fn other_cores_take_over_all_sockets() {
    let two = cpus::two();
    if two.len() < 2 {
        return;
    }
    let tree = Tree::new();
    let sample = tree.file("file.txt", 5000);
    let file = tree.at("annulus.toml");
    let write = |cores: &[usize]| {
        let text = format!(
            "processes = \"one\"\ncores = \"{}\"\nadmin = \"unix:{}\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = \"{}\"\n",
            cpus::list(cores),
            tree.at("admin").display(),
            tree.root().display()
        );
        std::fs::write(&file, text).expect("writing a file of our own");
    };
    write(&two);
    let server = Launch::new().arg("run").arg(&file).start();
    let replaced = Replaced { server, admin: format!("unix:{}", tree.at("admin").display()) };
    let addr = replaced.server.addr();
    for cores in [&two[..1], &two[..], &two[1..]] {
        write(cores);
        under_load(addr, &sample, || replaced.must_upgrade());
        // The kernel spreads them over the two sockets that there are.
        (0..64).for_each(|_| fetch(addr, &sample).expect("an answer"));
    }
    replaced.stop();
}

/// A process that would be killed by the signal does not get it.
///
/// Seen to fail: with a reload that signals whatever process is named.
#[test]
fn another_program_is_left_alone() {
    for order in ["upgrade", "reload"] {
        let mut sleeping = Command::new("sleep").arg("1000").spawn().expect("a program to start");
        let pid = sleeping.id().to_string();
        let ended = Command::new(bin::annulus()).args([order, "--pid", &pid]).output().expect("a program");
        sleeping.kill().expect("our child");
        // Killed by us, it was not ended by the signal before.
        let killed_by = sleeping.wait().expect("our child").signal();
        assert_eq!((killed_by, ended.status.code()), (Some(libc::SIGKILL), Some(2)), "{order}: {ended:?}");
    }
}

/// A socket that gives up.
fn datagrams() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binding");
    socket.set_read_timeout(Some(watch::LIMIT)).expect("a limit");
    socket
}

/// What comes, and from where.
fn heard(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = [0; 100];
    let (len, from) = socket.recv_from(&mut datagram).expect("a datagram in time");
    (datagram[..len].to_vec(), from)
}

/// New clients lose no datagram, whoever reads it. A session of the old program brings its client what the
/// upstream sends after the replacement; what the client sends goes by the new program.
///
/// Seen to fail: with sessions that end when their program has been replaced.
#[test]
fn datagrams_are_handed_over() {
    let tree = Tree::new();
    for processes in ["one", "core"] {
        let upstream = datagrams();
        let to = upstream.local_addr().expect("its address").to_string();
        let launch = Launch::new().args(["proxy", "--udp", "--udp-timeout", "3", "--to", &to]);
        let launch = launch.listen("127.0.0.1:0").processes(processes).cores(&cpus::list(&cpus::two()));
        let replaced = Replaced::start(&tree, launch);
        let address = replaced.server.addr();
        let known = datagrams();
        known.connect(address).expect("connecting");
        known.send(b"before").expect("sending");
        let (asked, session) = heard(&upstream);
        assert_eq!(asked, b"before");

        let stop = AtomicBool::new(false);
        let served = std::thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let mut last = None;
                while last.as_ref().is_none_or(|(asked, _)| asked != b"after") {
                    let (asked, from) = heard(&upstream);
                    upstream.send_to(&asked, from).expect("sending");
                    last = Some((asked, from));
                }
                last.expect("at least one").1
            });
            let asking = scope.spawn(|| {
                let mut served = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let client = datagrams();
                    client.connect(address).expect("connecting");
                    client.send(b"new").expect("sending");
                    assert_eq!(heard(&client).0, b"new");
                    upstream.send_to(b"late", session).expect("sending");
                    assert_eq!(heard(&known).0, b"late");
                    served += 1;
                }
                served
            });
            for _ in 0..3 {
                replaced.must_upgrade();
            }
            stop.store(true, Ordering::Relaxed);
            let served = asking.join().expect("no datagram is lost");
            known.send(b"after").expect("sending");
            assert_eq!(heard(&known).0, b"after");
            assert_ne!(answering.join().expect("an upstream"), session, "the old program has read it");
            served
        });
        eprintln!("3 replacements, {served} sessions with {processes}");
        replaced.stop();
    }
}
