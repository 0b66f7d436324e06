//! A core that is played: its ring, its clock, the network and the peers follow from one number.
//!
//! The kernel's part is played by [`World`], which takes the place of the ring's queues and of the few system
//! calls that go by it ([`ring::played`](crate::ring::played), [`net::played`](crate::net::played),
//! [`clock`](crate::clock)). All else is what runs elsewhere: `launch/` brings the core up on the calling
//! thread, runs it to its end, and drains it.
//!
//! It does what kernels do, at any time and in any order: completions that come late, short reads and sends,
//! lack of buffers, interruptions, an overflowing queue, cancels that come too late, notifications long after
//! results, multishots that stop, resets at any byte, accepts that fail. Whenever the core enters, what must
//! hold is asserted ([`player`]); at the end the [`program`]s and the world compare what they saw.
//!
//! `scripts/play SEED` plays one again with all its steps; a failure prints the seed.

mod buffers;
mod calls;
mod dice;
mod launch;
mod like_kernel;
mod network;
mod ops;
mod player;
mod program;
mod programs;
mod several;
mod splice;
mod sqe;
mod state;
mod tests;
mod trace;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use network::{Conn, Listening, Peer};
use state::State;

use crate::clock;

/// The kernel, the network and the peers of one play.
pub(crate) struct World {
    state: RefCell<State>,
    begun: Instant,
}

/// How a play has ended.
#[derive(Debug)]
pub(crate) struct Played {
    /// What went wrong, with the last steps.
    pub(crate) failure: Option<String>,
    /// Enters of the core.
    pub(crate) steps: u64,
}

/// Plays the core once, with all that follows from `seed`.
pub(crate) fn play(seed: u64, traced: bool) -> Played {
    let world = Rc::new(World::new(seed, traced));
    let ended = launch::run(&world, seed);
    let mut state = world.state.borrow_mut();
    let wrong = state.failure.take().or_else(|| ended.err()).or_else(|| at_the_end(&state));
    let failure =
        wrong.map(|wrong| format!("seed {seed}, {} steps: {wrong}\n{}", state.steps, state.trace.last()));
    Played { failure, steps: state.steps }
}

/// What must hold when the core has ended.
fn at_the_end(state: &State) -> Option<String> {
    if let Some((key, name)) = state.spoken_of.first_key_value() {
        return Some(format!("the kernel still has {name} of key {key:x} at the end"));
    }
    let open = state.conns.iter().find(|conn| conn.is_open());
    open.map(|conn| format!("connection {} is still open at the end", conn.id))
}

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        Self { state: RefCell::new(State::new(seed, traced)), begun: Instant::now() }
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
        self.state.borrow_mut().listening.push(listening);
    }

    /// Looks at a connection.
    fn conn<R>(&self, at: usize, f: impl FnOnce(&Conn) -> R) -> R {
        f(&self.state.borrow().conns[at])
    }

    /// The connection that a descriptor stands for.
    fn conn_at(&self, fd: i32) -> usize {
        self.state.borrow().conn_at(fd).expect("a descriptor of the play")
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
