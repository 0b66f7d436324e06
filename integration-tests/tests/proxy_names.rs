//! `annulus proxy`: upstreams whose names are looked up by DNS, of which the tests have a server of their
//! own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use annulus_integration_tests::dns::{Dns, Says};
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::namespace::Namespace;
use annulus_integration_tests::net;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::{Upstream, letter};

const A: &str = "127.0.0.1";
const B: &str = "127.0.0.2";
const SIX: &str = "::1";
/// A time that no test waits for, in seconds.
const LONG: &str = "86400";

/// Upstreams at one port of several addresses, each of which says its letter first and then echoes.
struct Lettered {
    port: u16,
    _upstreams: Vec<Upstream>,
}

fn lettered(addresses: &[(&str, u8)]) -> Lettered {
    let addresses: Vec<_> = addresses.iter().filter(|(address, _)| can_be_had(address)).copied().collect();
    // A port that is free at one address may be taken at another.
    let (port, listeners) = loop {
        let first = TcpListener::bind((addresses[0].0, 0)).expect("a port");
        let port = first.local_addr().expect("its address").port();
        let rest = addresses[1..].iter().map(|(address, _)| TcpListener::bind((*address, port)));
        match rest.collect::<Result<Vec<_>, _>>() {
            Ok(rest) => break (port, std::iter::once(first).chain(rest)),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(e) => panic!("listening at {addresses:?}: {e}"),
        }
    };
    let upstreams =
        listeners.zip(&addresses).map(|(listener, (_, letter))| Upstream::lettered_on(listener, *letter));
    Lettered { port, _upstreams: upstreams.collect() }
}

/// Not every machine has IPv6.
fn can_be_had(address: &str) -> bool {
    address != SIX || TcpListener::bind((SIX, 0)).is_ok()
}

/// `annulus proxy` to `name`, which `dns` knows, and is asked for after `interval` where it tells no TTL.
fn relay(name: &str, port: u16, dns: SocketAddr, interval: &str) -> Launch {
    Launch::new()
        .args(["proxy", "--to", &format!("{name}:{port}"), "--resolver", &dns.to_string()])
        .args(["--resolve-interval", interval, "--queue-timeout", "80"])
        .listen("127.0.0.1:0")
        .processes("one")
}

#[track_caller]
fn echoes(client: &mut TcpStream) {
    client.write_all(b"?").expect("asking");
    let mut answer = [0];
    client.read_exact(&mut answer).expect("the echo");
    assert_eq!(answer, *b"?");
}

/// Waits until what `dns` says now is known: a look-up of two questions, or of four where it fails, has come
/// to its end when the next one begins. One question may be of a look-up that had begun before.
#[track_caller]
fn wait_until_known(dns: &Dns) {
    dns.wait_until_asked(6);
}

/// Seen to fail: with the interval in place of the TTL.
#[test]
fn a_name_is_asked_for_again_when_its_ttl_is_over_and_connections_stay() {
    let upstreams = lettered(&[(A, b'a'), (B, b'b'), (SIX, b'6')]);
    let dns = Dns::start(Says::of(&[A], 1));
    let server = relay("app.example", upstreams.port, dns.address(), LONG).start();
    let (mut first, which) = letter(&server);
    assert_eq!(which, b'a');
    // Another address, both families, the other family alone; by IPv6 first where both can be had.
    let turns: [(&[&str], u8); 4] = [(&[B], b'b'), (&[A, SIX], b'6'), (&[SIX], b'6'), (&[A], b'a')];
    for (says, due) in turns.into_iter().filter(|(says, _)| says.iter().all(|it| can_be_had(it))) {
        dns.say(Says::of(says, 1));
        wait_until_known(&dns);
        let (mut client, which) = letter(&server);
        assert_eq!(which, due, "{says:?}");
        echoes(&mut client);
        echoes(&mut first);
    }
    assert!(dns.names().iter().all(|name| name == "app.example"), "{:?}", dns.names());
    server.stop();
}

/// Whatever a TTL says, `--ttl-max` is when the name is asked for again.
///
/// Seen to fail: with a TTL as it is.
#[test]
fn a_ttl_has_bounds() {
    let upstreams = lettered(&[(A, b'a'), (B, b'b')]);
    let dns = Dns::start(Says::of(&[A], 86_400));
    let server = relay("app.example", upstreams.port, dns.address(), LONG).args(["--ttl-max", "1"]).start();
    assert_eq!(letter(&server).1, b'a');
    dns.say(Says::of(&[B], 86_400));
    wait_until_known(&dns);
    assert_eq!(letter(&server).1, b'b');
    server.stop();
    let ended = relay("app.example", 1, dns.address(), LONG).args(["--ttl-min", "9", "--ttl-max", "8"]).run();
    assert!(ended.one_line(2).contains("--ttl-min 9"), "{ended:?}");
}

/// The server of DNS says nothing until the relay has started and a client waits.
#[test]
fn a_silent_resolver_holds_up_neither_the_start_nor_who_waits_longer() {
    let upstreams = lettered(&[(A, b'a')]);
    let dns = Dns::start(Says::Nothing);
    let server = relay("app.example", upstreams.port, dns.address(), LONG).start();
    let mut waits = net::connect(server.addr()).expect("connecting");
    // Those of the start, and those of the core.
    dns.wait_until_asked(4);
    dns.say(Says::of(&[A], 1));
    let mut letter = [0];
    waits.read_exact(&mut letter).expect("who has waited is served");
    assert_eq!(letter[0], b'a');
    server.stop();
}

/// Seen to fail: with an answer that takes the addresses away.
#[test]
fn a_resolver_that_is_gone_or_ill_costs_nobody_what_is_known() {
    let upstreams = lettered(&[(A, b'a'), (B, b'b')]);
    // At an address of this test's own, whose ports nobody else takes.
    let dns = Dns::on(SocketAddr::new(net::own_loopback(), 0), Says::of(&[A], 1));
    let server = relay("app.example", upstreams.port, dns.address(), "1").start();
    let (mut first, _) = letter(&server);
    for says in [Says::Fails, Says::NoSuchName, Says::of(&[], 1)] {
        dns.say(says.clone());
        wait_until_known(&dns);
        assert_eq!(letter(&server).1, b'a', "{says:?}");
    }
    let told =
        |line: &str| line.contains("the name is not found; its addresses stay as they were").then_some(());
    server.err().wait_for("the line", told).expect("it lives");
    dns.say(Says::of(&[B], 1));
    wait_until_known(&dns);
    assert_eq!(letter(&server).1, b'b');
    let address = dns.address();
    drop(dns);
    // Nobody is there at all; then somebody is again.
    assert_eq!(letter(&server).1, b'b');
    let dns = Dns::on(address, Says::of(&[A], 1));
    wait_until_known(&dns);
    assert_eq!(letter(&server).1, b'a');
    echoes(&mut first);
    let ended = server.stop();
    // Two times that it went, two lines.
    let told = ended.err.iter().filter(|line| line.contains("is not found")).count();
    assert!((1..=2).contains(&told), "{ended:#?}");
}

/// Seen to fail: with a name that counts as not found yet.
#[test]
fn a_name_that_does_not_exist_is_refused_at_the_start() {
    let dns = Dns::start(Says::NoSuchName);
    let ended = relay("none.example", 80, dns.address(), LONG).run();
    let line = ended.one_line(2);
    assert!(line.contains("none.example") && line.contains("write an address that exists"), "{line}");
    let ended = Launch::new().args(["proxy", "--to", "a:1", "--resolver", "b"]).listen("127.0.0.1:0").run();
    assert!(ended.one_line(2).contains("ADDR:PORT"), "{ended:?}");
}

/// What this machine's files say: the hosts file, then DNS, by the search list and the TTL.
///
/// Seen to fail: without the hosts file.
#[test]
fn the_machines_own_files_say_where_names_are_looked_up() {
    let etc = Tree::new();
    for (name, text) in [
        ("hosts", "127.0.0.1 localhost\n127.0.0.2 listed.example\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
        ("resolv.conf", "nameserver 127.0.0.1\nsearch example\noptions timeout:1\n"),
        ("a", "something"),
    ] {
        std::fs::write(etc.at(name), text).expect("a file of ours");
    }
    let bind = |name: &str| format!("mount --bind {} $(readlink -f /etc/{name})", etc.at(name).display());
    let binds = ["hosts", "nsswitch.conf", "resolv.conf"].map(bind).join(" && ");
    let Some(namespace) = Namespace::new(&binds) else { return };
    let within = namespace.within();
    let mut dns = Command::new(within[0])
        .args(&within[1..])
        .arg(std::env::current_exe().expect("this test's own program"))
        .args(["--exact", "--ignored", "--nocapture", "as_a_server_of_dns"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server of DNS");
    let mut says = BufReader::new(dns.stdout.take().expect("a piped stdout")).lines();
    let mut wait_for = |word: &str| {
        let found = says.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)));
        found.unwrap_or_else(|| panic!("the server of DNS ended before it said {word:?}")).expect("a line")
    };
    wait_for("it answers");
    let files =
        |at: &str| Launch::serve(etc.root()).listen(at).args(["--access-log", "-"]).under(&within).start();
    let (first, second) = (files("127.0.0.1:6000"), files("127.0.0.2:6000"));
    let proxy = |name: &str| {
        let to = format!("{name}:6000");
        let launch = Launch::new().args(["proxy", "--to", &to, "--resolve-interval", LONG]);
        launch.listen("127.0.0.1:5000").processes("one").under(&within).start()
    };
    let fetch = || {
        let (is_well, said) =
            namespace.run(&["curl", "-qsS", "--fail", "--max-time", "80", "http://127.0.0.1:5000/a"]);
        assert!(is_well && said == "something", "{said}");
    };
    // The server of DNS says another address for that one.
    let listed = proxy("listed.example");
    fetch();
    listed.stop();
    let searched = proxy("app");
    fetch();
    dns.stdin.as_mut().expect("a piped stdin").write_all(b"other\n").expect("it lives");
    wait_for("asked for app.example");
    fetch();
    searched.stop();
    // Its standard input ends, and so does it.
    drop(dns.stdin.take());
    assert!(dns.wait().expect("it was ours").success());
    let served = |server: Server| server.stop().out.iter().filter(|line| line.contains("GET /a")).count();
    assert_eq!((served(first), served(second)), (1, 2));
}

/// Not a test: the server of DNS of the one above, in its network.
#[test]
#[ignore = "a process of another test"]
fn as_a_server_of_dns() {
    let dns = Dns::on("127.0.0.1:53".parse().expect("an address"), Says::of(&[A], 1));
    println!("it answers");
    for line in std::io::stdin().lines() {
        assert_eq!(line.expect("a line"), "other");
        dns.say(Says::of(&[B], 1));
        wait_until_known(&dns);
        println!("asked for {}", dns.names().last().expect("a name"));
    }
}
