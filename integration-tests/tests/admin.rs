//! The admin server: what operators and their tools see, and that nobody else's traffic has a part in it.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, net, procfs, watch};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

const AN_HOUR: u32 = 3600;

/// Where it answers operators.
#[track_caller]
fn admin(server: &Server) -> SocketAddr {
    let found = server.err().wait_for("the admin line", |line| {
        line.strip_prefix("annulus: admin on http://").map(|addr| addr.parse().expect("an address"))
    });
    found.expect("the server ended")
}

/// One request on a connection of its own: the head, and the body.
#[track_caller]
fn exchange(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).expect("sending");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    (head.to_owned(), body.to_owned())
}

/// GET, which must be answered with `status`.
#[track_caller]
fn get(addr: SocketAddr, path: &str, accept: &str, status: u16) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: {accept}\r\n\r\n");
    let (head, body) = exchange(net::connect(addr).expect("connecting"), &request);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
    body
}

/// The value of a sample.
#[track_caller]
fn value(metrics: &str, sample: &str) -> f64 {
    let found = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {sample} in\n{metrics}"))
}

/// The sum of a family's samples.
fn total(metrics: &str, family: &str) -> f64 {
    let of = |line: &str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = metrics
        .lines()
        .filter(|line| of(line))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

#[test]
fn what_clients_ask_for_is_counted_and_what_operators_ask_for_is_not() {
    let tree = Tree::new();
    let (small, large) = (tree.file("small.txt", 100), tree.file("large.bin", 1 << 20));
    let server = Launch::serve(tree.root()).args(["--admin", "127.0.0.1:0", "--access-log", "-"]).start();
    let admin = admin(&server);
    let mut client = Client::connect(server.addr());
    for _ in 0..5 {
        assert_eq!(client.get(&small.path).head.status, 200);
    }
    assert_eq!(client.get(&large.path).head.status, 200);
    assert_eq!(client.get("/none").head.status, 404);
    // A request is counted when it has been answered, a moment after the client has the answer.
    let metrics = watch::until("all are counted", || {
        let metrics = get(admin, "/metrics", "*/*", 200);
        (total(&metrics, "annulus_http_requests_total") == 7.0).then_some(metrics)
    });
    assert_eq!(value(&metrics, r#"annulus_http_requests_total{method="GET",code="200"}"#), 6.0);
    assert_eq!(value(&metrics, r#"annulus_http_requests_total{method="GET",code="404"}"#), 1.0);
    assert_eq!(value(&metrics, "annulus_http_request_duration_seconds_count"), 7.0);
    let bodies = value(&metrics, "annulus_http_response_body_bytes_total");
    assert!((500.0..600.0).contains(&(bodies - 1048576.0)), "{bodies}");
    assert_eq!(total(&metrics, "annulus_file_bytes_total"), 1048576.0);
    assert_eq!(
        (total(&metrics, "annulus_connections_total"), total(&metrics, "annulus_connections_open")),
        (1.0, 1.0)
    );
    assert_eq!(value(&metrics, "annulus_ready"), 1.0);
    let status: serde_json::Value = serde_json::from_str(&get(admin, "/status", "*/*", 200)).expect("JSON");
    assert_eq!(status["requests"]["GET"]["200"], 6);
    assert_eq!(get(admin, "/healthz", "*/*", 200), "ok\n");
    assert_eq!(get(admin, "/readyz", "*/*", 200), "ready\n");
    get(admin, "/nothing", "*/*", 404);
    let page = get(admin, "/", "*/*", 200);
    assert!(page.starts_with("<!doctype html>") && page.contains("/status"), "{page}");
    drop(client);
    let ended = server.stop();
    assert_eq!(ended.out.len(), 7, "the access log: {:#?}", ended.out);
}

#[test]
fn a_relay_is_counted() {
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr()).args(["--admin", "127.0.0.1:0"]).start();
    let admin = admin(&server);
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(&[7; 1000]).expect("sending");
    client.shutdown(std::net::Shutdown::Write).expect("half a close");
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("the echo");
    let metrics = watch::until("it is counted", || {
        let metrics = get(admin, "/metrics", "*/*", 200);
        (total(&metrics, "annulus_relay_connections_total") == 1.0).then_some(metrics)
    });
    assert_eq!(value(&metrics, r#"annulus_relay_connections_total{outcome="closed"}"#), 1.0);
    assert_eq!(value(&metrics, r#"annulus_relay_payload_bytes_total{direction="up"}"#), 1000.0);
    assert_eq!(value(&metrics, r#"annulus_relay_payload_bytes_total{direction="down"}"#), 1000.0);
    assert_eq!(total(&metrics, "annulus_relay_bytes_total"), 2000.0);
    server.stop();
}

/// An operator takes an upstream out of service and puts it in again, in every process. Seen to fail: with an
/// order that the first process keeps to itself.
#[test]
fn upstreams_go_out_of_service_and_come_back() {
    let named = |name: &'static [u8]| {
        Upstream::start(move |mut stream| {
            // Whoever has gone need not be told.
            let _ = stream.write_all(name);
        })
    };
    let (one, two) = (named(b"1"), named(b"2"));
    for processes in ["one", "core"] {
        let launch = Launch::proxy(one.addr()).processes(processes).arg("--to").arg(two.addr().to_string());
        let server = launch.args(["--admin", "127.0.0.1:0"]).start();
        let admin = admin(&server);
        let order = |word: &str| {
            let path = format!("/upstreams/{}/{word}", two.addr());
            let request = format!("POST {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n");
            exchange(net::connect(admin).expect("connecting"), &request).0
        };
        // By whom so many connections are answered.
        let answered = || -> BTreeSet<String> {
            let answer = || {
                let mut said = String::new();
                net::connect(server.addr()).expect("connecting").read_to_string(&mut said).expect("a name");
                said
            };
            (0..32).map(|_| answer()).collect()
        };
        let both: BTreeSet<String> = ["1".to_owned(), "2".to_owned()].into();
        assert_eq!(answered(), both);
        assert!(order("out").starts_with("HTTP/1.1 200 "), "{processes}");
        assert_eq!(answered(), ["1".to_owned()].into(), "{processes}");
        let state = format!("upstream=\"{}\",state=\"out\"}}", two.addr());
        let metrics = get(admin, "/metrics", "*/*", 200);
        let views = metrics.lines().filter(|line| line.contains(&state)).collect::<Vec<_>>();
        assert!(
            views.iter().any(|line| line.starts_with("annulus_upstream_state{") && line.ends_with(" 1")),
            "{views:?}"
        );
        assert!(order("in").starts_with("HTTP/1.1 200 "), "{processes}");
        assert_eq!(answered(), both, "{processes}");
        server.stop();
    }
}

/// Seen to fail: with an answer that says ready until the end.
#[test]
fn it_is_not_ready_while_it_drains_and_answers_to_the_end() {
    let tree = Tree::new();
    let large = tree.file("large.bin", 64 << 20);
    let server = Launch::serve(tree.root()).args(["--admin", "127.0.0.1:0"]).grace(AN_HOUR).start();
    let admin = admin(&server);
    assert_eq!(get(admin, "/readyz", "*/*", 200), "ready\n");
    let mut client = Client::connect(server.addr());
    client.send(annulus_integration_tests::http::get(&large.path)).expect("sending");
    client.head().expect("a head");
    server.signal(Signal::TERM);
    watch::until("it is not ready", || {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        let (head, body) = exchange(net::connect(admin).expect("connecting"), &request);
        (head.starts_with("HTTP/1.1 503 ") && body.contains("draining")).then_some(())
    });
    assert_eq!(value(&get(admin, "/metrics", "*/*", 200), "annulus_ready"), 0.0);
    assert_eq!(value(&get(admin, "/metrics", "*/*", 200), r#"annulus_stage{stage="draining"}"#), 1.0);
    assert_eq!(get(admin, "/healthz", "*/*", 200), "ok\n");
    assert_eq!(client.body_sum(64 << 20).expect("the body"), large.sum);
    drop(client);
    assert_eq!(server.wait().code(), 0);
}

/// Seen to fail: with a limit on connections that turns the newest away.
#[test]
fn those_who_say_nothing_hold_nobody_up() {
    let tree = Tree::new();
    let server = Launch::serve(tree.root()).args(["--admin", "127.0.0.1:0"]).grace(AN_HOUR).start();
    let admin = admin(&server);
    let silent: Vec<_> = (0..100).map(|_| net::connect(admin).expect("connecting")).collect();
    let mut half = net::connect(admin).expect("connecting");
    half.write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("sending");
    assert_eq!(get(admin, "/healthz", "*/*", 200), "ok\n");
    // Nor do they hold up the end.
    server.stop();
    drop((silent, half));
}

#[test]
fn a_unix_socket_is_its_owners_and_goes_with_the_program() {
    let (tree, place) = (Tree::new(), Tree::new());
    let path = place.at("admin.sock");
    let start = || Launch::serve(tree.root()).arg("--admin").arg(format!("unix:{}", path.display())).start();
    let server = start();
    assert!(
        server
            .err()
            .wait_for("the admin line", |line| line.contains("admin on http://unix:").then_some(()))
            .is_some()
    );
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |request: &str| exchange(UnixStream::connect(&path).expect("connecting"), request);
    assert_eq!(ask("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").1, "ready\n");
    assert!(ask("POST /upstreams/a:1/out HTTP/1.1\r\nHost: x\r\n\r\n").0.starts_with("HTTP/1.1 404 "));
    // A second one is told that the first is there.
    let second = Launch::serve(tree.root()).arg("--admin").arg(format!("unix:{}", path.display())).run();
    assert!(second.one_line(2).contains("in use"), "{second:#?}");
    server.stop();
    assert!(!path.exists());
    // What a program that was killed has left is no hindrance.
    let killed = start();
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(path.exists());
    start().stop();
}

#[test]
fn an_address_that_is_taken_is_told_in_a_line() {
    let tree = Tree::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = holder.local_addr().expect("its address").to_string();
    let ended = Launch::serve(tree.root()).args(["--admin", &addr]).run();
    assert!(ended.one_line(2).contains(&addr), "{ended:#?}");
}

#[test]
fn a_reload_can_be_ordered() {
    let tree = Tree::new();
    for processes in ["one", "core"] {
        let server = Launch::serve(tree.root()).processes(processes).args(["--admin", "127.0.0.1:0"]).start();
        let admin = admin(&server);
        let order = |from: &str| {
            let request =
                format!("POST /reload HTTP/1.1\r\nHost: {admin}\r\n{from}Content-Length: 0\r\n\r\n");
            exchange(net::connect(admin).expect("connecting"), &request).0
        };
        assert!(order("Origin: http://elsewhere.example\r\n").starts_with("HTTP/1.1 403 "));
        assert!(order("").starts_with("HTTP/1.1 200 "));
        let told =
            server.err().wait_for("what came of it", |line| line.contains("started by flags").then_some(()));
        assert!(told.is_some(), "{processes}: the server ended");
        server.stop();
    }
}

/// The names of the metrics in a text of queries.
fn names(queries: &str) -> BTreeSet<String> {
    let words = queries.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| word.starts_with("annulus_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

/// Seen to fail: with a family renamed.
#[test]
fn the_dashboard_asks_for_nothing_that_is_not_there() {
    // Not read when the test runs: that may be as a user who cannot read the checkout.
    let text = include_str!("../../deploy/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().expect("a query")).collect();
    let asked = names(&queries.join("\n"));
    assert!(queries.len() > 30 && asked.len() > 30, "{} queries", queries.len());
    let tree = Tree::new();
    let server = Launch::serve(tree.root()).args(["--admin", "127.0.0.1:0"]).start();
    let metrics = get(admin(&server), "/metrics", "*/*", 200);
    let mut there = BTreeSet::new();
    for (name, kind) in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        there.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    assert_eq!(asked.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new());
    server.stop();
}

/// Prometheus' own tools read it: `promtool` of Debian's package prometheus, which `PROMTOOL` names where it
/// is in no PATH, and the parsers of python3-prometheus-client. `scripts/test` has both.
#[test]
fn prometheus_and_its_python_client_read_the_metrics() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let server = Launch::serve(tree.root()).args(["--admin", "127.0.0.1:0"]).start();
    let admin = admin(&server);
    assert_eq!(Client::connect(server.addr()).get(&small.path).head.status, 200);
    let plain = get(admin, "/metrics", "*/*", 200);
    let open = get(admin, "/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", 200);
    assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF"));
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    feed(&[&promtool, "check", "metrics"], &plain);
    for (module, text) in
        [("prometheus_client.parser", &plain), ("prometheus_client.openmetrics.parser", &open)]
    {
        let script = format!(
            "import sys\nfrom {module} import text_string_to_metric_families as parse\n\
             assert len(list(parse(sys.stdin.read()))) > 60"
        );
        feed(&["python3", "-c", &script], text);
    }
    server.stop();
}

/// Gives `text` to a program that has to like it.
#[track_caller]
fn feed(words: &[&str], text: &str) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{words:?}: {error}; promtool is in Debian's package prometheus, python3 in python3-prometheus-client")
    });
    // It may end before it has read all: then it says why.
    let written = child.stdin.take().expect("its input").write_all(text.as_bytes());
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    written.expect("it reads all");
}

/// Where a process serves for each node, the first answers for all. Seen to fail: with the figures of one,
/// and with times that only the process measures whom operators ask.
#[test]
fn several_processes_are_one_program() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let server = Launch::serve(tree.root()).processes("core").args(["--admin", "127.0.0.1:0"]).start();
    let admin = admin(&server);
    let clients = 16;
    for _ in 0..clients {
        assert_eq!(Client::connect(server.addr()).get(&small.path).head.status, 200);
    }
    let metrics = watch::until("all are counted", || {
        let metrics = get(admin, "/metrics", "*/*", 200);
        (total(&metrics, "annulus_http_requests_total") == f64::from(clients)).then_some(metrics)
    });
    let timed = value(&metrics, "annulus_http_request_duration_seconds_count");
    assert_eq!(timed, f64::from(clients), "each request is in the histogram");
    let cores = annulus_integration_tests::cpus::allowed().len();
    // The first one has no cores; on a machine of one CPU there is but one process.
    let processes = if cores > 1 { cores + 1 } else { 1 };
    assert_eq!(value(&metrics, "annulus_processes"), processes as f64);
    let cpus = |line: &&str| line.starts_with("annulus_core_turns_total{");
    assert_eq!(metrics.lines().filter(cpus).count(), cores);
    assert_eq!(value(&metrics, "annulus_ready"), 1.0);
    let status: serde_json::Value = serde_json::from_str(&get(admin, "/status", "*/*", 200)).expect("JSON");
    assert!(status["listeners"][0].as_str().is_some_and(|line| line.contains("listening on")), "{status}");
    server.stop();
}

/// A process that does not answer is named as missing, and the others' figures are told. It takes the eight
/// seconds that a process has for its answer, once. Meanwhile probes are answered. Seen to fail: with the
/// figures of those that answered, as if they were all; with one thread that answers probes and asks.
#[test]
fn a_process_that_does_not_answer_is_missing_and_that_is_told() {
    let two = cpus::two();
    if two.len() < 2 {
        return;
    }
    let tree = Tree::new();
    let flags = ["--admin", "127.0.0.1:0"];
    let server = Launch::serve(tree.root()).processes("core").cores(&cpus::list(&two)).args(flags).start();
    let admin = admin(&server);
    let status =
        || -> serde_json::Value { serde_json::from_str(&get(admin, "/status", "*/*", 200)).expect("JSON") };
    let all = status();
    assert_eq!((&all["members"]["asked"], &all["members"]["answered"]), (&2.into(), &2.into()), "{all}");
    let member = procfs::children(server.pid())[0];
    let member = Pid::from_raw(member as i32).expect("not 0");
    kill_process(member, Signal::STOP).expect("stopping a member");
    let mut waits = net::connect(admin).expect("connecting");
    waits.write_all(format!("GET /status HTTP/1.1\r\nHost: {admin}\r\n\r\n").as_bytes()).expect("sending");
    for (path, word) in [("/healthz", "ok"), ("/readyz", "ready"), ("/", "<html")] {
        assert!(get(admin, path, "*/*", 200).contains(word), "{path}");
    }
    waits.set_nonblocking(true).expect("a socket");
    let came = waits.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(came, Err(std::io::ErrorKind::WouldBlock), "what asks nobody is answered before what asks");
    let some = status();
    assert_eq!((&some["members"]["asked"], &some["members"]["answered"]), (&2.into(), &1.into()), "{some}");
    assert_eq!(some["cores"].as_array().map(Vec::len), Some(1), "{some}");
    let metrics = get(admin, "/metrics", "*/*", 200);
    assert_eq!(
        (value(&metrics, "annulus_processes"), value(&metrics, "annulus_processes_silent")),
        (2.0, 1.0)
    );
    drop(waits);
    kill_process(member, Signal::CONT).expect("letting it go on");
    watch::until("all answer again", || (status()["members"]["answered"] == 2).then_some(()));
    server.stop();
}

/// `annulus top`: pictures one after the other where standard output is no terminal.
#[test]
fn top_shows_what_the_page_shows() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 1000);
    let socket = format!("unix:{}", tree.at("admin").display());
    let server = Launch::serve(tree.root()).args(["--admin", &socket]).start();
    assert_eq!(Client::connect(server.addr()).get(&sample.path).head.status, 200);
    let ended = Launch::new().args(["top", &socket, "--count", "2"]).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let count = |word: &str| ended.out.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("requests: 1;"), count("each second: "), count("away KB")), (2, 1, 2), "{ended:#?}");
    server.stop();
    let ended = Launch::new().args(["top", &socket]).run();
    assert!(ended.one_line(2).contains("--admin"), "{ended:#?}");
}
