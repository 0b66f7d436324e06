//! Seeds that are played: a few with every run of the tests, for as long as `scripts/test` says, or one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::trace::Tracing;
use super::{World, play, play_and_again, program};
use crate::transfer::Road;

/// Seeds that every run of the library's tests plays.
const FEW: u64 = 150;
/// Seeds of plays that are of one kind, and short.
const MANY: u64 = 200;

fn must_be_well(seed: u64) -> u64 {
    let played = play(seed, Tracing::Off);
    if let Some(failure) = played.failure {
        panic!("{failure}\nscripts/play {seed} plays it again");
    }
    played.steps
}

/// Seen to fail: see `scripts/refind`.
#[test]
fn a_core_that_is_played_does_what_it_must() {
    for seed in 0..FEW {
        must_be_well(seed);
    }
}

/// One seed, with all its steps: for `scripts/play`.
#[test]
#[ignore = "for scripts/play"]
fn one() {
    let seed = std::env::var("PLAY_SEED").expect("scripts/play sets it");
    let seed = seed.parse().expect("a seed is a number");
    let played = play(seed, Tracing::All);
    eprintln!("{} steps", played.steps);
    if let Some(failure) = played.failure {
        panic!("{failure}");
    }
}

/// New seeds, for as long as is asked: for `scripts/test`.
#[test]
#[ignore = "for scripts/test"]
fn for_a_while() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("PLAY_SECONDS").expect("scripts/test sets it");
    let most = number("PLAY_SEEDS").unwrap_or(u64::MAX);
    let first = number("PLAY_SEED").unwrap_or(FEW);
    let (begun, mut seeds, mut steps) = (Instant::now(), 0, 0);
    while seeds < most && begun.elapsed() < Duration::from_secs(seconds) {
        let played = play(first + seeds, Tracing::Off);
        if let Some(failure) = played.failure {
            let (after, seed) = (begun.elapsed().as_secs(), first + seeds);
            panic!(
                "after {seeds} seeds\n{failure}\nfailed after {after} s; scripts/play {seed} plays it again"
            );
        }
        steps += played.steps;
        seeds += 1;
    }
    eprintln!("{seeds} seeds from {first} on, {steps} steps, no failure");
}

fn a_reset_is_told_as_one(road: Road) {
    for seed in 0..MANY {
        let run = |world: &Rc<World>| program::relays_of_reset(world, seed, road);
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
