//! A core that is played: its ring, its clock, the network and the peers follow from one number.
//!
//! The kernel's part is played by [`Simulation`], which takes the place of the ring's queues and of the few
//! system calls that bypass it ([`ring::played`](crate::ring::played), [`net::played`](crate::net::played),
//! [`clock`](crate::clock)). All else is what runs elsewhere: `launch/` brings the core up on the calling
//! thread, runs it to its end, and drains it.
//!
//! It does what kernels do, at any time and in any order: completions that come late, short reads and sends,
//! lack of buffers, interruptions, an overflowing queue, cancels that come too late, notifications long after
//! results, multishots that stop, resets at any byte, accepts that fail. Whenever the core enters, what must
//! hold is asserted ([`player`]); at the end the [`program`]s and the simulation compare what they saw.
//!
//! The tests of the program `annulus` have their connections from a [`PlayHandle`]: for them the feature
//! `played` makes this module part of the library, and nothing else does.
//!
//! `scripts/play SEED` plays one again with all its steps; a failure prints the seed.

mod buffers;
mod calls;
mod connects;
#[cfg(test)]
mod crowds;
mod datagrams;
#[cfg(test)]
mod file_tasks;
mod files;
#[cfg(test)]
mod foreign;
mod handle;
mod launch;
#[cfg(test)]
mod like_kernel;
#[cfg(test)]
mod like_kernel_joined;
#[cfg(test)]
mod like_kernel_udp;
mod network;
mod ops;
#[cfg(test)]
mod outgoing;
mod player;
#[cfg(test)]
mod program;
#[cfg(test)]
mod programs;
mod random;
mod script;
mod seeds;
#[cfg(test)]
mod several;
mod splice;
mod sqe;
mod state;
#[cfg(test)]
mod tests;
mod trace;
#[cfg(test)]
mod udp_tasks;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use connects::{Behaviour, Serving};
use datagrams::PlayedUdp;
use files::Opened;
pub use handle::{Client, PlayHandle, play_program};
use network::{Conn, Listening, Peer};
pub use seeds::Seeds;
use state::State;
pub use trace::Tracing;

use crate::clock;
use crate::time::sleep;

/// The kernel, the network and the peers of one play.
pub(crate) struct Simulation {
    state: RefCell<State>,
    begun: Instant,
}

/// How a play has ended.
#[derive(Debug)]
pub struct Played {
    /// What went wrong, with the last steps.
    pub failure: Option<String>,
    /// Enters of the core.
    pub steps: u64,
}

/// Plays the core once, with all that follows from `seed`.
#[cfg(test)]
pub(crate) fn play(seed: u64, tracing: Tracing) -> Played {
    play_and_again(seed, tracing, |simulation| program::run(simulation, seed))
}

/// Plays once. A seed that fails is played once more, for its last steps.
fn play_and_again(
    seed: u64,
    tracing: Tracing,
    run: impl Fn(&Rc<Simulation>) -> Result<(), String>,
) -> Played {
    let played = play_once(seed, tracing, &run);
    match &played.failure {
        Some(first) if tracing == Tracing::Off => {
            let again = play_once(seed, Tracing::Last, &run);
            let differs =
                || Some(format!("{first}\nPlayed again it did not fail: something is not of the play."));
            Played { failure: again.failure.or_else(differs), ..played }
        }
        _ => played,
    }
}

fn play_once(seed: u64, tracing: Tracing, run: impl Fn(&Rc<Simulation>) -> Result<(), String>) -> Played {
    let simulation = Rc::new(Simulation::new(seed, tracing));
    let ended = run(&simulation);
    let mut state = simulation.state.borrow_mut();
    let wrong = state.failure.take().or_else(|| ended.err()).or_else(|| at_the_end(&state));
    let steps = state.steps;
    let failure = wrong.map(|wrong| format!("seed {seed}, {steps} steps: {wrong}\n{}", state.trace.last()));
    Played { failure, steps }
}

/// The time of the play on this thread, or the kernel's where nothing is played.
pub fn now() -> Instant {
    clock::now()
}

/// What must hold when the core has ended.
fn at_the_end(state: &State) -> Option<String> {
    if let Some((key, name)) = state.spoken_of.first_key_value() {
        return Some(format!("the kernel still has {name} of key {key:x} at the end"));
    }
    if let Some(fd) = state.opened.iter().find_map(Opened::left_open) {
        return Some(format!("a file that was opened as descriptor {fd} is still open at the end"));
    }
    let open = state.conns.iter().find(|conn| conn.is_open());
    open.map(|conn| format!("connection {} is still open at the end", conn.id))
}

impl Simulation {
    fn new(seed: u64, tracing: Tracing) -> Self {
        Self { state: RefCell::new(State::new(seed, tracing)), begun: Instant::now() }
    }

    /// Nanoseconds of the play.
    fn now(&self) -> u64 {
        let now = clock::now().saturating_duration_since(self.begun);
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn set(&self, now: u64) {
        clock::play(Some(self.begun + Duration::from_nanos(now)));
    }

    /// Ends the core by a panic, once, when something was found to be wrong.
    fn stop_if_failed(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(failure) = state.failure.clone()
            && !std::mem::replace(&mut state.stopped, true)
        {
            drop(state);
            panic!("{failure}");
        }
    }

    /// A connection to a peer, and its place in the list.
    fn connect(&self, peer: Peer) -> (OwnedFd, usize) {
        let mut state = self.state.borrow_mut();
        let fd = state.connect(peer);
        (fd, state.conns.len() - 1)
    }

    /// Clients will connect to a listening socket.
    fn listen(&self, fd: std::os::fd::RawFd, clients: Vec<Peer>) {
        let listening = Listening { fd, to_come: clients, backlog: Vec::new() };
        let mut state = self.state.borrow_mut();
        // One before it had the same number.
        state.listening.retain(|one| one.fd != fd);
        state.listening.push(listening);
    }

    /// A server answers at an address, each connection with one of the peers.
    fn serve(&self, address: std::net::SocketAddr, behaviour: Behaviour, peers: Vec<Peer>) {
        self.state.borrow_mut().serving.push(Serving { address, behaviour, peers });
    }

    /// A socket of datagrams: this many of the stream `comes` will come, and what leaves is of `leaves`. Its
    /// place in the list.
    fn add_udp(&self, fd: std::os::fd::RawFd, (comes, to_come): (u32, u32), leaves: u32) -> usize {
        let mut state = self.state.borrow_mut();
        state.udp.push(PlayedUdp::new(fd, comes, to_come, leaves));
        state.udp.len() - 1
    }

    /// Looks at a UDP socket.
    fn udp<R>(&self, at: usize, f: impl FnOnce(&PlayedUdp) -> R) -> R {
        f(&self.state.borrow().udp[at])
    }

    /// Looks at a connection.
    fn conn<R>(&self, at: usize, f: impl FnOnce(&Conn) -> R) -> R {
        f(&self.state.borrow().conns[at])
    }

    /// How often no descriptor was left for a socket or a pipe.
    #[cfg(test)]
    fn lacked(&self) -> u64 {
        self.state.borrow().lacked
    }

    /// The connection that a descriptor stands for.
    fn conn_at(&self, fd: i32) -> usize {
        self.state.borrow().conn_at(fd).expect("a descriptor of the play")
    }

    /// A connection that was not closed.
    fn is_left_open(&self) -> Option<u32> {
        self.state.borrow().conns.iter().find(|conn| conn.is_open()).map(|conn| conn.id)
    }

    /// Waits until all connections are closed: longer than blocks may stay lent to a peer that takes nothing,
    /// and step by step, because time may pass before the kernel has done what it can.
    async fn all_are_closed(&self) {
        for _ in 0..60 {
            if self.is_left_open().is_none() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if let Some(conn) = self.is_left_open() {
            self.wrong(format!("connection {conn} is open when nobody has it any more"));
        }
    }

    /// A program has seen something that must not be.
    fn wrong(&self, what: String) {
        self.state.borrow_mut().fail(what);
    }

    /// Something that a program says, for the trace.
    fn says(&self, what: std::fmt::Arguments<'_>) {
        self.state.borrow_mut().tell(what);
    }
}
