//! Several processes that serve as one: `--processes node`, seen on any machine by way of `core`, which makes
//! a process for each core. The guests of several nodes run the real thing (`scripts/lib/guest-serve`).

use annulus_integration_tests::files::{self, LARGE, Tree};
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::{Ended, Launch, Server};
use annulus_integration_tests::{cpus, curl, net, numa_maps, procfs, stats, watch};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A grace that no test waits for, in seconds: what ends before, ended for another reason.
const AN_HOUR: u32 = 3600;

fn launch(tree: &Tree) -> Launch {
    Launch::serve(tree.root()).processes("core").cores(&cpus::list(&cpus::two()))
}

/// The processes that serve for `server`: one for each of two cores, unless there is only one CPU.
#[track_caller]
fn members(server: &Server) -> Vec<Pid> {
    let members = procfs::children(server.pid());
    let expected = if cpus::two().len() > 1 { 2 } else { 0 };
    assert_eq!(members.len(), expected, "processes for {:?}", cpus::two());
    members.into_iter().map(|pid| Pid::from_raw(pid as i32).expect("not 0")).collect()
}

/// Waits until a process that is not ours has ended.
fn await_end(member: &std::os::fd::OwnedFd) {
    watch::until("a member has ended", || {
        let mut fds = [rustix::event::PollFd::new(member, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        (rustix::event::poll(&mut fds, Some(&now)).expect("poll of a pidfd") == 1).then_some(())
    });
}

#[track_caller]
fn one_listening_line(ended: &Ended) {
    let lines = ended.err.iter().filter(|line| line.contains("listening on")).count();
    assert_eq!(lines, 1, "{ended:#?}");
}

#[test]
fn they_share_one_port_and_every_one_of_them_answers() {
    let (tree, small, _) = files::small_and_large();
    let server = launch(&tree).arg("--stats").start();
    members(&server);
    assert_eq!(
        procfs::listeners(server.port()),
        cpus::two().len(),
        "a socket for each core, the parent keeps none"
    );
    for i in 0..200 {
        let response = Client::connect(server.addr()).get(&small.path);
        assert_eq!(
            (response.head.status, response.body.len() as u64),
            (200, small.sum.len),
            "connection {i}"
        );
    }
    let ended = server.stop();
    one_listening_line(&ended);
    let stats = stats::of(&ended);
    assert_eq!(stats.cores.len(), cpus::two().len());
    assert_eq!(stats.total("accepts"), 200);
    assert!(stats.cores.iter().all(|core| core["accepts"] > 0), "every process has accepted: {stats:?}");
    // Each line says whose it is.
    let named = ended.err.iter().filter(|line| line.starts_with("annulus: node ")).count();
    assert!(named >= members_of_two(), "{ended:#?}");
}

fn members_of_two() -> usize {
    if cpus::two().len() > 1 { 2 } else { 0 }
}

#[test]
fn a_proxy_of_several_processes_relays_by_each() {
    let (tree, _, large) = files::small_and_large();
    let origin = Launch::serve(tree.root()).start();
    let proxy = Launch::proxy(origin.addr()).processes("core").cores(&cpus::list(&cpus::two())).start();
    members(&proxy);
    assert!(proxy.line().contains(&format!(", relaying to {}", origin.addr())), "{}", proxy.line());
    for _ in 0..4 {
        assert_eq!(curl::sum(&proxy.url(&large.path)), large.sum);
    }
    one_listening_line(&proxy.stop());
}

/// As a terminal and a service manager send it: to every process. It counts once, so what runs is finished.
/// Seen to fail: with each order to end sent twice, as a member that obeys its own signals as well would have
/// it, the download is cut.
#[test]
fn a_signal_to_the_whole_group_counts_once_and_a_second_one_cuts() {
    let (tree, small, large) = files::small_and_large();
    for second in [false, true] {
        let server = launch(&tree).grace(AN_HOUR).start();
        let mut idle: Vec<Client> = (0..16)
            .map(|_| {
                let mut client = Client::connect(server.addr());
                assert_eq!(client.get(&small.path).head.status, 200);
                client
            })
            .collect();
        let mut busy = Client::connect(server.addr());
        busy.send(http::get(&large.path)).expect("sending");
        assert_eq!(busy.head().expect("a head").content_length(), LARGE);
        let members = members(&server);
        let to_all = |signal| {
            members.iter().for_each(|&member| kill_process(member, signal).expect("signalling a member"));
            server.signal(signal);
        };
        to_all(Signal::INT);
        idle.iter_mut().for_each(Client::must_be_closed);
        if second {
            server.signal(Signal::TERM);
            assert!(busy.read_to_close().expect("closed") < LARGE, "a download that nobody read was cut");
        } else {
            assert_eq!(busy.body_sum(LARGE).expect("the body"), large.sum);
        }
        let ended = server.wait();
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
}

/// Seen to fail: with the others asked to end, they finish what runs, for an hour if it takes that.
#[test]
fn one_that_is_killed_ends_all_with_1_and_says_so() {
    let (tree, small, large) = files::small_and_large();
    let server = launch(&tree).grace(AN_HOUR).start();
    let Some(&victim) = members(&server).first() else { return };
    assert_eq!(Client::connect(server.addr()).get(&small.path).head.status, 200);
    let addr = server.addr();
    // So many that the others have some.
    let busy: Vec<Client> = (0..16)
        .map(|_| {
            let mut busy = Client::connect(addr);
            busy.send(http::get(&large.path)).expect("sending");
            assert_eq!(busy.head().expect("a head").content_length(), LARGE);
            busy
        })
        .collect();
    kill_process(victim, Signal::KILL).expect("killing a member");
    let ended = server.wait();
    assert_eq!(ended.code(), 1, "{ended:#?}");
    let told = |line: &String| line.contains("killed by signal 9") && line.contains(&victim.to_string());
    assert!(ended.err.iter().any(told), "{ended:#?}");
    drop(busy);
    // The others have ended before it has; of the killed one the kernel takes the ring down, and with it the
    // socket, a little later.
    watch::until("the port is free again", || TcpListener::bind(addr).ok());
}

/// Seen to fail: with the end of the line to the parent taken for nothing to read, the members serve on.
#[test]
fn they_do_not_outlive_the_parent() {
    let (tree, ..) = files::small_and_large();
    let server = launch(&tree).start();
    let members: Vec<_> = members(&server)
        .into_iter()
        .map(|member| pidfd_open(member, PidfdFlags::empty()).expect("a living member"))
        .collect();
    server.signal(Signal::KILL);
    members.iter().for_each(await_end);
}

#[test]
fn what_is_refused_is_told_once() {
    let (tree, _, _) = files::small_and_large();
    // A port that is taken.
    let holder = TcpListener::bind("127.0.0.1:0").expect("binding a port");
    let addr = holder.local_addr().expect("its address");
    let line = launch(&tree).listen(&addr.to_string()).run().one_line(2).to_lowercase();
    assert!(line.contains("in use") && line.contains(&addr.to_string()), "{line:?}");
    // A platform that has no rings.
    let ended = launch(&tree).refused(&[libc::SYS_io_uring_setup], libc::EPERM).run();
    assert!(ended.one_line(3).contains("io_uring"), "{ended:#?}");
    // A platform that lets no process start another.
    if cpus::two().len() > 1 {
        let ended = launch(&tree).refused(&[libc::SYS_clone, libc::SYS_clone3], libc::EPERM).run();
        assert!(ended.one_line(3).contains("--processes one"), "{ended:#?}");
    }
    // Options that stand against several processes.
    let ended = launch(&tree).arg("--placement").arg("off").run();
    assert!(ended.one_line(2).contains("--placement off"), "{ended:#?}");
    // What only annulus says to itself.
    let told = Launch::new().args(["member", "0:0:1"]).run();
    assert!(told.one_line(2).contains("leave it to annulus"), "{told:#?}");
    let told = Launch::new().args(["member", "0"]).run();
    assert!(told.one_line(2).contains("only annulus itself says this"), "{told:#?}");
}

/// What lets a program start threads and no process lets it serve with all cores, unless several were
/// insisted on.
#[test]
fn one_serves_where_no_process_can_be_started() {
    let (tree, small, _) = files::small_and_large();
    let server = launch(&tree).processes("auto-core").threads_only().start();
    assert_eq!(procfs::children(server.pid()), []);
    for _ in 0..16 {
        assert_eq!(Client::connect(server.addr()).get(&small.path).head.status, 200);
    }
    let ended = server.stop();
    one_listening_line(&ended);
    if cpus::two().len() > 1 {
        let told = ended.err.iter().filter(|line| line.contains("one process serves with all cores")).count();
        assert_eq!(told, 1, "{ended:#?}");
        let ended = launch(&tree).threads_only().run();
        let line = ended.one_line(3);
        assert!(line.contains("Operation not permitted") && line.contains("--processes one"), "{line}");
    }
}

/// The first serves already: nobody goes on with half of the cores, also where one process would do. Seen to
/// fail: with the first one left to itself, the program does not end.
#[test]
fn one_that_cannot_be_started_later_ends_all_with_1() {
    let (tree, ..) = files::small_and_large();
    if cpus::two().len() < 2 {
        return;
    }
    let copy = tree.root().join("annulus");
    // By another program: a process that a test beside this one starts just now would inherit the descriptor
    // that is written to.
    let copied = Command::new("cp").arg(annulus_integration_tests::bin::annulus()).arg(&copy).status();
    assert!(copied.expect("cp is in coreutils").success());
    let mode = |mode| std::fs::set_permissions(&copy, Permissions::from_mode(mode)).expect("its mode");
    // The second may have been started before the first was stopped: then they are ended, and it begins
    // again.
    let ended = loop {
        mode(0o755);
        let mut early = true;
        let ended = launch(&tree).processes("auto-core").program(&copy).run_while(|pid| {
            // One that has not come to execve(2) yet would fail there: then no process can be started at all.
            let first = watch::until("a process has been started", || {
                let first = procfs::children(pid).first().copied()?;
                let words = std::fs::read(format!("/proc/{first}/cmdline")).ok()?;
                words.split(|byte| *byte == 0).any(|word| word == b"member").then_some(first)
            });
            let first = Pid::from_raw(first as i32).expect("not 0");
            // It does not come up before nobody can be started any more.
            kill_process(first, Signal::STOP).expect("a living member");
            mode(0o644);
            early = procfs::children(pid).len() == 1;
            kill_process(first, Signal::CONT).expect("a stopped member");
            if !early {
                kill_process(Pid::from_raw(pid as i32).expect("not 0"), Signal::TERM).expect("the parent");
            }
        });
        if early {
            break ended;
        }
        assert_eq!(ended.code(), 0, "{ended:#?}");
    };
    let line = ended.one_line(1);
    assert!(line.contains("cannot start the process") && line.contains("Permission denied"), "{line}");
}

/// numactl around the program: no member interleaves, and the picture says that this was overridden, once.
/// Seen to fail: with members that begin with the policy of the first process.
#[test]
fn a_policy_from_outside_is_overridden_in_each_and_told() {
    if !std::path::Path::new("/sys/devices/system/node/has_memory").exists() {
        println!("skipped: this kernel has no NUMA, hence no policy");
        return;
    }
    let (tree, ..) = files::small_and_large();
    let list = std::fs::read_to_string("/sys/devices/system/node/has_memory").expect("just seen");
    let nodes = cpus::parse_list(&list);
    if nodes.len() < 2 {
        println!("one node: it cannot be told whether a member prefers another than its own");
    }
    let (first, last) = (nodes[0], nodes[nodes.len() - 1]);
    for (flag, node, overridden) in
        [("--interleave", first, true), ("--preferred", last, true), ("--membind", first, false)]
    {
        let server = launch(&tree).under(&["numactl", &format!("{flag}={node}")]).start();
        let members = members(&server);
        server.signal(Signal::USR1);
        let mut shown = 0;
        server.err().wait_for("the stacks of all cores", |line| {
            shown += usize::from(line.contains(": stack of "));
            (shown >= cpus::two().len()).then_some(())
        });
        for member in &members {
            let maps = numa_maps::of(member.as_raw_nonzero().get() as u32).expect("the kernel has NUMA");
            let spread = maps.iter().filter(|map| map.policy.starts_with("interleave")).count();
            assert_eq!(spread, 0, "{flag}: of {} mappings", maps.len());
            let is_of = |map: &&numa_maps::Mapping, policy: &str| {
                map.policy.starts_with(policy) && map.policy.ends_with(&format!(":{node}"))
            };
            let is_home = maps.iter().any(|map| map.bound_to() == Some(node));
            if nodes.len() > 1 && !is_home {
                let preferring: Vec<_> = maps.iter().filter(|map| is_of(map, "prefer")).collect();
                assert!(preferring.is_empty(), "{flag}={node}: {preferring:?}");
            }
            if flag == "--membind" {
                assert!(is_home, "{flag}={node}: nothing of {} mappings is bound to it", maps.len());
                let elsewhere: Vec<_> =
                    maps.iter().filter(|map| map.policy.starts_with("bind") && !is_of(map, "bind")).collect();
                assert!(elsewhere.is_empty(), "{flag}={node}: {elsewhere:?}");
            }
        }
        let ended = server.stop();
        let told = ended.err.iter().filter(|line| line.contains("override the policy")).count();
        assert_eq!(told, usize::from(overridden && !members.is_empty()), "{flag}: {ended:#?}");
    }
}

/// Seen to fail: with no constants copied, the program's are still those of its file.
#[test]
fn the_picture_shows_the_image_of_each_on_its_node() {
    let (tree, ..) = files::small_and_large();
    let server = launch(&tree).args(["--placement", "prefer"]).start();
    let members = members(&server);
    for member in &members {
        let maps = procfs::maps(member.as_raw_nonzero().get() as u32);
        let of_file: Vec<_> =
            maps.iter().filter(|line| line.contains(" r--p ") && line.contains("/annulus")).collect();
        assert!(of_file.is_empty(), "constants are copies: {of_file:#?}");
    }
    let members = members.len();
    server.signal(Signal::USR1);
    let mut shown = 0;
    server.err().wait_for("the stacks of all cores", |line| {
        shown += usize::from(line.contains(": stack of "));
        (shown >= members).then_some(())
    });
    let ended = server.stop();
    let lines = |what: &str| ended.err.iter().filter(|line| line.contains(what)).count();
    assert!(lines("image: constants of annulus of") >= members, "{ended:#?}");
    assert!(lines("image: variables of annulus of") >= members, "{ended:#?}");
    assert!(lines("image: code of annulus of") >= members, "{ended:#?}");
    assert!(lines("image: constants of libc.so.6 of") >= members, "{ended:#?}");
}

/// A machine of one node has nothing to split, whoever asks.
#[test]
fn one_node_is_one_process() {
    let (tree, small, _) = files::small_and_large();
    for how in ["auto", "node", "one"] {
        let server =
            Launch::serve(tree.root()).processes(how).cores(&cpus::allowed()[0].to_string()).start_or_end();
        let server = server.unwrap_or_else(|ended| panic!("--processes {how}: {ended:#?}"));
        assert_eq!(procfs::children(server.pid()), [], "--processes {how} on one core");
        assert_eq!(
            net::connect(server.addr()).map(Client::over).expect("connecting").get(&small.path).head.status,
            200
        );
        server.stop();
    }
}
