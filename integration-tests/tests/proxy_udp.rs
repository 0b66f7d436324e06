//! `annulus proxy --udp`: datagrams, in sessions by client address.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{net, procfs, watch};

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
    // As many at once as every queue on the way holds.
    let socket = &clients[0];
    for round in 0..20_u32 {
        for i in 0..30_u32 {
            socket.send(&(round * 30 + i).to_be_bytes()).expect("sending");
        }
        for i in 0..30_u32 {
            let mut answer = [0; 5];
            socket.recv(&mut answer).expect("an answer");
            assert_eq!(answer[1..], (round * 30 + i).to_be_bytes(), "in order");
        }
    }
    server.stop();
}

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

/// A client that has the kernel cut what it sends, as those do that send much: it comes together, and leaves
/// so.
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
