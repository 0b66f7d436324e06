//! Runs a core of a simulation on the calling thread.

use std::rc::Rc;

use super::random::Random;
use super::{Simulation, player};
use crate::launch::played::Shape;
use crate::ring::played::{self, Player};
use crate::{clock, launch, net};

/// Has this thread use the played kernel, until dropped.
struct Set;

impl Set {
    fn up(simulation: &Rc<Simulation>) -> Self {
        played::set(Some(Rc::clone(simulation) as Rc<dyn Player>));
        net::played::set(Some(Rc::clone(simulation) as _));
        simulation.set(0);
        Self
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        played::set(None);
        net::played::set(None);
        clock::play(None);
    }
}

/// What the core of a play is made of.
pub(super) fn shape(random: &Random) -> Shape {
    Shape {
        pool_bytes: random.pick(&[256 << 10, 512 << 10, 1 << 20]),
        incremental_buffers: random.once_in(6),
        bundles: random.once_in(6),
    }
}

/// Runs a root future on a core of a simulation to the core's end.
///
/// # Errors
/// What failed, in words.
pub(super) fn on_a_core_of<F, Fut>(simulation: &Rc<Simulation>, shape: Shape, root: F) -> Result<(), String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = crate::Result<()>> + 'static,
{
    let _set = Set::up(simulation);
    let leaked = launch::played::run_here(shape, root).map_err(|e| e.to_string())?;
    if leaked > 0 {
        return Err(format!("{leaked} operations were leaked at the end"));
    }
    player::at_rest(&simulation.state.borrow())
}
