//! The figures of the cores, as stable lines for people and scripts.

use std::time::Duration;

use annulus::Running;
use annulus::numa::plan::CorePlan;

use crate::confine;
use crate::exit::{Failure, say};
use crate::metrics::gather::Gatherer;
use crate::metrics::summary::summary;
use crate::processes::member::Image;

/// Ten lines about the whole, for people.
pub(crate) fn print_summary(running: &Running<Failure>) {
    summary(&Gatherer::new(running.observer()).gather()).iter().for_each(|line| say(line));
}

/// One line per core: `annulus: core 0 cpu 0 node 0 name=value ...`, with [`annulus::Counters`] for the
/// names. A process of several says first whose line it is, `annulus: node 1: core 0 cpu 4 ...`, and counts
/// its cores from 0: the CPU is the key.
pub(crate) fn print_counters(plan: &CorePlan, running: &Running<Failure>) {
    for (core, counters) in plan.cores().iter().zip(running.counters()) {
        say(&format!("core {} cpu {} node {} {counters}", core.index, core.cpu, core.node));
    }
}

/// How long one step of a task may last before the picture shows it. The picture waits for so long.
const STALL: Duration = Duration::from_millis(50);

/// A line for each core that is stuck in one step of a task.
pub(crate) fn print_stalls(running: &Running<Failure>) {
    let stalls = running.stalls(STALL);
    for stall in &stalls {
        say(&stall.to_string());
    }
    if stalls.is_empty() {
        say(&format!("no core is in one step of a task for {} ms", STALL.as_millis()));
    }
}

/// Ring features in force, and where the pages lie; those of the program's image where it has a node.
pub(crate) fn print_report(running: &Running<Failure>, image: Option<&Image>) {
    confine::in_force().iter().for_each(|line| say(line));
    let image = image.map_or_else(String::new, Image::to_string);
    for line in image.lines().chain(running.report().to_string().lines()) {
        say(line);
    }
}
