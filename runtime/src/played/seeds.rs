//! Tests that play seeds: the first ones, one with all its steps, or new ones for as long as is asked.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{Played, Tracing};

/// How long a seed is played before its play counts as one that does not end. Most take milliseconds, and the
/// longest that end half a minute without optimisation on a machine that does something else.
const LONGEST: Duration = Duration::from_secs(180);

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
        let watched = watch();
        while seeds < most && begun.elapsed() < Duration::from_secs(seconds) {
            let seed = first + seeds;
            watched.send(seed).expect("who watches does not end before");
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

/// Ends the process when one seed is played for longer than [`LONGEST`]: a core that never comes back to its
/// ring cannot be stopped, and nothing else would say which seed it was.
fn watch() -> Sender<u64> {
    let (begun, (watched, seeds)) = (Instant::now(), channel());
    std::thread::spawn(move || {
        let mut at = None;
        loop {
            match seeds.recv_timeout(LONGEST) {
                Ok(seed) => at = Some(seed),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let seed = at.unwrap_or_default();
                    eprintln!("seed {seed}, 0 steps: the core does not come back to its ring");
                    eprintln!("failed after {} s", begun.elapsed().as_secs());
                    std::process::abort();
                }
            }
        }
    });
    watched
}

/// The value of a variable of the environment, if it is a number.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
