//! Runs a core of a world on the calling thread.

use std::rc::Rc;

use super::dice::Dice;
use super::{World, player};
use crate::launch::played::Shape;
use crate::ring::played::{self, Player};
use crate::{clock, launch, net};

/// Has this thread use the played kernel, until dropped.
struct Set;

impl Set {
    fn up(world: &Rc<World>) -> Self {
        played::set(Some(Rc::clone(world) as Rc<dyn Player>));
        net::played::set(Some(Rc::clone(world) as _));
        world.set(0);
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
pub(super) fn shape(dice: &Dice) -> Shape {
    Shape {
        pool_bytes: dice.pick(&[256 << 10, 512 << 10, 1 << 20]),
        incremental_buffers: dice.once_in(6),
        bundles: dice.once_in(6),
    }
}

/// Runs a root future on a core of a world to the core's end.
///
/// # Errors
/// What failed, in words.
pub(super) fn on_a_core_of<F, Fut>(world: &Rc<World>, shape: Shape, root: F) -> Result<(), String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = crate::Result<()>> + 'static,
{
    let _set = Set::up(world);
    let leaked = launch::played::run_here(shape, root).map_err(|e| e.to_string())?;
    if leaked > 0 {
        return Err(format!("{leaked} operations were leaked at the end"));
    }
    player::at_rest(&world.state.borrow())
}
