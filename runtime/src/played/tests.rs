//! Seeds that are played: a few with every run of the tests, for as long as `scripts/test` says, or one.

use std::rc::Rc;

use super::seeds::Seeds;
use super::trace::Tracing;
use super::{Played, Simulation, play, play_and_again, program};
use crate::transfer::Road;

/// Seeds that every run of the library's tests plays.
const FEW: u64 = 150;
/// Seeds of plays that are of one kind, and short.
const MANY: u64 = 200;

const SEEDS: Seeds<fn(u64, Tracing) -> Played> = Seeds { play, command: "scripts/play" };

/// Seen to fail: see `scripts/refind`.
#[test]
fn a_core_that_is_played_does_what_it_must() {
    SEEDS.first(FEW);
}

/// For `scripts/play`.
#[test]
#[ignore = "for scripts/play"]
fn one() {
    SEEDS.one();
}

/// For `scripts/test`.
#[test]
#[ignore = "for scripts/test"]
fn for_a_while() {
    SEEDS.for_a_while(FEW);
}

fn a_reset_is_told_as_one(road: Road) {
    for seed in 0..MANY {
        let run = |simulation: &Rc<Simulation>| program::relays_of_reset(simulation, seed, road);
        if let Some(failure) = play_and_again(seed, Tracing::Off, run).failure {
            panic!("{failure}");
        }
    }
}

/// A side that is reset while it is given bytes, which are told of it.
///
/// Seen to fail: with an end that is believed while bytes are under way to the side.
#[test]
fn a_reset_that_a_relay_gave_bytes_to_is_told_as_one_inline() {
    a_reset_is_told_as_one(Road::Inline);
}

/// The same.
///
/// Seen to fail: as above.
#[test]
fn a_reset_that_a_relay_gave_bytes_to_is_told_as_one_by_the_ring() {
    a_reset_is_told_as_one(Road::Ring);
}
