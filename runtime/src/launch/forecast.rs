//! What can be known of a runtime before it starts.

use std::fmt;

use crate::core::options::Options;
use crate::core::placement::PlacementPolicy;
use crate::numa::CpuId;
use crate::numa::plan::PlannedCore;
use crate::ring::probe::RingProbe;

/// What a runtime would have if it started now: [`Runtime::report`](crate::Runtime::report). `Display` prints
/// a line for each core, one for the ring, and one for each feature that is less than it could be.
///
/// Where memory lies is not in it, because a page lies nowhere before it is touched: that is in the
/// [`Report`](super::Report) of a runtime that has started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forecast {
    /// The cores, each with its CPU, its node, and the node of its memory.
    pub cores: Vec<PlannedCore>,
    /// Why there are fewer of them than CPUs, a line each.
    pub reasons: Vec<String>,
    /// The CPU of each core's submission poller, in the order of the cores; empty without
    /// [`sqpoll`](crate::Builder::sqpoll).
    pub pollers: Vec<CpuId>,
    /// The features of a ring that is made like a core's. It has no CPU to pin io-wq workers to and no blocks
    /// to register, so [`iowq_pinned`](crate::RingFeatures::iowq_pinned) and
    /// [`fixed_buffers`](crate::RingFeatures::fixed_buffers) are false.
    pub ring: RingProbe,
    /// System calls that the runtime makes and that are refused here
    /// ([`refused_calls`](crate::refused_calls)).
    pub refused_calls: Vec<&'static str>,
    /// Bytes that each core's pool begins with, as asked.
    pub pool_bytes: usize,
    /// Bytes to which each pool may grow.
    pub pool_limit: usize,
    /// What is done when memory cannot lie where it should.
    pub placement: PlacementPolicy,
    /// The options that were chosen ([`Builder`](crate::Builder)).
    pub options: Options,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, core) in self.cores.iter().enumerate() {
            write!(f, "{core}; pool of {} bytes, may grow to {}", self.pool_bytes, self.pool_limit)?;
            match self.pollers.get(i) {
                Some(cpu) => writeln!(f, "; submissions polled from CPU {cpu}")?,
                None => writeln!(f)?,
            }
        }
        let features = &self.ring.features;
        writeln!(
            f,
            "ring of {} SQEs and {} CQEs; placement {}; options: {}",
            features.sq_entries, features.cq_entries, self.placement, self.options
        )?;
        for reason in &self.reasons {
            writeln!(f, "core plan: {reason}")?;
        }
        for lack in &features.lacks {
            writeln!(f, "without {lack}")?;
        }
        for call in &self.refused_calls {
            writeln!(f, "without the system call {call}, which a filter refuses")?;
        }
        for missing in &self.ring.missing {
            writeln!(f, "without the operation {missing}")?;
        }
        Ok(())
    }
}
