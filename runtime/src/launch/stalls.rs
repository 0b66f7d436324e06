//! Tasks that keep a core from everything else, as other threads see them.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contained::told;
use crate::core::shared::CoreShared;
use crate::core::state::RuntimeShared;
use crate::numa::CpuId;

/// A poll of a task that lasts too long: nothing else runs on its core meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The core's index.
    pub core: usize,
    /// The CPU that the core is pinned to.
    pub cpu: CpuId,
    /// Where the task was spawned ([`spawn`](crate::spawn)). A root future counts as spawned where the
    /// runtime was started; a child of a [`scope`](crate::scope()) is polled by its parent and has the
    /// parent's place.
    pub spawned_at: &'static Location<'static>,
    /// How long the poll has lasted at least.
    pub lasted: Duration,
    /// The number of the poll on its core. The same number in a later sample means the same poll.
    pub poll: u64,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "core {} (CPU {}) has been in one poll of the task spawned at {} for at least {} ms",
            self.core,
            self.cpu,
            self.spawned_at,
            self.lasted.as_millis()
        )
    }
}

/// What a sampler remembers of each core between its samples.
pub(super) struct Sampler {
    cores: Vec<(Arc<CoreShared>, Seen)>,
}

#[derive(Clone, Copy)]
struct Seen {
    poll: Option<u64>,
    since: Instant,
    /// This poll was reported already.
    told: bool,
}

impl Sampler {
    /// Takes the first sample.
    pub(super) fn new(cores: &[Arc<CoreShared>]) -> Self {
        let seen = Seen { poll: None, since: Instant::now(), told: false };
        let mut sampler = Self { cores: cores.iter().map(|core| (Arc::clone(core), seen)).collect() };
        sampler.sample(Duration::MAX);
        sampler
    }

    /// Polls that have lasted for `threshold` or longer, as far as this sampler has seen. Each is returned
    /// once.
    pub(super) fn sample(&mut self, threshold: Duration) -> Vec<Stall> {
        let sample = |(core, seen): &mut (Arc<CoreShared>, Seen)| {
            let now = Instant::now();
            let Some((poll, spawned_at)) = core.current_poll.sample() else {
                seen.poll = None;
                return None;
            };
            if seen.poll != Some(poll) {
                *seen = Seen { poll: Some(poll), since: now, told: false };
                return None;
            }
            let lasted = now - seen.since;
            if seen.told || lasted < threshold {
                return None;
            }
            seen.told = true;
            Some(Stall { core: core.index, cpu: core.cpu, spawned_at, lasted, poll })
        };
        self.cores.iter_mut().filter_map(sample).collect()
    }

    /// Logs stalls until every core has ended. It samples four times in each `threshold`, so that a stall is
    /// seen when it is a quarter longer.
    pub(super) fn watch(mut self, runtime: &RuntimeShared, threshold: Duration) {
        let pause = (threshold / 4).max(Duration::from_millis(1));
        while !runtime.all_arrived_within(pause) {
            for stall in self.sample(threshold) {
                told(|| {
                    tracing::warn!(
                        core = stall.core,
                        "{stall}; let it yield, or move what it does to a thread of its own"
                    );
                });
            }
        }
    }
}
