//! Reading the configuration again while clients are served, and the order of the end.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{net, stats};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A tree with two directories whose files say which they are, and a file of configuration.
struct Setting {
    tree: Tree,
}

impl Setting {
    fn new() -> Setting {
        let tree = Tree::new();
        for name in ["one", "two"] {
            tree.dir(name);
            std::fs::write(tree.at(name).join("a.txt"), name).expect("writing a file of our own");
        }
        Setting { tree }
    }

    fn file(&self) -> PathBuf {
        self.tree.at("annulus.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("writing a file of our own");
    }

    /// A listener on `addr` that serves the directory `name`.
    fn listener(&self, addr: &str, name: &str) -> String {
        format!("[[listener]]\nlisten = \"{addr}\"\nroot = \"{}\"\n", self.tree.at(name).display())
    }

    /// The program with a listener that serves "one", in so many `processes`; the first lines of its file,
    /// and a client that has its first answer.
    fn serving(processes: &str) -> (Setting, String, Server, Client) {
        let setting = Setting::new();
        let head = format!("processes = \"{processes}\"\n");
        setting.write(&(head.clone() + &setting.listener("127.0.0.1:0", "one")));
        let server = setting.start();
        let mut client = Client::connect(server.addr());
        assert_eq!(body(&mut client), "one");
        (setting, head, server, client)
    }

    fn start(&self) -> Server {
        Launch::new().arg("run").arg(self.file()).start()
    }
}

/// Waits for a line with `word` that came after `after` lines, and returns how many lines there are up to it.
fn wait_for(server: &Server, word: &str, after: usize) -> usize {
    let mut seen = 0;
    server
        .err()
        .wait_for(word, |line| {
            seen += 1;
            (seen > after && line.contains(word)).then_some(seen)
        })
        .expect("the server lives")
}

fn reload(server: &Server, word: &str) {
    let after = server.err().so_far().len();
    server.signal(Signal::HUP);
    wait_for(server, word, after);
}

/// How the program serves: one process, several.
const PROCESSES: [&str; 2] = ["one", "core"];

const IN_FORCE: &str = "is in force for new connections";

fn body(client: &mut Client) -> String {
    let response = client.get("/a.txt");
    assert_eq!(response.head.status, 200);
    String::from_utf8_lossy(&response.body).into_owned()
}

/// Seen to fail: with connections that get the old service; by waiting for ever, with old ones that are not
/// told to close.
#[test]
fn what_is_right_is_in_force_for_new_connections_and_old_ones_finish() {
    for processes in PROCESSES {
        let (setting, head, server, mut old) = Setting::serving(processes);
        setting.write(&(head + &setting.listener("127.0.0.1:0", "two")));
        reload(&server, IN_FORCE);
        for _ in 0..20 {
            assert_eq!(body(&mut Client::connect(server.addr())), "two", "a new connection");
        }
        // An old one gets an answer from where it is, and is closed then: it does not stay under the old one
        // for ever.
        assert_eq!(body(&mut old), "one");
        old.must_be_closed();
        server.stop();
    }
}

/// Seen to fail, by waiting for ever: with a port that is taken left out of what is gone over to.
#[test]
fn what_is_wrong_leaves_all_as_it_was_and_says_so() {
    for processes in PROCESSES {
        let (setting, head, server, mut old) = Setting::serving(processes);
        // No TOML, a directory that is not there, a port that is taken, no file at all.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().map(|addr| (addr, taken)).expect("its address");
        let wrong = [
            "grace = ".to_owned(),
            head.clone() + &setting.listener("127.0.0.1:0", "three"),
            head.clone()
                + &setting.listener("127.0.0.1:0", "two")
                + &setting.listener(&taken.0.to_string(), "two"),
        ];
        for text in wrong {
            setting.write(&text);
            reload(&server, "nothing has changed");
        }
        std::fs::remove_file(setting.file()).expect("a file of our own");
        reload(&server, "nothing has changed");
        assert_eq!(body(&mut old), "one", "the old connection goes on");
        assert_eq!(body(&mut Client::connect(server.addr())), "one", "so do new ones");
        setting.write(&(head + &setting.listener("127.0.0.1:0", "two")));
        reload(&server, IN_FORCE);
        assert_eq!(body(&mut Client::connect(server.addr())), "two");
        server.stop();
    }
}

/// Listeners come and go; what was connected to one that goes is served, also what nobody had accepted yet.
/// Seen to fail: with a listener that is closed without a look at what has connected, and with an admin
/// server that goes on telling of the old listeners.
#[test]
fn listeners_come_and_go_and_leave_nobody_behind() {
    for processes in PROCESSES {
        let setting = Setting::new();
        let socket = setting.tree.at("socket");
        let unix = format!("unix:{}", socket.display());
        let admin = net::free_addr();
        let head = format!("processes = \"{processes}\"\ngrace = 7\nadmin = \"{admin}\"\n");
        let (first, second) = (net::free_addr().to_string(), net::free_addr().to_string());
        // Some are accepted, and the others wait in the backlog.
        let few = "max-connections = 2\n";
        let text = head.clone() + &setting.listener(&first, "one") + few + &setting.listener(&unix, "one");
        setting.write(&text);
        let server = setting.start();
        let first_addr: SocketAddr = first.parse().expect("an address");
        let idle: Vec<Client> = (0..16).map(|_| Client::connect(first_addr)).collect();
        setting.write(&(head + &setting.listener(&second, "two")));
        reload(&server, IN_FORCE);
        let lines = server.err().so_far();
        for word in [
            format!("no longer listening on {first}"),
            format!("no longer listening on {unix}"),
            format!("listening on http://{second}"),
        ] {
            assert!(lines.iter().any(|line| line.ends_with(&word)), "{word}: {lines:#?}");
        }
        std::thread::scope(|scope| {
            // All at once: whoever has a place makes room for another when it goes.
            let asked = idle.into_iter().map(|mut client| scope.spawn(move || body(&mut client)));
            let asked: Vec<_> = asked.collect();
            asked.into_iter().for_each(|said| assert_eq!(said.join().expect("an answer"), "one"));
        });
        assert!(!socket.exists());
        let status = Client::connect(admin).get("/status").body;
        let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
        assert_eq!(status["listeners"], serde_json::json!([format!("listening on http://{second}")]));
        let second: SocketAddr = second.parse().expect("an address");
        assert_eq!(body(&mut Client::connect(second)), "two");
        annulus_integration_tests::watch::until("the first address is free", || {
            std::net::TcpListener::bind(first_addr).is_ok().then_some(())
        });
        server.stop();
    }
}

/// Many clients, each request on a connection of its own, while the configuration changes again and again:
/// each gets an answer of one or of the other. Seen to fail, by waiting for ever: with endpoints that are
/// opened again in place of being kept.
#[test]
fn under_load_every_connection_is_accounted_for() {
    for processes in PROCESSES {
        let setting = Setting::new();
        let addr = net::free_addr();
        let text = |name: &str, extra: &str| {
            let listener = setting.listener(&addr.to_string(), name);
            format!("processes = \"{processes}\"\nstats = true\n{listener}{extra}")
        };
        setting.write(&text("one", ""));
        let server = setting.start();
        let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let coming = setting.listener(&net::free_addr().to_string(), "one");
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let said = body(&mut Client::connect(addr));
                            assert!(said == "one" || said == "two", "{said}");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            for round in 0..20 {
                let name = if round % 2 == 0 { "two" } else { "one" };
                setting.write(&text(name, if round % 3 == 0 { &coming } else { "" }));
                reload(&server, IN_FORCE);
                assert_eq!(body(&mut Client::connect(addr)), name, "round {round}");
            }
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().for_each(|client| client.join().expect("a client without complaints"));
        });
        let answered = answered.load(Ordering::Relaxed) + 20;
        assert!(answered > 40);
        // Each was accepted once, and there was no other.
        assert_eq!(stats::of(&server.stop()).total("accepts"), answered);
    }
}

/// Seen to fail, by waiting for ever: with nothing named.
#[test]
fn what_takes_a_restart_is_named() {
    let setting = Setting::new();
    let listener = setting.listener("127.0.0.1:0", "one");
    setting.write(&format!("processes = \"one\"\n{listener}"));
    let server = setting.start();
    setting.write(&format!("processes = \"one\"\npool = \"32M\"\ngrace = 60\n{listener}"));
    reload(&server, "`pool` takes a restart to change");
    server.stop();
}

/// Started by flags there is no file, and a terminal that goes away does not end it. Seen to fail: with
/// SIGHUP taken for an end.
#[test]
fn started_by_flags_it_goes_on() {
    let setting = Setting::new();
    let mut server = Launch::serve(&setting.tree.at("one")).start();
    reload(&server, "started by flags");
    assert_eq!(body(&mut Client::connect(server.addr())), "one");
    server.must_live();
    server.stop();
}

/// Asked to end, it first serves new clients for a while; a second signal does not wait for that. Seen to
/// fail: without the while.
#[test]
fn new_clients_are_served_while_it_waits() {
    for processes in PROCESSES {
        let setting = Setting::new();
        let launch = Launch::serve(&setting.tree.at("one")).processes(processes);
        let server = launch.args(["--drain-wait", "3600"]).arg("-v").start();
        let mut old = Client::connect(server.addr());
        assert_eq!(body(&mut old), "one");
        server.signal(Signal::TERM);
        wait_for(&server, "new clients are not welcome", 0);
        for _ in 0..8 {
            let mut client = Client::connect(server.addr());
            client.send(http::get("/a.txt")).expect("sending");
            let head = client.head().expect("a head");
            assert_eq!(head.status, 200);
        }
        server.signal(Signal::TERM);
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
}

/// The command does what the signal does, by the process's number and by the admin address. Seen to fail, by
/// waiting for ever: with another signal.
#[test]
fn the_command_finds_the_program_by_number_and_by_admin_address() {
    let setting = Setting::new();
    let socket = setting.tree.at("admin");
    let unix = format!("unix:{}", socket.display());
    let text = |name: &str| {
        format!("processes = \"one\"\nadmin = \"{unix}\"\n{}", setting.listener("127.0.0.1:0", name))
    };
    setting.write(&text("one"));
    let server = setting.start();
    wait_for(&server, "admin on", 0);
    let pid = server.pid().to_string();
    for (name, by) in [("two", ["--pid", &pid]), ("one", ["--admin", &unix])] {
        setting.write(&text(name));
        let after = server.err().so_far().len();
        let ended = Launch::new().arg("reload").args(by).run();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        wait_for(&server, IN_FORCE, after);
        assert_eq!(body(&mut Client::connect(server.addr())), name);
    }
    server.stop();
    let missing = Launch::new().args(["reload", "--admin", &unix]).run();
    assert!(missing.one_line(2).contains("cannot ask"), "{missing:#?}");
    assert_eq!(Launch::new().arg("reload").run().code(), 2);
}
