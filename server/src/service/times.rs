//! How long the parts of the end may take, which a reload may change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::options::program::ProgramArgs;

/// The times of the end that are in force.
#[derive(Debug)]
pub(crate) struct Times {
    /// In seconds.
    drain_wait: AtomicU64,
    /// In seconds.
    grace: AtomicU64,
    /// In seconds.
    upgrade_grace: AtomicU64,
}

impl Times {
    /// As `program` has them.
    pub(crate) fn new(program: &ProgramArgs) -> Self {
        let times = Times::of(program.drain_wait, program.grace);
        times.set(program);
        times
    }

    /// So many seconds.
    pub(crate) fn of(drain_wait: u64, grace: u64) -> Self {
        Times {
            drain_wait: AtomicU64::new(drain_wait),
            grace: AtomicU64::new(grace),
            upgrade_grace: AtomicU64::new(u64::MAX),
        }
    }

    /// As `program` has them, from now on.
    pub(crate) fn set(&self, program: &ProgramArgs) {
        self.drain_wait.store(program.drain_wait, Ordering::Relaxed);
        self.grace.store(program.grace, Ordering::Relaxed);
        self.upgrade_grace.store(program.upgrade_grace.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long new clients are still served after the program has said that it is to get none.
    pub(crate) fn drain_wait(&self) -> Duration {
        bounded(self.drain_wait.load(Ordering::Relaxed))
    }

    /// How long connections may go on when another program has taken this one's place.
    pub(crate) fn upgrade_grace(&self) -> Duration {
        bounded(self.upgrade_grace.load(Ordering::Relaxed))
    }

    /// How long connections may go on when nothing new is accepted.
    pub(crate) fn grace(&self) -> Duration {
        bounded(self.grace.load(Ordering::Relaxed))
    }
}

/// The limit where the clock cannot represent the one that was asked for.
fn bounded(seconds: u64) -> Duration {
    const YEAR: u64 = 365 * 24 * 3600;
    Duration::from_secs(seconds.min(YEAR))
}
