//! What a service manager is told (`sd_notify(3)`), by a receiver in its place.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{cpus, watch};
use rustix::process::Signal;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A receiver of notifications.
struct Manager {
    socket: UnixDatagram,
    /// What NOTIFY_SOCKET says.
    address: String,
}

impl Manager {
    fn at_path(tree: &Tree) -> Manager {
        let path = tree.at("notify");
        Manager::of(UnixDatagram::bind(&path).expect("a socket"), path.display().to_string())
    }

    fn abstract_name() -> Manager {
        let name = format!("annulus-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        Manager::of(UnixDatagram::bind_addr(&address).expect("a socket"), format!("@{name}"))
    }

    fn of(socket: UnixDatagram, address: String) -> Manager {
        socket.set_read_timeout(Some(watch::LIMIT)).expect("a time");
        Manager { socket, address }
    }

    fn started_by(&self, launch: Launch, more: &[&str]) -> Server {
        self.wrapped(launch, more).start()
    }

    fn wrapped(&self, launch: Launch, more: &[&str]) -> Launch {
        let address = format!("NOTIFY_SOCKET={}", self.address);
        launch.under(&[&["env", address.as_str()], more].concat())
    }

    /// The next message, as lines.
    fn next(&self) -> Vec<String> {
        let mut text = [0; 4096];
        let len = self.socket.recv(&mut text).expect("a notification in time");
        let text = std::str::from_utf8(&text[..len]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// Nothing more has come from a program that has ended.
    fn must_hear_no_more(&self) {
        self.socket.set_nonblocking(true).expect("a socket of ours");
        let more = self.socket.recv(&mut [0; 4096]).map_err(|error| error.kind());
        assert_eq!(more, Err(std::io::ErrorKind::WouldBlock));
    }

    /// The next message must say `word`, and with it this of its status.
    fn must_hear(&self, word: &str, status: &str) -> Vec<String> {
        let lines = self.next();
        assert!(lines.iter().any(|line| line == word), "{word}: {lines:?}");
        let said = lines.iter().find_map(|line| line.strip_prefix("STATUS=")).expect("a status");
        assert!(said.contains(status), "{status}: {lines:?}");
        lines
    }
}

fn monotonic() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u128 * 1_000_000 + now.tv_nsec as u128 / 1000
}

/// Ready, two reloads of which one fails, the end; the processes of the nodes say nothing of their own.
///
/// Seen to fail: with members that get the environment of the first process as it is.
#[test]
fn ready_reloading_and_stopping_are_told_in_order() {
    for processes in ["one", "core"] {
        let tree = Tree::new();
        let manager = Manager::at_path(&tree);
        let file = tree.at("annulus.toml");
        let text = format!(
            "processes = \"{processes}\"\ncores = \"{}\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = \"{}\"\n",
            cpus::list(&cpus::two()),
            tree.root().display()
        );
        std::fs::write(&file, &text).expect("writing a file of our own");
        let server = manager.started_by(Launch::new().arg("run").arg(&file), &[]);
        manager.must_hear("READY=1", &format!("listening on http://{}", server.addr()));

        for (text, word) in [(text.as_str(), "in force"), ("x = 1", "nothing has changed")] {
            std::fs::write(&file, text).expect("writing a file of our own");
            let before = monotonic();
            server.signal(Signal::HUP);
            let lines = manager.must_hear("RELOADING=1", "anew");
            let at = lines.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
            let at: u128 = at.expect("the time").parse().expect("a number");
            assert!((before..=monotonic()).contains(&at), "{lines:?}");
            manager.must_hear("READY=1", word);
        }
        server.signal(Signal::TERM);
        let lines = manager.must_hear("STOPPING=1", "within 3 s");
        assert!(lines.contains(&"EXTEND_TIMEOUT_USEC=18000000".to_owned()), "{lines:?}");
        assert_eq!(server.wait().code(), 0);
        manager.must_hear_no_more();
    }
}

#[test]
fn a_start_that_fails_says_why() {
    let tree = Tree::new();
    let manager = Manager::abstract_name();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let ended = manager.wrapped(Launch::serve(tree.root()).listen(&address), &[]).run();
    assert_eq!(ended.code(), 2, "{ended:?}");
    let lines = manager.next();
    assert!(
        matches!(&lines[..], [line] if line.starts_with("STATUS=") && line.contains(&address)),
        "{lines:?}"
    );
}

/// Every process has to say that its cores are alive; another process's watchdog is none of ours.
#[test]
fn the_watchdog_hears_that_it_lives() {
    let tree = Tree::new();
    for processes in ["one", "core"] {
        let manager = Manager::at_path(&tree);
        let launch = || Launch::serve(tree.root()).processes(processes).cores(&cpus::list(&cpus::two()));
        let server = manager.started_by(launch(), &["WATCHDOG_USEC=600000"]);
        manager.must_hear("READY=1", "listening");
        (0..3).for_each(|_| assert_eq!(manager.next(), ["WATCHDOG=1"]));
        server.stop();
        std::fs::remove_file(tree.at("notify")).expect("the socket's file");

        let manager = Manager::at_path(&tree);
        let server = manager.started_by(launch(), &["WATCHDOG_USEC=600000", "WATCHDOG_PID=1"]);
        manager.must_hear("READY=1", "listening");
        server.stop();
        manager.must_hear("STOPPING=1", "ending");
        std::fs::remove_file(tree.at("notify")).expect("the socket's file");
    }
}

/// One thread that does not run, as long as this lives (`ptrace(2)`).
struct StoppedThread(i32);

impl StoppedThread {
    /// `None` where no process may look at its children.
    fn new(tid: i32) -> Option<Self> {
        // SAFETY: none of these takes memory of ours. The thread is one of a child of ours, and goes on when
        // this one ends at the latest.
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) != 0 {
                return None;
            }
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0), 0);
            assert_eq!(libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL), tid);
        }
        Some(StoppedThread(tid))
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

/// The thread of core 0 of a process.
fn core_thread(pid: u32) -> Option<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    tasks.map(|task| task.expect("a thread").file_name().into_string().expect("a number")).find_map(|tid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
        name.trim_end().ends_with("-0").then(|| tid.parse().expect("a number"))
    })
}

/// A core that is idle and does not run any more is stuck as well as one that is busy: the manager hears
/// nothing until it runs again.
///
/// Seen to fail: with cores that count as alive while none is in one poll of a task.
#[test]
fn the_watchdog_hears_nothing_while_a_core_is_stuck() {
    let tree = Tree::new();
    for processes in ["one", "core"] {
        let manager = Manager::at_path(&tree);
        let launch = Launch::serve(tree.root()).processes(processes).cores(&cpus::list(&cpus::two()));
        let server = manager.started_by(launch, &["WATCHDOG_USEC=600000"]);
        manager.must_hear("READY=1", "listening");
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let children = std::fs::read_to_string(children).expect("it lives");
        let member = children.split_whitespace().next().map(|pid| pid.parse().expect("a number"));
        let tid = core_thread(member.unwrap_or(server.pid())).expect("a core");
        let Some(stopped) = StoppedThread::new(tid) else {
            eprintln!("note: ptrace(2) is refused, so no core can be stopped");
            return;
        };
        let word = "a core is stuck";
        server.err().wait_for(word, |line| line.contains(word).then_some(())).expect("it lives");
        // What was on its way is here by now. After it nothing comes, for three times what is usual.
        manager.socket.set_nonblocking(true).expect("a socket of ours");
        while manager.socket.recv(&mut [0; 4096]).is_ok() {}
        std::thread::sleep(std::time::Duration::from_millis(600));
        let more = manager.socket.recv(&mut [0; 4096]).map_err(|error| error.kind());
        assert_eq!(more, Err(std::io::ErrorKind::WouldBlock));
        manager.socket.set_nonblocking(false).expect("a socket of ours");
        drop(stopped);
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
        server.stop();
        std::fs::remove_file(tree.at("notify")).expect("the socket's file");
    }
}

/// The manager learns which process is the main one now before that one speaks, and from the old one nothing
/// more.
#[test]
fn a_program_that_takes_over_is_the_main_process() {
    let tree = Tree::new();
    for processes in ["one", "core"] {
        let manager = Manager::at_path(&tree);
        let launch = Launch::serve(tree.root()).processes(processes).cores(&cpus::list(&cpus::two()));
        let server = manager.started_by(launch, &["WATCHDOG_PID=1", "WATCHDOG_USEC=600000"]);
        manager.must_hear("READY=1", "listening");
        server.signal(upgrade_signal());
        let main = manager.next();
        let pid =
            main.first().and_then(|line| line.strip_prefix("MAINPID=")).unwrap_or_else(|| panic!("{main:?}"));
        assert_ne!(pid, server.pid().to_string());
        let pid: i32 = pid.parse().expect("a number");
        // The new one is watched: the number in the environment was the old one's.
        let mut heard = Vec::new();
        while !heard.contains(&"WATCHDOG=1".to_owned()) {
            heard.extend(manager.next());
        }
        assert!(heard[0] == "READY=1" && !heard.iter().any(|line| line.starts_with("STOPPING")), "{heard:?}");
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a number"), Signal::TERM)
            .expect("it runs");
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        std::fs::remove_file(tree.at("notify")).expect("the socket's file");
    }
}

fn upgrade_signal() -> Signal {
    // SAFETY: the C library uses none of those from SIGRTMIN() on.
    unsafe { Signal::from_raw_unchecked(libc::SIGRTMIN()) }
}
