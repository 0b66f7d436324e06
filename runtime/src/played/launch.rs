//! A core on the calling thread, in a world.

use std::rc::Rc;

use super::dice::Dice;
use super::program::program;
use super::{World, player};
use crate::ring::played::{self, Player};
use crate::{clock, launch, net};

/// What a thread plays with, until dropped.
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

/// Runs the program of a seed to the end of its core.
///
/// # Errors
/// What failed, in words.
pub(super) fn run(world: &Rc<World>, seed: u64) -> Result<(), String> {
    let dice = Dice::new(seed ^ 0x70_6c_61_79);
    let pool = dice.pick(&[256 << 10, 512 << 10, 1 << 20]);
    on_a_core_of(world, pool, program(world, dice))
}

/// Runs a root future on a core of a world, with a pool of so many bytes, to the core's end.
///
/// # Errors
/// What failed, in words.
pub(super) fn on_a_core_of<F, Fut>(world: &Rc<World>, pool_bytes: usize, root: F) -> Result<(), String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = crate::Result<()>> + 'static,
{
    let _set = Set::up(world);
    let leaked = launch::played::run_here(pool_bytes, root).map_err(|e| e.to_string())?;
    if leaked > 0 {
        return Err(format!("{leaked} operations were leaked at the end"));
    }
    player::at_rest(&world.state.borrow())
}
