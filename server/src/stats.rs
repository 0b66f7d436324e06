//! The figures of the cores, as stable lines for people and scripts.

use annulus::Running;
use annulus::numa::plan::CorePlan;

use crate::exit::{Failure, say};

/// One line per core: `annulus: core 0 cpu 0 node 0 name=value ...`, with [`annulus::Counters`] for the names.
pub(crate) fn print_counters(plan: &CorePlan, running: &Running<Failure>) {
    for (core, counters) in plan.cores().iter().zip(running.counters()) {
        say(&format!("core {} cpu {} node {} {counters}", core.index, core.cpu, core.node));
    }
}

/// Ring features in force, and where the pages lie.
pub(crate) fn print_report(running: &Running<Failure>) {
    for line in running.report().to_string().lines() {
        say(line);
    }
}
