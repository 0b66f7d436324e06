//! Seeds that are played: a few with every run of the tests, for as long as `scripts/test` says, or one.

use super::seeds::Seeds;
use super::trace::Tracing;
use super::{Played, play};

/// Seeds that every run of the library's tests plays.
const FEW: u64 = 150;

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
