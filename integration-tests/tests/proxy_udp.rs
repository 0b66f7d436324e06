//! `annulus proxy --udp`: datagrams, in sessions by client address.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Launch, Server, Stopped};
use annulus_integration_tests::{cpus, net, procfs, watch};

/// Sends each datagram back with its letter before it, until it is dropped.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn on(address: SocketAddr, letter: u8) -> Self {
        let socket = UdpSocket::bind(address).expect("binding");
        let address = socket.local_addr().expect("its address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            datagram[0] = letter;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut datagram[1..]) {
                    let _ = socket.send_to(&datagram[..=n], from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn new(letter: u8) -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), letter)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("joined once").join().expect("no panic");
    }
}

fn client(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binding");
    socket.connect(server.addr()).expect("connecting");
    socket.set_read_timeout(Some(watch::LIMIT)).expect("a time-out");
    socket
}

#[track_caller]
fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).expect("asking");
    let mut answer = vec![0; 65_536];
    let n = socket.recv(&mut answer).expect("the answer");
    answer.truncate(n);
    answer
}

/// Seen to fail: with each batch sent in the other order, and with one that is sorted by length.
#[test]
fn datagrams_go_there_and_back_in_order() {
    let echo = Echo::new(b'e');
    let server = Launch::proxy(echo.address).arg("--udp").start();
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(&server)).collect();
    for (i, socket) in clients.iter().enumerate() {
        for size in [0, 1, 1200, 8000, 9000, 65_000] {
            let question = vec![i as u8; size];
            assert_eq!(ask(socket, &question), [&b"e"[..], &question].concat());
        }
    }
    // As many at once as every queue on the way holds, of two clients and of all lengths: first what each has
    // sent, then by turns. The relay finds all of it at once.
    let numbered = |n: u32| [&n.to_be_bytes()[..], &vec![0; n as usize * 37 % 1500]].concat();
    for round in 0..10_u32 {
        let of_each =
            || clients[..2].iter().flat_map(move |it| (round * 20..round * 20 + 20).map(move |n| (it, n)));
        let mut sends: Vec<_> = of_each().collect();
        if round % 2 == 1 {
            sends.sort_by_key(|(_, n)| *n);
        }
        let stopped = Stopped::new(&server);
        for (socket, n) in sends {
            socket.send(&numbered(n)).expect("sending");
        }
        drop(stopped);
        for (socket, n) in of_each() {
            let mut answer = [0; 2000];
            let len = socket.recv(&mut answer).expect("an answer");
            assert_eq!(answer[1..len], numbered(n), "{n} in order");
        }
    }
    server.stop();
}

/// Seen to fail: with upstreams in turn; with sessions that go on when nobody listens.
#[test]
fn a_client_stays_with_its_upstream_until_that_is_gone() {
    let (a, b) = (Echo::new(b'a'), Echo::new(b'b'));
    let to = format!("{},{}", a.address, b.address);
    let server =
        Launch::new().args(["proxy", "--udp", "--to", &to]).listen("127.0.0.1:0").processes("one").start();
    let clients: Vec<UdpSocket> = (0..10).map(|_| client(&server)).collect();
    let letters: Vec<u8> = clients.iter().map(|socket| ask(socket, b"?")[0]).collect();
    // One client address, one upstream.
    assert_eq!(letters.iter().collect::<HashSet<_>>().len(), 1, "{letters:?}");
    let (gone, left) = if letters[0] == b'a' { (a, b'b') } else { (b, b'a') };
    drop(gone);
    let socket = &clients[0];
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    watch::until("the other one answers", || {
        socket.send(b"?").ok()?;
        let mut answer = [0; 8];
        socket.recv(&mut answer).ok().filter(|_| answer[0] == left)
    });
    server.stop();
}

/// Seen to fail: with sessions that never end.
#[test]
fn an_idle_session_ends() {
    let echo = Echo::new(b'e');
    // With an hour nothing ends before it was counted.
    for (timeout, ends) in [("3600", false), ("1", true)] {
        let server = Launch::proxy(echo.address).args(["--udp", "--udp-timeout", timeout]).start();
        let before = procfs::sockets(server.pid());
        let clients: Vec<UdpSocket> = (0..5).map(|_| client(&server)).collect();
        clients.iter().for_each(|socket| drop(ask(socket, b"?")));
        if ends {
            watch::until("they are closed", || (procfs::sockets(server.pid()) == before).then_some(()));
        } else {
            assert_eq!(procfs::sockets(server.pid()), before + 5);
        }
        assert_eq!(ask(&clients[0], b"again")[0], b'e');
        server.stop();
    }
}

/// Clients by their addresses: a client stays with its upstream, and each upstream has some. An upstream that
/// has more than its share is passed over, so that a new session of some clients goes to the other one: how
/// many depends on the ports that the two have got. With ports hashed three in four would be split.
///
/// Seen to fail: with the port among what is hashed; with the first upstream for all.
#[test]
fn clients_are_spread_by_their_addresses() {
    let (a, b) = (Echo::new(b'a'), Echo::new(b'b'));
    let to = format!("{},{}", a.address, b.address);
    let server =
        Launch::new().args(["proxy", "--udp", "--to", &to]).listen("127.0.0.1:0").processes("one").start();
    let of = |client: u8| -> Vec<u8> {
        let once = || {
            let socket =
                UdpSocket::bind(SocketAddr::from(([127, 0, 0, client], 0))).expect("an address of ours");
            socket.set_read_timeout(Some(watch::LIMIT)).expect("a time-out");
            socket.connect(server.addr()).expect("connecting");
            ask(&socket, b"?")[0]
        };
        (0..3).map(|_| once()).collect()
    };
    let letters: Vec<Vec<u8>> = (1..=40).map(of).collect();
    let stay = letters.iter().filter(|of| of.iter().all(|letter| *letter == of[0])).count();
    assert!(stay > 20, "{stay} of 40: {letters:?}");
    assert_eq!(letters.iter().map(|of| of[0]).collect::<HashSet<_>>().len(), 2, "{letters:?}");
    server.stop();
}

/// Seen to fail: without the bound.
#[test]
fn a_core_has_so_many_sessions_and_no_more() {
    let echo = Echo::new(b'e');
    let server = Launch::proxy(echo.address)
        .cores(&cpus::allowed()[0].to_string())
        .args(["--udp", "--udp-sessions", "2", "--udp-timeout", "1"])
        .start();
    let [first, second, third] = [(); 3].map(|()| client(&server));
    assert_eq!((ask(&first, b"?"), ask(&second, b"?")), (b"e?".to_vec(), b"e?".to_vec()));
    third.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
    // Those that it has are served on, and go when they are idle.
    let asked_third = || {
        third.send(b"!").expect("sending");
        third.recv(&mut [0; 2]).is_ok()
    };
    let mut refused = 0;
    while !asked_third() {
        refused += 1;
        assert!(refused < 10_000, "its turn never comes");
        // One goes on.
        assert_eq!(ask(&first, b"?"), b"e?");
    }
    assert!(refused > 0, "a third session beside two");
    let told = |line: &str| line.contains("as many sessions as it may have").then_some(());
    server.err().wait_for("the line", told).expect("it lives");
    server.stop();
}

/// What a client's kernel cuts and the network has together arrives at the upstream together: the relay has
/// neither taken it apart nor put together what was apart.
///
/// Seen to fail: with a call of its own for each datagram.
#[test]
fn what_comes_together_leaves_together() {
    const PIECE: usize = 1000;
    let upstream = UdpSocket::bind("127.0.0.1:0").expect("binding");
    upstream.set_read_timeout(Some(watch::LIMIT)).expect("a time-out");
    net::take_datagrams_together(&upstream);
    let server = Launch::proxy(upstream.local_addr().expect("its address")).arg("--udp").start();
    let socket = client(&server);
    net::cut_datagrams(&socket, PIECE as u16);
    let mut came = vec![0; 65_536];
    for pieces in [1, 10, 2] {
        let sent: Vec<u8> = (0..pieces * PIECE).map(|at| (at / PIECE) as u8).collect();
        socket.send(&sent).expect("sending");
        let len = upstream.recv(&mut came).expect("what was sent");
        assert!(came[..len] == sent, "{len} bytes of {}", sent.len());
    }
    server.stop();
}

/// A client that has the kernel cut what it sends, as those do that send much: it comes together, and leaves
/// so.
///
/// Seen to fail: with what has come together sent as one datagram.
#[test]
fn what_was_cut_by_the_kernel_comes_apart_where_it_was_cut() {
    const PIECE: usize = 1000;
    let echo = Echo::new(b'e');
    let server = Launch::proxy(echo.address).arg("--udp").start();
    let socket = client(&server);
    net::cut_datagrams(&socket, PIECE as u16);
    for round in 0..20_u8 {
        let sent: Vec<u8> = (0..10 * PIECE + 17).map(|at| (at / PIECE) as u8 ^ round).collect();
        socket.send(&sent).expect("sending");
        for piece in sent.chunks(PIECE) {
            let mut answer = vec![0; 65_536];
            let n = socket.recv(&mut answer).expect("an answer");
            assert_eq!(answer[..n], [&b"e"[..], piece].concat(), "in order and whole");
        }
    }
    server.stop();
}

/// Seen to fail: with a listener by TCP beside.
#[test]
fn datagrams_alone_leave_the_tcp_port_to_others() {
    let echo = Echo::new(b'e');
    // The TCP port of one that the kernel chooses may be anybody's.
    let at = net::free_addr().to_string();
    let server = Launch::proxy(echo.address).arg("--udp-only").listen(&at).start();
    assert!(server.line().contains("(UDP), relaying to"), "{}", server.line());
    let listener = TcpListener::bind(server.addr()).expect("nobody has that port");
    assert_eq!(ask(&client(&server), b"?"), b"e?");
    drop(listener);
    server.stop();
    // A port that another program has is refused.
    let taken = UdpSocket::bind("127.0.0.1:0").expect("binding");
    let at = taken.local_addr().expect("its address").to_string();
    let ended = Launch::proxy(echo.address).arg("--udp-only").listen(&at).run();
    assert!(ended.one_line(2).contains("something has that port"), "{ended:?}");
}

/// Sessions that there are stay with their upstream, and new ones go where the file says now.
///
/// Seen to fail: with new ones that go where it said before; with sessions that end.
#[test]
fn a_reload_is_in_force_for_new_sessions() {
    let (a, b) = (Echo::new(b'a'), Echo::new(b'b'));
    let tree = Tree::new();
    let path = tree.root().join("annulus.toml");
    let config = |to: &Echo| {
        let text =
            format!("[[listener]]\nlisten = [\"127.0.0.1:0\"]\nto = [\"{}\"]\nudp-only = true\n", to.address);
        std::fs::write(&path, text).expect("a file");
    };
    config(&a);
    let server = Launch::new().arg("run").arg(&path).start();
    let old = client(&server);
    assert_eq!(ask(&old, b"?")[0], b'a');
    config(&b);
    server.signal(rustix::process::Signal::HUP);
    let done = server.err().wait_for("the reload", |line| line.contains("is in force").then_some(()));
    done.expect("it lives");
    assert_eq!(ask(&old, b"?")[0], b'a');
    assert_eq!(ask(&client(&server), b"?")[0], b'b');
    server.stop();
}

/// Seen to fail, by the watchdog: with datagrams relayed in any case.
#[test]
fn without_the_flag_there_is_no_udp() {
    let server = Launch::proxy(net::free_addr()).start();
    let socket = client(&server);
    socket.send(b"?").expect("sending");
    assert_eq!(
        socket.recv(&mut [0]).expect_err("nobody is there").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    server.stop();
}
