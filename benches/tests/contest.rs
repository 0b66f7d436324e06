//! The contestants that are Annulus itself, the peers that are not there, and the exit status of a check.

use annulus_benches::contest::contestants::{Contestant, Learn, contestants};
use annulus_benches::contest::launch::{Place, run_own, start};
use annulus_benches::contest::rounds::{Match, Settings, Until, play};
use annulus_benches::contest::table::{Kind, Task, Workload, workloads};
use annulus_benches::drive::{Backend, Command, Load};
use annulus_benches::micro::Op;
use annulus_benches::pin::pin_current_thread;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const COMPARE: &str = env!("CARGO_BIN_EXE_compare");

/// CPUs that this test may use: two, or the same twice.
fn cpus() -> (u32, u32) {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cpus = (0..1024).filter(|cpu| allowed.is_set(*cpu)).map(|cpu| cpu as u32);
    let first = cpus.next().unwrap();
    (first, cpus.next().unwrap_or(first))
}

fn place(name: &str) -> Place {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&scratch).unwrap();
    let (cpu, other_cpu) = cpus();
    Place {
        bare: Path::new(COMPARE).parent().unwrap().to_owned(),
        peers: scratch.join("nowhere"),
        annulus: None,
        cpu,
        other_cpu,
        root: scratch.clone(),
        file: "file".into(),
        body: 3000,
        to: SocketAddr::from(([127, 0, 0, 1], 1)),
        scratch,
    }
}

fn ours(kind: Kind, name: &str) -> Contestant {
    contestants(kind).into_iter().find(|who| who.name == name).unwrap()
}

fn settings(only: &[&str]) -> Settings {
    let only = only.iter().map(|name| format!("{name}=")).collect();
    Settings { rounds: 2, run: Duration::from_millis(1), only, without: vec![], copy: false }
}

fn work(name: &str) -> Workload {
    workloads().into_iter().find(|work| work.name == name).unwrap()
}

#[test]
fn hello_on_annulus_sends_the_right_bytes() {
    let place = place("annulus-hello");
    for name in ["annulus hello", "annulus hyper"] {
        let server = start(&ours(Kind::Hello(3000), name), &place).unwrap();
        let load = Load::Http { path: "/".into(), body: 3000, connections: 16 };
        load.open(server.address, None, false).unwrap().verify().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// Seen to fail: with a server in its place that answers SET without keeping the value, and with one that
/// forgets the `$` of a bulk.
#[test]
fn redis_commands_are_done_on_annulus() {
    let server = start(&ours(Kind::Redis, "annulus redis"), &place("annulus-redis")).unwrap();
    let load = Load::Redis { command: Command::Get, pipelined: 16, connections: 8 };
    let mut session = load.open(server.address, None, false).unwrap();
    session.verify().unwrap();
    match session.run(2000) {
        Ok(done) => assert!(done.requests == 2000 && !done.wall.is_zero(), "{done:?}"),
        // scripts/bench installs it, scripts/test too.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let required = std::env::var_os("ANNULUS_PEERS").is_some_and(|value| value == "required");
            assert!(!required, "{e}");
            println!("left out: {e}");
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn every_micro_operation_is_done_on_annulus() {
    let place = place("annulus-micro");
    for op in Op::ALL {
        if op == Op::PingPong && place.cpu == place.other_cpu {
            continue;
        }
        let count = if op == Op::Sleepers { 1 } else { 100 };
        let sleeping = op == Op::Sleepers;
        let kind = if sleeping { Kind::Sleepers } else { Kind::Micro };
        for name in ["annulus", "annulus coarse"].into_iter().take(1 + usize::from(sleeping)) {
            let measured = run_own(&ours(kind, name), &place, op, count).unwrap();
            assert!(measured.ops >= 100 && !measured.cpu.is_zero(), "{op:?}: {measured:?}");
            assert_eq!(measured.late.is_some(), sleeping);
        }
    }
}

#[test]
fn what_is_not_built_is_left_out_and_named() {
    let outcomes = play(&work("yield"), &place("left-out"), &settings(&[]), &Until::default()).unwrap();
    let finished: Vec<&str> = outcomes.results.iter().map(|result| result.who.name.as_str()).collect();
    assert_eq!(finished, ["annulus"]);
    assert!(outcomes.left_out.iter().any(|(name, why)| name == "tokio" && why.contains("peer-tokio")));
    assert_eq!(outcomes.results[0].samples.len(), 2);
}

#[test]
fn a_program_that_measures_nothing_is_an_error_with_what_it_said() {
    let place = place("no-measure");
    let says = |what: &str| Contestant {
        name: "test".into(),
        command: vec!["/bin/sh".into(), "-c".into(), what.into()],
        learn: Learn::Line,
        conf: None,
        streams: false,
    };
    for (what, error) in [("echo oops >&2; exit 3", "oops"), ("echo 7", "ops"), ("exec >&-; exit 0", "ops")] {
        let e = run_own(&says(what), &place, Op::Yield, 1).unwrap_err().to_string();
        assert!(e.contains(error), "{what}: {e}");
    }
}

/// Annulus against itself is 1, whatever this machine does: half of that is missed, twice that is met.
#[test]
fn a_check_ends_with_one_if_and_only_if_a_bar_is_missed() {
    let (cpu, drive_cpu) = cpus();
    for (bar, code, verdict) in
        [("0.10", 1, "0 met, 1 missed"), ("10.0", 0, "1 met, 0 missed"), ("-", 0, "1 without")]
    {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("check-{code}-{}", bar.len()));
        std::fs::create_dir_all(&dir).unwrap();
        let bars = dir.join("bars.md");
        let line = format!("| yield | annulus | annulus | {bar} |");
        std::fs::write(&bars, format!("|work|ours|contestant|bar|\n|---|---|---|---|\n{line}\n")).unwrap();
        let out = std::process::Command::new(COMPARE)
            .args([
                "--run-ms",
                "1",
                "--cpu",
                &cpu.to_string(),
                "--drive-cpu",
                &drive_cpu.to_string(),
                "--dir",
            ])
            .args([dir.as_os_str(), "--check".as_ref(), bars.as_os_str()])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(code), "{printed} {}", String::from_utf8_lossy(&out.stderr));
        assert!(printed.lines().last().unwrap().contains(verdict), "{printed}");
    }
}

/// Every kind of work of the table, in turns of a millisecond, done by the bare ring.
#[test]
fn every_kind_of_work_is_checked_measured_and_told() {
    // A driver on another CPU than the server shows what the server's CPU still holds: where that one is
    // idle, the cold file was seen not to leave memory for ten seconds without the nudge of
    // `cold::drop_pages`.
    pin_current_thread(cpus().1).unwrap();
    for (name, who) in [
        ("hello-1k", "bare"),
        ("close-1k", "bare"),
        ("echo-100", "bare"),
        ("file-16k", "bare inline-splice:60k"),
        ("cold-64k", "bare sendfile:all"),
        ("relay-1", "bare mshot"),
        ("relay-64", "bare mshot"),
        ("relay-small", "bare mshot"),
        ("relay-close", "bare mshot"),
    ] {
        let outcomes = play(&work(name), &place(name), &settings(&[who]), &Until::default()).unwrap();
        assert_eq!(outcomes.left_out, [], "{name}");
        for sample in &outcomes.results[0].samples {
            assert!(
                sample.cpu_ns > 0 && sample.outcome.requests > 0 && sample.outcome.bytes > 0,
                "{name}: {sample:?}"
            );
            let latency = sample.outcome.latency.as_ref().map(|latency| latency.total());
            assert_eq!(latency, (name == "cold-64k").then_some(sample.outcome.requests), "{name}");
        }
    }
}

/// At a rate that takes a hundred times the time that the work does, nobody has to wait, yet it takes its
/// time.
#[test]
fn at_a_fixed_rate_the_schedule_sets_the_pace() {
    for (name, who) in [("rate-10k", "bare"), ("relay-rate-5k", "bare mshot")] {
        let mut work = work(name);
        let Task::Drive(Load::Paced { rate, .. }) = &mut work.task else { panic!("{name} has no rate") };
        *rate = 1000;
        let mut game = Match::new(&work, &place(name), &settings(&[who])).unwrap();
        game.round();
        let outcomes = game.finish();
        assert_eq!(outcomes.left_out, [], "{name}");
        let outcome = &outcomes.results[0].samples[0].outcome;
        let least = Duration::from_micros(1000 * (outcome.requests - 1));
        assert!(outcome.wall >= least, "{name}: {outcome:?}");
        assert_eq!(outcome.latency.as_ref().unwrap().total(), outcome.requests);
        let driver = outcome.driver.as_ref().unwrap();
        assert!(driver.late.total() > 0 && !driver.cpu.is_zero() && driver.cpu <= outcome.wall, "{driver:?}");
    }
}

/// The first message of each client makes its session; verified, each has bytes of its own.
#[test]
fn datagrams_are_checked_and_counted() {
    let backend = Backend::new(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let load = Load::Datagrams { size: 1024, clients: 4 };
    // The backend sends back what it receives, whoever sends it: no relay is needed for that.
    let mut session = load.open(backend.address(), Some(&backend), false).unwrap();
    session.verify().unwrap();
    let outcome = session.run(100).unwrap();
    assert_eq!((outcome.requests, outcome.bytes), (100, 100 * 1024));
}

/// A server that answers ten times more slowly than requests are due: what waits in the client counts as
/// well.
#[test]
fn what_waits_for_its_connection_is_late_from_its_moment_on() {
    const REQUESTS: u64 = 40;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slow = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        let mut request = [0; 4096];
        while client.read(&mut request).unwrap() > 0 {
            // The slowness that is to be seen: nothing is waited for.
            std::thread::sleep(Duration::from_millis(2));
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let backend = Backend::new(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let of = Box::new(Load::Http { path: "/".into(), body: 0, connections: 1 });
    let load = Load::Paced { of, rate: 5000 };
    let mut session = load.open(address, Some(&backend), false).unwrap();
    let latency = session.run(REQUESTS).unwrap().latency.unwrap();
    drop(session);
    slow.join().unwrap();
    // The last was due after 8 ms and answered after 80 at the earliest; by itself each takes 2 and a little.
    assert_eq!(latency.total(), REQUESTS);
    assert!(latency.most() >= 70_000_000, "{latency:?}");
    assert!(latency.quantile(0.5).unwrap() >= 30_000_000, "{latency:?}");
}

#[test]
fn idle_connections_cost_memory_of_both() {
    let mut work = work("idle-10k-user");
    work.task = Task::Idle(200);
    let outcomes = play(&work, &place("idle"), &settings(&["bare"]), &Until::default()).unwrap();
    assert_eq!(outcomes.left_out, []);
    for sample in &outcomes.results[0].samples {
        let memory = sample.memory.unwrap();
        assert!(memory.user > 0 && sample.outcome.requests == 200, "{sample:?}");
        assert!(memory.grown < memory.user as f64 && memory.kept < memory.user as f64, "{sample:?}");
    }
}

/// A file with one byte changed, behind a server that knows no better.
#[test]
fn a_wrong_byte_disqualifies() {
    let place = place("wrong-byte");
    for (name, file, bytes) in [("file-16k", "16k", 16 << 10), ("cold-64k", "cold-64k", 64 << 10)] {
        let mut wrong = annulus_benches::pattern::bytes(bytes);
        wrong[bytes - 1] ^= 1;
        std::fs::write(place.root.join(file), wrong).unwrap();
        let who = "bare sendfile:all";
        let outcomes = play(&work(name), &place, &settings(&[who]), &Until::default()).unwrap();
        assert!(outcomes.results.is_empty());
        let (left_out, why) = &outcomes.left_out[0];
        assert!(left_out == who && why.contains("disqualified") && why.contains("is wrong"), "{why}");
    }
}
