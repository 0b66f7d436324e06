//! A server of DNS whose answers a test changes (RFC 1035), by UDP.

use crate::watch;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What it says to every question.
#[derive(Clone, Debug)]
pub enum Says {
    /// Of these addresses those of the family that was asked for, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// It cannot tell.
    Fails,
    /// Nothing.
    Nothing,
}

impl Says {
    /// These addresses, for so many seconds.
    #[track_caller]
    pub fn of(addresses: &[&str], ttl: u32) -> Says {
        Says::Addresses(addresses.iter().map(|it| it.parse().expect("an address")).collect(), ttl)
    }
}

struct State {
    says: Says,
    /// Questions that came since that was said.
    asked: u64,
    /// The names that were asked for, ever.
    names: Vec<String>,
    /// Those that came and got no answer yet.
    held: Vec<(Vec<u8>, SocketAddr)>,
    is_over: bool,
}

/// It runs until it is dropped.
pub struct Dns {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// On a port of 127.0.0.1.
    #[track_caller]
    pub fn start(says: Says) -> Dns {
        Dns::on(SocketAddr::from(([127, 0, 0, 1], 0)), says)
    }

    /// There.
    #[track_caller]
    pub fn on(address: SocketAddr, says: Says) -> Dns {
        let socket = UdpSocket::bind(address).unwrap_or_else(|e| panic!("binding {address}: {e}"));
        let address = socket.local_addr().expect("its address");
        let state = State { says, asked: 0, names: Vec::new(), held: Vec::new(), is_over: false };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let (shared, own) = (Arc::clone(&state), socket.try_clone().expect("a second descriptor"));
        let thread = std::thread::spawn(move || serve(&own, &shared));
        Dns { address, state, socket, thread: Some(thread) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Also after a test has failed while it waited.
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it says this, also to those who have asked and were told nothing.
    pub fn say(&self, says: Says) {
        let mut state = self.lock();
        (state.says, state.asked) = (says, 0);
        for (question, from) in std::mem::take(&mut state.held) {
            if let Some(answer) = answer(&question, &state.says) {
                // Who does not wait any more is no matter of ours.
                let _ = self.socket.send_to(&answer, from);
            }
        }
    }

    /// Waits until so many questions have come since it says what it says.
    #[track_caller]
    pub fn wait_until_asked(&self, times: u64) {
        let waited = self.state.1.wait_timeout_while(self.lock(), watch::LIMIT, |state| state.asked < times);
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!result.timed_out(), "asked {} times in {:?}: {:?}", state.asked, watch::LIMIT, state.names);
    }

    /// The names that were asked for.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.lock().is_over = true;
        // Wakes the thread.
        let _ = self.socket.send_to(&[], self.address);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server of DNS panicked");
        }
    }
}

fn serve(socket: &UdpSocket, state: &(Mutex<State>, Condvar)) {
    let mut datagram = [0; 512];
    loop {
        let received = socket.recv_from(&mut datagram);
        let mut state_now = state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state_now.is_over {
            return;
        }
        // Of a client whose socket has gone the kernel tells by an error.
        let Ok((len, from)) = received else { continue };
        let question = &datagram[..len];
        let Some((name, _)) = name(question) else { continue };
        state_now.asked += 1;
        state_now.names.push(name);
        match answer(question, &state_now.says) {
            Some(answer) => drop(socket.send_to(&answer, from)),
            None => state_now.held.push((question.to_vec(), from)),
        }
        state.1.notify_all();
    }
}

/// The name of a question, and where it ends.
fn name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*question.get(at)?);
        if len == 0 {
            return Some((labels.join("."), at + 1));
        }
        labels.push(String::from_utf8_lossy(question.get(at + 1..=at + len)?).into_owned());
        at += 1 + len;
    }
}

/// The answer to a question; `None` where there is none.
fn answer(question: &[u8], says: &Says) -> Option<Vec<u8>> {
    let (_, end) = name(question)?;
    let record = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let data = |ip: &IpAddr| match (ip, record) {
        (IpAddr::V4(ip), 1) => Some(ip.octets().to_vec()),
        (IpAddr::V6(ip), 28) => Some(ip.octets().to_vec()),
        _ => None,
    };
    let (code, found, ttl): (u8, Vec<Vec<u8>>, u32) = match says {
        Says::Addresses(addresses, ttl) => (0, addresses.iter().filter_map(data).collect(), *ttl),
        Says::Fails => (2, Vec::new(), 0),
        Says::NoSuchName => (3, Vec::new(), 0),
        Says::Nothing => return None,
    };
    // A response, recursion was desired and is available; one question.
    let mut bytes = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]].concat();
    bytes.extend_from_slice(question.get(12..end + 4)?);
    for data in found {
        // The name is that of the question.
        bytes.extend_from_slice(&[0xc0, 12]);
        bytes.extend_from_slice(&record.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&ttl.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&data);
    }
    Some(bytes)
}
