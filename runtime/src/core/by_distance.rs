//! Counters of what one core sends to another, by the distance between them.

use super::peers::PeerCores;
use super::shared::CoreShared;
use crate::metrics::Counter;
use crate::metrics::counters::CoreCounters;
use crate::numa::topology::Proximity;

impl PeerCores {
    /// Work is about to be sent to a core.
    pub(crate) fn count_submit(&self, counters: &CoreCounters, to: &CoreShared) {
        self.count(
            to,
            [
                &counters.submits_same_core,
                &counters.submits_same_cache,
                &counters.submits_same_node,
                &counters.submits_remote,
            ],
        );
    }

    /// A connection has gone to a core.
    pub(crate) fn count_handed(&self, counters: &CoreCounters, to: &CoreShared) {
        self.count(
            to,
            [
                &counters.handed_same_core,
                &counters.handed_same_cache,
                &counters.handed_same_node,
                &counters.handed_remote,
            ],
        );
    }

    /// A task of another core was woken.
    pub(crate) fn count_wake(&self, counters: &CoreCounters, to: &CoreShared) {
        self.count(
            to,
            [
                &counters.wakes_same_core,
                &counters.wakes_same_cache,
                &counters.wakes_same_node,
                &counters.wakes_remote,
            ],
        );
    }

    /// Adds one to the counter for a core as near as `to`. The four counters are in order of distance,
    /// nearest first.
    fn count(&self, to: &CoreShared, [core, cache, node, remote]: [&Counter; 4]) {
        match self.proximity(to) {
            Some(Proximity::SameCore) => core.add(1),
            Some(Proximity::SameCache) => cache.add(1),
            Some(Proximity::SameNode) => node.add(1),
            // Any other kind of distance is farther than a node.
            Some(_) => remote.add(1),
            None => {}
        }
    }
}
