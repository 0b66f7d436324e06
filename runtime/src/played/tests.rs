//! Seeds that are played: a few with every run of the tests, for as long as `scripts/test` says, or one.

use std::time::{Duration, Instant};

use super::play;
use super::trace::Tracing;

/// Seeds that every run of the library's tests plays.
const FEW: u64 = 150;

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
