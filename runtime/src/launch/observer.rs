//! Observes a runtime from any thread without prolonging its life.

use std::sync::Arc;
use std::time::Duration;

use super::report::{CoreReport, Report};
use super::stalls::{Sampler, Stall};
use crate::core::Core;
use crate::core::shared::CoreShared;
use crate::metrics::counters::Counters;

/// Reads what a runtime does, from any thread that is no core's. It may live as long as it likes: it neither
/// keeps the runtime alive nor ends it, and no core waits for it.
/// [`Running::observer`](crate::Running::observer) makes one.
///
/// After the runtime's end the counters keep their last values, and [`report`](Observer::report) finds the
/// memory unmapped.
#[derive(Clone)]
pub struct Observer {
    pub(super) members: Arc<[Arc<CoreShared>]>,
    reports: Arc<[CoreReport]>,
}

impl Observer {
    pub(super) fn new(members: &[Arc<CoreShared>], reports: &[CoreReport]) -> Self {
        Self { members: members.into(), reports: reports.into() }
    }

    /// The counters of every core: a load for each.
    pub fn counters(&self) -> Vec<Counters> {
        self.members.iter().map(|core| core.counters.read(core.index)).collect()
    }

    /// What is in force on each core, and where memory lies now. It asks about every page, which takes some
    /// milliseconds for each core.
    pub fn report(&self) -> Report {
        Report::inspect(&self.reports, &self.members)
    }

    /// Polls of tasks that keep their core from everything else: [`Running::stalls`](crate::Running::stalls).
    ///
    /// # Panics
    /// On a core's thread, which must not sleep.
    #[track_caller]
    pub fn stalls(&self, threshold: Duration) -> Vec<Stall> {
        assert!(!Core::is_here(), "stalls() would stop the core: call it from a thread that is no core's");
        let mut sampler = Sampler::new(&self.members);
        std::thread::sleep(threshold);
        sampler.sample(threshold)
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("cores", &self.members.len()).finish_non_exhaustive()
    }
}
