//! A play of another crate's code: the connections of the program `annulus`.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use super::dice::Dice;
use super::network::{Ending, Peer};
use super::script::Script;
use super::{Played, Tracing, World, launch, play_and_again};
use crate::net::TcpStream;

/// The play, as its program sees it.
#[derive(Clone)]
pub struct Stage {
    world: Rc<World>,
    dice: Rc<Dice>,
}

/// The other end of a connection.
pub struct Client {
    world: Rc<World>,
    at: usize,
}

/// Runs `program` on a core that is played from `seed`. An error that it returns is the play's failure.
pub fn play_on_stage<Fut>(seed: u64, tracing: Tracing, program: impl Fn(Stage) -> Fut) -> Played
where
    Fut: Future<Output = Result<(), String>> + 'static,
{
    play_and_again(seed, tracing, |world| {
        let dice = Dice::new(seed ^ 0x73_74_61_67_65);
        // The server cuts clients that take too little for too long. Without leaps of the clock only the
        // client decides that.
        world.state.borrow_mut().leaps = false;
        let shape = launch::shape(&dice);
        let program = RefCell::new(Some(program(Stage { world: Rc::clone(world), dice: Rc::new(dice) })));
        launch::on_a_core_of(world, shape, || {
            let (program, world) = (program.take().expect("called once"), Rc::clone(world));
            async move {
                if let Err(wrong) = program.await {
                    world.wrong(wrong);
                }
                world.all_are_closed().await;
                Ok(())
            }
        })
    })
}

impl Stage {
    /// A number below `n`.
    pub fn below(&self, n: u64) -> u64 {
        self.dice.below(n)
    }

    /// Whether a chance of one in `n` has come.
    pub fn once_in(&self, n: u64) -> bool {
        self.dice.once_in(n)
    }

    /// One of `some`.
    pub fn pick<T: Copy>(&self, some: &[T]) -> T {
        self.dice.pick(some)
    }

    /// Adds a line to the trace.
    pub fn says(&self, what: std::fmt::Arguments<'_>) {
        self.world.says(what);
    }

    /// A connection whose other end sends `says`: at each time as many bytes as `up_to` gives for what it has
    /// received by then. When it has sent all it waits for the end, or ends in another way.
    pub fn client(&self, says: Vec<u8>, up_to: impl Fn(&[u8]) -> u64 + 'static) -> (TcpStream, Client) {
        let total = says.len() as u64;
        let ending = match self.dice.below(9) {
            0 => Ending::Fin,
            1 => Ending::ResetAtIn(self.dice.below(total + 1)),
            2 => Ending::ResetAtOut(self.dice.below(100_000)),
            _ => Ending::FinAfter(u64::MAX),
        };
        let patience = self.dice.pick(&[5, 100, 3_000, 20_000]);
        let peer = Peer {
            sends: 1,
            total,
            expects: 1,
            window: self.dice.pick(&[60, 700, 9_000, 64 << 10]),
            ending,
            vanishes: self.dice.once_in(5),
            patience: self.dice.between(1, patience) * 1_000_000,
            stalls: self.dice.pick(&[0, 3, 40]),
        };
        let (fd, at) = self.world.connect(peer);
        self.world.state.borrow_mut().conns[at].script = Some(Script::new(says.into(), Box::new(up_to)));
        (TcpStream::from_fd(fd), Client { world: Rc::clone(&self.world), at })
    }
}

impl Client {
    /// All that the client has received.
    pub fn heard(&self) -> Vec<u8> {
        self.world
            .conn(self.at, |conn| conn.script.as_ref().map(|script| script.heard.clone()))
            .unwrap_or_default()
    }

    /// How many bytes of what the client sends have arrived.
    pub fn has_said(&self) -> u64 {
        self.world.conn(self.at, |conn| conn.arrived)
    }

    /// Whether the client has ended its side in order.
    pub fn has_ended(&self) -> bool {
        self.world.conn(self.at, |conn| conn.fin)
    }

    /// Whether the connection was reset, by either side.
    pub fn was_reset(&self) -> bool {
        self.world.conn(self.at, |conn| conn.was_reset)
    }
}
