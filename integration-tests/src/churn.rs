//! Many connections at once between two crowds of peers that open and end them at random, in every manner,
//! with every byte and every kind of end looked at.
//!
//! A connection's first bytes say what both of its peers are to do, so each end knows what the other one
//! sends and how it ends. Peers are polled by a few threads: two thousand connections are four thousand
//! sockets here.

mod peer;
mod plan;

use crate::{net, watch};
pub use peer::{Outcome, Saw};
use peer::{Peer, Side};
pub use plan::{Plan, Random, Script, Tail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread that polls peers waits when none of them is ready: some of them wait for a time.
const TURN: Duration = Duration::from_millis(2);

/// Flags of a relay to a crowd: on a busy machine a peer may accept, or acknowledge, later than the defaults
/// allow.
pub const PATIENCE: [&str; 4] = ["--connect-timeout", "600", "--drain-timeout", "600"];

/// How it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Connections at once.
    pub at_once: usize,
    /// How long new ones are opened.
    pub lasts: Duration,
    /// What everything at random is drawn from.
    pub seed: u64,
}

/// The upstream of a crowd: its ends of the connections.
pub struct Far {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Outcome>>>,
}

impl Far {
    /// Listens.
    #[track_caller]
    pub fn start() -> Far {
        let listener = TcpListener::bind((net::own_loopback(), 0)).expect("binding the crowd's upstream");
        // More at once than std has in mind: what finds no room there waits for a second and more.
        rustix::net::listen(&listener, 4096).expect("a longer backlog");
        listener.set_nonblocking(true).expect("a socket of ours");
        let addr = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("far".into());
        let thread = thread.spawn(move || {
            let mut lane = Lane::default();
            let mut random = Random::new(1);
            while !(stopped.load(Ordering::Acquire) && lane.peers.is_empty()) {
                while let Ok((stream, _)) = listener.accept() {
                    lane.peers.push(Peer::upstream(stream, random.next()));
                }
                lane.turn(Some(&listener));
            }
            lane.outcomes
        });
        Far { addr, stop, thread: Some(thread.expect("a thread for upstreams")) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the ends of its connections, and tells of them.
    #[track_caller]
    pub fn outcomes(mut self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("joined once").join().expect("no peer found anything wrong")
    }
}

/// Peers that one thread polls.
#[derive(Default)]
struct Lane {
    peers: Vec<Peer>,
    outcomes: Vec<Outcome>,
}

impl Lane {
    /// Changes whenever a peer sends, receives or ends.
    fn moved(&self) -> (usize, u64) {
        (self.outcomes.len(), self.peers.iter().map(Peer::moved).sum())
    }

    /// Waits until a peer has something to do, or for a moment, and has all do it that have.
    fn turn(&mut self, listener: Option<&TcpListener>) {
        let now = Instant::now();
        let events: Vec<PollFlags> = self.peers.iter().map(|peer| peer.awaits(now)).collect();
        let ready: Vec<bool> = {
            let fds =
                self.peers.iter().zip(&events).map(|(peer, events)| PollFd::new(peer.stream(), *events));
            let listener = listener.iter().map(|listener| PollFd::new(*listener, PollFlags::IN));
            let mut fds: Vec<PollFd<'_>> = fds.chain(listener).collect();
            let timeout = Timespec { tv_sec: 0, tv_nsec: TURN.as_nanos() as i64 };
            // Interrupted, it looks again at the next turn.
            let _ = poll(&mut fds, Some(&timeout));
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let now = Instant::now();
        let mut at = 0;
        let outcomes = &mut self.outcomes;
        self.peers.retain_mut(|peer| {
            let is_ready = ready[at];
            at += 1;
            if !is_ready && !peer.is_due(now) {
                return true;
            }
            let outcome = peer.step(now);
            outcomes.extend(outcome);
            outcome.is_none()
        });
    }
}

impl Crowd {
    /// Opens connections to `server` for as long as it lasts, each when there is room for it, and waits for
    /// the ends of all, which take as long as the machine needs. Clients' outcomes.
    #[track_caller]
    pub fn run(self, server: SocketAddr) -> Vec<Outcome> {
        const LANES: usize = 2;
        let lanes = (0..LANES).map(|lane| {
            std::thread::Builder::new()
                .name(format!("near-{lane}"))
                .spawn(move || self.lane(server, lane, self.at_once / LANES))
                .expect("a thread for clients")
        });
        let lanes: Vec<_> = lanes.collect();
        let joined = lanes.into_iter().map(|lane| lane.join().expect("no peer found anything wrong"));
        joined.flatten().collect()
    }

    fn lane(self, server: SocketAddr, number: usize, at_once: usize) -> Vec<Outcome> {
        let mut random = Random::new(self.seed ^ number as u64);
        let mut lane = Lane::default();
        let begun = Instant::now();
        let mut is_over = false;
        let mut opened = 0_u16;
        let (mut moved, mut moved_at) = ((0, 0), begun);
        while !is_over || !lane.peers.is_empty() {
            // A few at a time: those that there are want to be served meanwhile.
            for _ in 0..8 {
                if is_over || lane.peers.len() >= at_once {
                    break;
                }
                // Each client has an address of its own, so it is found in a log.
                let from = Ipv4Addr::new(127, 201 + number as u8, (opened >> 8) as u8, opened as u8);
                opened = opened.wrapping_add(1);
                let stream = net::connect_from(from.into(), server).expect("the proxy takes every client");
                lane.peers.push(Peer::client(stream, Plan::draw(&mut random)));
            }
            lane.turn(None);
            let now = Instant::now();
            is_over = now - begun >= self.lasts;
            // Seen to fail: with the server stopped by a signal.
            let moved_by_now = lane.moved();
            if moved_by_now != moved {
                (moved, moved_at) = (moved_by_now, now);
            }
            assert!(
                now - moved_at < watch::LIMIT,
                "none of these moves (seed {}): {:?}",
                self.seed,
                lane.peers
            );
        }
        lane.outcomes
    }
}

/// What is wrong with the two ends' outcomes of one connection, by the table in docs/relay.md.
pub fn faults(near: &Outcome, far: Option<&Outcome>) -> Vec<String> {
    let Some(plan) = near.plan else { return Vec::new() };
    let Some(far) = far else {
        let is_fault = plan.scripts[0].tail != Tail::Vanish;
        return if is_fault { vec!["the upstream has never heard of it".to_owned()] } else { Vec::new() };
    };
    let mut faults = Vec::new();
    for (side, it) in [(Side::Client, near), (Side::Upstream, far)] {
        let ours = plan.scripts[side as usize];
        let theirs = plan.scripts[1 - side as usize];
        let mut fault = |what: String| faults.push(format!("{side:?}: {what}"));
        // Who resets or closes does not look at the rest.
        if ours.tail != Tail::Fin {
            continue;
        }
        if it.got != theirs.sends {
            fault(format!("got {} of {} bytes", it.got, theirs.sends));
        }
        let due: &[Saw] = match theirs.tail {
            Tail::Fin => &[Saw::End],
            Tail::Reset => &[Saw::Reset],
            // An end, and behind it the refusal of what we go on sending.
            Tail::Close => &[Saw::End, Saw::Reset],
            Tail::Vanish => &[Saw::End, Saw::Reset, Saw::Nothing],
        };
        if !due.contains(&it.saw) {
            fault(format!("saw {:?} of a {:?}", it.saw, theirs.tail));
        }
    }
    faults
}
