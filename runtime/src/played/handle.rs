//! A play of another crate's code: the connections of the program `annulus`.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use super::network::{Ending, Peer};
use super::random::Random;
use super::script::Script;
use super::{Played, Simulation, Tracing, launch, play_and_again};
use crate::net::TcpStream;

/// The play, as its program sees it.
#[derive(Clone)]
pub struct PlayHandle {
    simulation: Rc<Simulation>,
    random: Rc<Random>,
}

/// The other end of a connection.
pub struct Client {
    simulation: Rc<Simulation>,
    at: usize,
}

/// Runs `program` on a core that is played from `seed`. An error that it returns is the play's failure.
pub fn play_program<Fut>(seed: u64, tracing: Tracing, program: impl Fn(PlayHandle) -> Fut) -> Played
where
    Fut: Future<Output = Result<(), String>> + 'static,
{
    play_and_again(seed, tracing, |simulation| {
        let random = Random::new(seed ^ 0x73_74_61_67_65);
        // The server cuts clients that take too little for too long. Without leaps of the clock only the
        // client decides that.
        simulation.state.borrow_mut().leaps = false;
        let shape = launch::shape(&random);
        let program = RefCell::new(Some(program(PlayHandle {
            simulation: Rc::clone(simulation),
            random: Rc::new(random),
        })));
        launch::on_a_core_of(simulation, shape, || {
            let (program, simulation) = (program.take().expect("called once"), Rc::clone(simulation));
            async move {
                if let Err(wrong) = program.await {
                    simulation.wrong(wrong);
                }
                simulation.all_are_closed().await;
                Ok(())
            }
        })
    })
}

impl PlayHandle {
    /// A number below `n`.
    pub fn below(&self, n: u64) -> u64 {
        self.random.below(n)
    }

    /// Whether a chance of one in `n` has come.
    pub fn once_in(&self, n: u64) -> bool {
        self.random.once_in(n)
    }

    /// One of `some`.
    pub fn pick<T: Copy>(&self, some: &[T]) -> T {
        self.random.pick(some)
    }

    /// Adds a line to the trace.
    pub fn says(&self, what: std::fmt::Arguments<'_>) {
        self.simulation.says(what);
    }

    /// A connection whose other end sends `says`: at each time as many bytes as `up_to` gives for what it has
    /// received by then. When it has sent all it waits for the end, or ends in another way.
    pub fn client(&self, says: Vec<u8>, up_to: impl Fn(&[u8]) -> u64 + 'static) -> (TcpStream, Client) {
        let total = says.len() as u64;
        let ending = match self.random.below(9) {
            0 => Ending::Fin,
            1 => Ending::ResetAtIn(self.random.below(total + 1)),
            2 => Ending::ResetAtOut(self.random.below(100_000)),
            _ => Ending::FinAfter(u64::MAX),
        };
        let patience = self.random.pick(&[5, 100, 3_000, 20_000]);
        let peer = Peer {
            sends: 1,
            total,
            expects: 1,
            window: self.random.pick(&[60, 700, 9_000, 64 << 10]),
            ending,
            vanishes: self.random.once_in(5),
            patience: self.random.between(1, patience) * 1_000_000,
            stalls: self.random.pick(&[0, 3, 40]),
        };
        let (fd, at) = self.simulation.connect(peer);
        self.simulation.state.borrow_mut().conns[at].script = Some(Script::new(says.into(), Box::new(up_to)));
        (TcpStream::from_fd(fd), Client { simulation: Rc::clone(&self.simulation), at })
    }
}

impl Client {
    /// All that the client has received.
    pub fn heard(&self) -> Vec<u8> {
        self.simulation
            .conn(self.at, |conn| conn.script.as_ref().map(|script| script.heard.clone()))
            .unwrap_or_default()
    }

    /// How many bytes of what the client sends have arrived.
    pub fn has_said(&self) -> u64 {
        self.simulation.conn(self.at, |conn| conn.arrived)
    }

    /// Whether the client has ended its side in order.
    pub fn has_ended(&self) -> bool {
        self.simulation.conn(self.at, |conn| conn.fin)
    }

    /// Whether the connection was reset, by either side.
    pub fn was_reset(&self) -> bool {
        self.simulation.conn(self.at, |conn| conn.was_reset)
    }
}
