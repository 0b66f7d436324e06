//! Names, beside a server of DNS that says what a test wants, in bytes of its own (RFC 1035).

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::message::{Question, Said};
use super::*;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// A question that has come.
#[derive(Debug, Clone)]
struct Came {
    name: String,
    kind: u16,
    tcp: bool,
    bytes: Vec<u8>,
}

/// A record of an answer: its owner, type, TTL and data.
type Row = (&'static str, u16, u32, Vec<u8>);

fn name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn v4(owner: &'static str, ttl: u32, ip: [u8; 4]) -> Row {
    (owner, A, ttl, ip.to_vec())
}

fn v6(owner: &'static str, ttl: u32, ip: &str) -> Row {
    (owner, AAAA, ttl, ip.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec())
}

impl Came {
    fn read(bytes: &[u8], tcp: bool) -> Self {
        let (mut labels, mut at) = (Vec::new(), 12);
        while bytes[at] > 0 {
            let len = usize::from(bytes[at]);
            labels.push(String::from_utf8(bytes[at + 1..=at + len].to_vec()).unwrap());
            at += 1 + len;
        }
        let kind = u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]);
        Came { name: labels.join("."), kind, tcp, bytes: bytes.to_vec() }
    }

    /// An answer with these records, a code and the bit that says that it was cut.
    fn answer(&self, code: u8, is_cut: bool, rows: &[Row]) -> Vec<u8> {
        let flags = [0x81 | u8::from(is_cut) << 1, 0x80 | code];
        let mut bytes = self.bytes[..2].to_vec();
        bytes.extend_from_slice(&flags);
        bytes.extend_from_slice(&[0, 1, 0, rows.len() as u8, 0, 0, 0, 0]);
        bytes.extend_from_slice(&self.bytes[12..]);
        for (owner, kind, ttl, data) in rows {
            bytes.extend_from_slice(&name(owner));
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&ttl.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    /// With those records that are of the type that was asked for.
    fn of_kind(&self, rows: &[Row]) -> Vec<u8> {
        let rows: Vec<Row> = rows.iter().filter(|row| row.1 == self.kind).cloned().collect();
        self.answer(0, false, &rows)
    }
}

/// A server of DNS. It ends when it is dropped.
struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    came: Arc<Mutex<Vec<Came>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// It sends what `says` returns for a question.
    fn start(says: impl Fn(&Came) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Its TCP port may be somebody else's.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let (address, says) = (udp.local_addr().unwrap(), Arc::new(says));
        let (is_over, came) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let told = {
            let (says, came) = (Arc::clone(&says), Arc::clone(&came));
            move |bytes: &[u8], tcp| {
                let question = Came::read(bytes, tcp);
                came.lock().unwrap().push(question.clone());
                says(&question)
            }
        };
        let (over, told_by_udp) = (Arc::clone(&is_over), told.clone());
        let by_udp = std::thread::spawn(move || {
            let mut datagram = [0; 512];
            loop {
                let (len, from) = udp.recv_from(&mut datagram).unwrap();
                if over.load(Ordering::Relaxed) {
                    return;
                }
                told_by_udp(&datagram[..len], false).iter().for_each(|it| drop(udp.send_to(it, from)));
            }
        });
        let over = Arc::clone(&is_over);
        let by_tcp = std::thread::spawn(move || {
            for stream in tcp.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (mut stream, mut len) = (stream.unwrap(), [0; 2]);
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut question).unwrap();
                for answer in told(&question, true) {
                    // In pieces.
                    for byte in [&(answer.len() as u16).to_be_bytes()[..], &answer].concat() {
                        stream.write_all(&[byte]).unwrap();
                    }
                }
            }
        });
        Self { address, is_over, came, threads: vec![by_udp, by_tcp] }
    }

    /// What is asked of it.
    fn dns(&self, name: &str) -> Dns {
        Dns { timeout: Duration::from_secs(20), ..Dns::of(&[self.address], name) }
    }

    fn came(&self) -> Vec<(String, u16, bool)> {
        self.came.lock().unwrap().iter().map(|it| (it.name.clone(), it.kind, it.tcp)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], self.address);
        drop(std::net::TcpStream::connect(self.address));
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

fn asked(server: &Server) -> Asked {
    Asked { name: "a.test".to_owned(), port: 80, servers: vec![server.address] }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn addresses(known: &dns::Known) -> Vec<String> {
    known.addresses.iter().map(ToString::to_string).collect()
}

/// Seen to fail: with the longest TTL in place of the shortest.
#[test]
fn both_families_and_names_that_stand_for_others() {
    let server = Server::start(|came| {
        let mut rows: Vec<Row> = vec![
            // Somebody else's, and an end of the chain that comes before its beginning.
            v4("evil.test", 1, [192, 0, 2, 66]),
            v4("real.test", 300, [192, 0, 2, 1]),
            v4("real.test", 200, [192, 0, 2, 2]),
            v6("real.test", 400, "2001:db8::1"),
            ("APP.test", CNAME, 100, name("other.test")),
            ("other.test", CNAME, 500, name("real.test")),
        ];
        rows.retain(|row| row.1 == came.kind || row.1 == CNAME);
        vec![came.answer(0, false, &rows)]
    });
    let known = dns::ask(&server.dns("app.test")).unwrap().unwrap();
    assert_eq!(addresses(&known), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!((known.holds.as_secs(), known.unknown), (100, None));
    let only = Dns { only_v4: true, ..server.dns("app.test") };
    assert_eq!(addresses(&dns::ask(&only).unwrap().unwrap()), ["192.0.2.1", "192.0.2.2"]);
}

/// Seen to fail, by going on for ever: without a bound on the names of a chain.
#[test]
fn a_chain_that_leads_round_has_an_end() {
    let server = Server::start(|came| {
        let rows = [("a.test", CNAME, 9, name("b.test")), ("b.test", CNAME, 9, name("a.test"))];
        vec![came.answer(0, false, &rows)]
    });
    assert_eq!(dns::ask(&server.dns("a.test")), Ok(None));
}

/// Seen to fail: without the look at the bit, the addresses that had room are all.
#[test]
fn what_does_not_go_into_a_datagram_comes_by_tcp() {
    let rows = || (0..100).map(|n| v4("a.test", 9, [192, 0, 2, n])).collect::<Vec<_>>();
    let server = Server::start(move |came| {
        let (rows, few) = (rows(), rows()[..10].to_vec());
        let is_cut = came.kind == A && !came.tcp;
        vec![if is_cut { came.answer(0, true, &few) } else { came.of_kind(&rows) }]
    });
    let known = dns::ask(&server.dns("a.test")).unwrap().unwrap();
    assert_eq!(known.addresses.len(), 100);
    assert_eq!(server.came().iter().filter(|it| it.2).count(), 1);
    let by_tcp = Dns { tcp: true, ..server.dns("a.test") };
    assert_eq!(dns::ask(&by_tcp).unwrap().unwrap().addresses.len(), 100);
    assert_eq!(server.came().iter().filter(|it| it.2).count(), 3);
}

/// Whoever answers must know what was asked, and by which number.
///
/// Seen to fail: without the look at the number; without that at the question.
#[test]
fn answers_to_other_questions_are_passed_over() {
    let server = Server::start(|came| {
        let mut other_number = came.of_kind(&[v4("a.test", 9, [192, 0, 2, 66])]);
        other_number[0] ^= 1;
        let mut other_name = came.of_kind(&[v4("a.test", 9, [192, 0, 2, 67])]);
        other_name[13] = b'b';
        let mut no_answer = came.of_kind(&[v4("a.test", 9, [192, 0, 2, 68])]);
        no_answer[2] &= 0x7f;
        let real = came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1]), v6("a.test", 9, "2001:db8::1")]);
        vec![other_number, other_name, no_answer, b"nonsense".to_vec(), real]
    });
    let known = dns::ask(&server.dns("a.test")).unwrap().unwrap();
    assert_eq!(addresses(&known), ["192.0.2.1", "2001:db8::1"]);
}

/// Seen to fail: with the first server alone; with silence taken for "no such name".
#[test]
fn a_server_that_cannot_tell_is_followed_by_the_next() {
    let ill = Server::start(|came| vec![came.answer(2, false, &[])]);
    let well = Server::start(|came| vec![came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1])])]);
    for first in [ill.address, nobody()] {
        let dns = Dns { servers: vec![first, well.address], ..well.dns("a.test") };
        assert_eq!(addresses(&dns::ask(&dns).unwrap().unwrap()), ["192.0.2.1"]);
        let none = Dns { servers: vec![first], ..well.dns("a.test") };
        let why = dns::ask(&none).unwrap_err();
        assert!(why.contains(&first.to_string()), "{why}");
    }
    assert!(dns::ask(&ill.dns("a.test")).unwrap_err().contains("Server Failure"));
    let silent = Server::start(|_| Vec::new());
    let soon = Dns { timeout: Duration::from_millis(20), ..silent.dns("a.test") };
    assert!(dns::ask(&soon).unwrap_err().contains("does not answer"));
    // Two families, twice: they have been sent, and the server may be late.
    while silent.came().len() < 4 {
        std::thread::yield_now();
    }
}

/// Who rotates asks another server first each time.
///
/// Seen to fail: with the first server first.
#[test]
fn servers_may_take_turns() {
    let both = [(); 2].map(|()| Server::start(|came| vec![came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1])])]));
    let servers = both.each_ref().map(|it| it.address).to_vec();
    let dns = Dns { servers, rotate: true, ..both[0].dns("a.test") };
    for _ in 0..4 {
        dns::ask(&dns).unwrap().unwrap();
    }
    assert_eq!(both.each_ref().map(|it| it.came().len()), [4, 4], "one server each time");
}

/// Seen to fail: with the addresses of the family that came in place of all.
#[test]
fn a_family_of_which_nothing_is_known_keeps_its_addresses() {
    let server = Server::start(|came| {
        vec![match came.kind {
            AAAA => came.answer(2, false, &[]),
            _ => came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1])]),
        }]
    });
    let found = look_up(&asked(&server)).unwrap();
    assert_eq!(found.holds(), None, "it is asked for again soon");
    let before = ["192.0.2.7:80", "[2001:db8::7]:80"].map(|it| it.parse().unwrap());
    let after = found.after(&before);
    assert_eq!(after, ["192.0.2.1:80", "[2001:db8::7]:80"].map(|it| it.parse::<SocketAddr>().unwrap()));
    // Where nothing is missing, nothing is kept.
    let server = Server::start(|came| vec![came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1])])]);
    let found = look_up(&asked(&server)).unwrap();
    assert_eq!((found.after(&before).len(), found.holds()), (1, Some(Duration::from_secs(9))));
}

/// Seen to fail: with an end at the first name that is none; with a next name after silence; with the trouble
/// that servers have forgotten.
#[test]
fn the_search_list_goes_on_past_names_that_are_none_and_not_past_silence() {
    let server = Server::start(|came| match came.name.as_str() {
        "a.none.test" => vec![came.answer(3, false, &[])],
        "a.ill.test" => vec![came.answer(2, false, &[])],
        "a.silent.test" => Vec::new(),
        _ => vec![came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1])])],
    });
    let dns = |names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        Dns { names, ..server.dns("a") }
    };
    let ask = |names: &[&str]| dns::ask(&dns(names));
    for first in ["a.none.test", "a.ill.test", &format!("{}.test", "a".repeat(64))] {
        assert_eq!(addresses(&ask(&[first, "a.test"]).unwrap().unwrap()), ["192.0.2.1"], "{first}");
    }
    let soon = Dns { timeout: Duration::from_millis(20), ..dns(&["a.silent.test", "a.test"]) };
    assert!(dns::ask(&soon).unwrap_err().contains("does not answer"));
    assert_eq!(ask(&["a.none.test"]), Ok(None));
    // It may be the one that is meant.
    assert!(ask(&["a.ill.test", "a.none.test"]).is_err());
}

/// Seen to fail: with a port of 0.
#[test]
fn servers_are_written_with_their_port_or_without() {
    assert_eq!(server("127.0.0.1"), Ok("127.0.0.1:53".parse().unwrap()));
    assert_eq!(server("::1"), Ok("[::1]:53".parse().unwrap()));
    assert_eq!(server("[::1]:5353"), Ok("[::1]:5353".parse().unwrap()));
    for no in ["", "localhost", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1:x"] {
        assert!(server(no).is_err(), "{no}");
    }
}

/// Seen to fail: with a thread for each name, and with threads that go on when nobody listens.
#[test]
fn so_many_names_and_no_more_are_looked_up_at_once() {
    const AT_ONCE: usize = 4;
    let names = || {
        let asked = |number| Asked { name: format!("{number}.test"), port: 80, servers: Vec::new() };
        (0..1000).map(asked).collect::<Vec<_>>()
    };
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (its_now, its_most) = (Arc::clone(&now), Arc::clone(&most));
    let told = look_up_all(names(), AT_ONCE, move |_| {
        its_most.fetch_max(its_now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Others begin meanwhile, if they may.
        std::thread::yield_now();
        its_now.fetch_sub(1, Ordering::SeqCst);
        Err(Missing::NoAnswer(String::new()))
    });
    let told: std::collections::HashSet<_> = told.iter().map(|(asked, _)| asked.name).collect();
    assert_eq!((told.len(), most.load(Ordering::SeqCst) <= AT_ONCE), (1000, true), "{most:?}");

    let (hold, held) = channel::<()>();
    let (held, begun) = (Arc::new(Mutex::new(held)), Arc::new(AtomicUsize::new(0)));
    let its_begun = Arc::clone(&begun);
    let told = look_up_all(names(), AT_ONCE, move |_| {
        its_begun.fetch_add(1, Ordering::SeqCst);
        let _ = held.lock().unwrap().recv();
        Err(Missing::NoAnswer(String::new()))
    });
    drop((told, hold));
    // Each thread has a share in it.
    while Arc::strong_count(&begun) > 1 {
        std::thread::yield_now();
    }
    assert!(begun.load(Ordering::SeqCst) <= AT_ONCE, "{begun:?}");
}

proptest! {
    /// Whatever comes, and however an answer is spoilt, no address is made up and nothing panics.
    ///
    /// Seen to fail: with a look at the third byte of what may be shorter.
    #[test]
    fn bytes_of_any_kind_are_an_answer_or_none(
        junk in prop::collection::vec(any::<u8>(), 0..200),
        spoilt in prop::collection::vec((0..200_usize, any::<u8>()), 0..4),
    ) {
        let question = Question::new("a.test", Family::V4).unwrap();
        let came = Came::read(question.bytes(), false);
        let mut answer = came.of_kind(&[v4("a.test", 9, [192, 0, 2, 1]), v4("a.test", 9, [192, 0, 2, 2])]);
        question.answered_by(&junk);
        for (at, byte) in spoilt {
            let len = answer.len();
            answer[at % len] = byte;
        }
        if let Some(Said::Addresses(found, _)) = question.answered_by(&answer) {
            prop_assert!(found.iter().all(|ip| ip.is_ipv4()) && found.len() <= 2);
        }
    }
}
