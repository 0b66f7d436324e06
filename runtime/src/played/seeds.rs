//! Tests that play seeds: the first ones, one with all its steps, or new ones for as long as is asked.

use std::time::{Duration, Instant};

use super::{Played, Tracing};

/// One kind of play.
pub struct Seeds<P> {
    /// Plays a seed.
    pub play: P,
    /// The command that plays a seed again, without the seed.
    pub command: &'static str,
}

impl<P: Fn(u64, Tracing) -> Played> Seeds<P> {
    /// Plays the seeds below `count`, as every run of the tests does.
    ///
    /// # Panics
    /// When one fails.
    pub fn first(&self, count: u64) {
        for seed in 0..count {
            if let Some(failure) = (self.play)(seed, Tracing::Off).failure {
                panic!("{failure}\n{} {seed} plays it again", self.command);
            }
        }
    }

    /// Plays the seed `PLAY_SEED` and prints its steps, for `scripts/play`.
    ///
    /// # Panics
    /// When it fails, and where the environment names no seed.
    pub fn one(&self) {
        let seed = number("PLAY_SEED").expect("scripts/play sets it");
        let played = (self.play)(seed, Tracing::All);
        eprintln!("{} steps", played.steps);
        if let Some(failure) = played.failure {
            panic!("{failure}");
        }
    }

    /// Plays seeds for `PLAY_SECONDS`, at most `PLAY_SEEDS` of them, from `PLAY_SEED` on, or from `from` on
    /// where the environment does not say. For `scripts/test`.
    ///
    /// # Panics
    /// When one fails, and where the environment does not say for how long.
    pub fn for_a_while(&self, from: u64) {
        let seconds = number("PLAY_SECONDS").expect("scripts/test sets it");
        let most = number("PLAY_SEEDS").unwrap_or(u64::MAX);
        let first = number("PLAY_SEED").unwrap_or(from);
        let (begun, mut seeds, mut steps) = (Instant::now(), 0, 0);
        while seeds < most && begun.elapsed() < Duration::from_secs(seconds) {
            let seed = first + seeds;
            let played = (self.play)(seed, Tracing::Off);
            if let Some(failure) = played.failure {
                let (after, command) = (begun.elapsed().as_secs(), self.command);
                panic!(
                    "after {seeds} seeds\n{failure}\nfailed after {after} s; {command} {seed} plays it again"
                );
            }
            steps += played.steps;
            seeds += 1;
        }
        eprintln!("{seeds} seeds from {first} on, {steps} steps, no failure");
    }
}

/// The value of a variable of the environment, if it is a number.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
