//! `annulus numa-bench`: what a load and a stream cost from every node's CPUs to every node's memory.

use std::fmt::Write as _;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use annulus::numa::measure::Track;
use annulus::numa::plan::{CorePlan, CoreSelection, PlannedCore};
use annulus::numa::region::{Backing, Region};
use annulus::numa::thread::spawn_pinned;
use annulus::numa::topology::Topology;
use annulus::numa::{NodeId, NodeSet};

use crate::exit::{Failure, Kind};
use crate::topology::print;

/// A region is this many times as large as the last level cache.
const TIMES_CACHE: u64 = 8;
/// Bounds of a region, in bytes.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 1 << 30;
const MOST_QUICK: u64 = 64 << 20;

/// Measures, and prints matrices beside the distances.
///
/// # Errors
/// [`Kind::Failed`] when a region cannot be had; what the plan says.
pub(crate) fn run(selection: &CoreSelection, quick: bool) -> Result<(), Failure> {
    let topology = Topology::discover()?;
    let plan = CorePlan::new(&topology, selection)?;
    let (from, to) =
        (plan.cores().iter().map(|core| core.node).collect::<NodeSet>(), topology.memory_nodes());
    let size = size(&topology, &to, quick)?;
    let rounds = if quick { 1 } else { 3 };
    let mut latency = Matrix::new("latency of a dependent load, ns", &from, &to);
    let mut bandwidth = Matrix::new("bandwidth of all of a node's cores reading, GB/s", &from, &to);
    let mut distance = Matrix::new("distance, as the firmware has it", &from, &to);
    let mut notes = String::new();
    for memory in to.iter() {
        let track = Arc::new(Track::new(region(&plan, memory, size)?));
        writeln!(notes, "memory of node {memory}: {}", track.region().placement()).unwrap_or_default();
        for node in from.iter() {
            let cores: Vec<_> = plan.cores().iter().filter(|core| core.node == node).cloned().collect();
            latency.set(measure_latency(&cores[0], &track, rounds)?);
            bandwidth.set(measure_bandwidth(&cores, &track, rounds)?);
            distance.set(f64::from(topology.distance(node, memory)));
        }
    }
    let optimised = if cfg!(debug_assertions) { "; UNOPTIMISED BUILD: figures are of the code" } else { "" };
    let mut text = format!("regions of {} MiB{optimised}\n{notes}", size >> 20);
    for matrix in [distance, latency, bandwidth] {
        text.push_str(&format!("\n{matrix}"));
    }
    if to.len() < 2 && from.len() < 2 {
        text.push_str("\nThis machine has one node: there is nothing remote to measure.\n");
    }
    print(&text)
}

/// As large as it should be, within what the fullest node has free.
fn size(topology: &Topology, to: &NodeSet, quick: bool) -> Result<u64, Failure> {
    let most = if quick { MOST_QUICK } else { MOST };
    let wanted = (last_level_cache() * TIMES_CACHE).clamp(LEAST, most);
    let free = to.iter().filter_map(|node| topology.node(node)).map(|node| node.memory_free / 2).min();
    let size = wanted.min(free.unwrap_or(wanted)) & !((2 << 20) - 1);
    if size < 8 << 20 {
        return Err(Failure::new(
            Kind::Failed,
            "a node has less than 16 MiB free; free some (numactl --hardware)",
        ));
    }
    Ok(size)
}

/// Bytes of the largest cache of CPU 0; 32 MiB where sysfs does not say.
fn last_level_cache() -> u64 {
    let read = |index: u32| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()
    };
    (0..8).filter_map(read).filter_map(|text| bytes(text.trim())).max().unwrap_or(32 << 20)
}

/// `32768K` or `32M`.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        _ => return text.parse().ok(),
    };
    number.parse::<u64>().ok()?.checked_shl(shift)
}

/// A region on `memory`, made on a CPU of that node where there is one.
fn region(plan: &CorePlan, memory: NodeId, size: u64) -> Result<Region, Failure> {
    let maker = plan.cores().iter().find(|core| core.node == memory).unwrap_or(&plan.cores()[0]);
    let making = spawn_pinned(format!("bench-mem-{memory}"), maker, move || {
        Region::with_backing(memory, size as usize, Backing::Auto)
    })?;
    Ok(joined(making)??)
}

fn joined<T>(thread: std::thread::JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new(Kind::Failed, "a measuring thread panicked; report this"))
}

/// Nanoseconds of a load, the best of the rounds: disturbances only add time.
fn measure_latency(core: &PlannedCore, track: &Arc<Track>, rounds: usize) -> Result<f64, Failure> {
    let track = Arc::clone(track);
    let loads = track.region().len() / 64 / 4;
    let measuring = spawn_pinned("bench-latency".to_owned(), core, move || {
        (0..rounds).map(|_| track.latency(loads)).min().unwrap_or_default()
    })?;
    Ok(joined(measuring)?.as_nanos() as f64)
}

/// GB/s of all cores together, each reading its part at the same time; the best of the rounds.
fn measure_bandwidth(cores: &[PlannedCore], track: &Arc<Track>, rounds: usize) -> Result<f64, Failure> {
    let barrier = Arc::new(Barrier::new(cores.len()));
    let mut threads = Vec::new();
    for (part, core) in cores.iter().enumerate() {
        let (track, barrier, parts) = (Arc::clone(track), Arc::clone(&barrier), cores.len());
        threads.push(spawn_pinned("bench-bandwidth".to_owned(), core, move || {
            let mut took: Vec<(usize, Duration)> = Vec::new();
            for _ in 0..rounds {
                barrier.wait();
                took.push(track.read(part, parts));
            }
            took
        })?);
    }
    let all = threads.into_iter().map(joined).collect::<Result<Vec<_>, _>>()?;
    let round = |i: usize| {
        let bytes: usize = all.iter().map(|rounds| rounds[i].0).sum();
        let slowest = all.iter().map(|rounds| rounds[i].1).max().unwrap_or_default();
        bytes as f64 / slowest.as_nanos().max(1) as f64
    };
    Ok((0..rounds).map(round).fold(0.0, f64::max))
}

/// Figures by CPU node (rows) and memory node (columns), filled column by column.
struct Matrix {
    title: &'static str,
    from: Vec<NodeId>,
    to: Vec<NodeId>,
    cells: Vec<f64>,
}

impl Matrix {
    fn new(title: &'static str, from: &NodeSet, to: &NodeSet) -> Self {
        Self { title, from: from.iter().collect(), to: to.iter().collect(), cells: Vec::new() }
    }

    fn set(&mut self, value: f64) {
        self.cells.push(value);
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.title)?;
        write!(f, "{:<16}", "CPUs \\ memory")?;
        for to in &self.to {
            write!(f, " {:>8}", format!("node {to}"))?;
        }
        writeln!(f)?;
        for (row, from) in self.from.iter().enumerate() {
            write!(f, "{:<16}", format!("node {from}"))?;
            for column in 0..self.to.len() {
                match self.cells.get(column * self.from.len() + row) {
                    Some(value) if value.fract() == 0.0 => write!(f, " {value:>8}")?,
                    Some(value) => write!(f, " {value:>8.1}")?,
                    None => write!(f, " {:>8}", "-")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_rows_of_cpus_and_columns_of_memory() {
        let mut matrix = Matrix::new("distance", &"0-1".parse().unwrap(), &"0,2".parse().unwrap());
        [10.0, 21.0, 14.5, 24.0].into_iter().for_each(|value| matrix.set(value));
        let expected = "distance\nCPUs \\ memory      node 0   node 2\nnode 0                 10     14.5\nnode 1                 21       24\n";
        assert_eq!(matrix.to_string(), expected);
    }

    #[test]
    fn cache_sizes() {
        assert_eq!((bytes("32K"), bytes("36M"), bytes("4096")), (Some(32 << 10), Some(36 << 20), Some(4096)));
        assert_eq!((bytes(""), bytes("K")), (None, None));
    }
}
