//! What came out, for people and for scripts.

use super::rounds::{IdleMemory, Outcomes, Result, Sample};
use super::table::{Unit, Workload};
use super::undisturbed::undisturbed;
use crate::histogram::Histogram;
use crate::pooled::pooled_ratio;
use crate::stats::{Estimate, median, paired_ratio, quantile};
use serde_json::{Value, json};
use std::fmt::Write;

/// One line of a table.
pub struct Line<'a> {
    /// Who, and every sample.
    pub result: &'a Result,
    cost: Vec<f64>,
    speed: Vec<f64>,
    /// Cost to that of the reference.
    pub ratio: Option<Estimate>,
}

impl Line<'_> {
    /// Lower quartile, median and upper quartile of the cost.
    pub fn quartiles(&self) -> [f64; 3] {
        [0.25, 0.5, 0.75].map(|q| quantile(&self.cost, q).unwrap_or(f64::NAN))
    }

    /// The median speed.
    pub fn speed(&self) -> f64 {
        median(&self.speed).unwrap_or(f64::NAN)
    }

    /// The share of the wall time in which the contestant had a CPU, over all rounds.
    pub fn busy(&self) -> f64 {
        let samples = &self.result.samples;
        let cpu: u64 = samples.iter().map(|sample| sample.cpu_ns).sum();
        let wall: f64 = samples.iter().map(|sample| sample.outcome.wall.as_secs_f64()).sum();
        cpu as f64 / 1e9 / wall.max(1e-9)
    }
}

/// The lines of a table, the cheapest contestant first.
pub fn lines<'a>(work: &Workload, outcomes: &'a Outcomes, reference: &str) -> Vec<Line<'a>> {
    let cost_of = |result: &Result| costs(work.unit, result);
    let reference = outcomes.results.iter().find(|result| result.who.name == reference);
    let mut lines: Vec<Line<'a>> = outcomes
        .results
        .iter()
        .map(|result| {
            let cost = cost_of(result);
            let speed = |sample: &Sample| {
                let done = match work.unit {
                    Unit::SecondsPerGigabyte => sample.outcome.bytes as f64 / 1e9,
                    _ => sample.outcome.requests as f64 / 1e3,
                };
                done / sample.outcome.wall.as_secs_f64()
            };
            let ratio = reference.and_then(|reference| ratio(work.unit, result, reference));
            Line { result, cost, speed: result.samples.iter().map(speed).collect(), ratio }
        })
        .collect();
    lines.sort_by(|a, b| median(&a.cost).unwrap_or(f64::MAX).total_cmp(&median(&b.cost).unwrap_or(f64::MAX)));
    lines
}

/// Microseconds within which the share `q` of the requests was answered.
fn within(sample: &Sample, q: f64) -> f64 {
    let latency = sample.outcome.latency.as_ref().and_then(|latency| latency.quantile(q));
    latency.map_or(f64::NAN, |ns| ns as f64 / 1e3)
}

/// The latencies of all rounds, if they were measured.
pub fn latency(result: &Result) -> Option<Histogram> {
    let mut all = Histogram::default();
    for sample in &result.samples {
        all.merge(sample.outcome.latency.as_ref()?);
    }
    (all.total() > 0).then_some(all)
}

/// The shares of which latency is told.
pub const SHARES: [(&str, f64); 5] =
    [("50%", 0.5), ("90%", 0.9), ("99%", 0.99), ("99.9%", 0.999), ("100%", 1.0)];

/// A curve ends at so many nines: 99.99%.
pub const NINES: usize = 4;
/// The points of a curve between two nines.
pub const STEPS: usize = 20;

/// Nanoseconds within which a share was answered: none, then 1 - 10^-1/20 of all, and so on, until all but
/// one of ten thousand.
fn curve(latency: &Histogram) -> Vec<u64> {
    let at = |step: usize| latency.quantile(1.0 - 10_f64.powf(-(step as f64) / STEPS as f64));
    (0..=NINES * STEPS).filter_map(at).collect()
}

/// Our cost to that of the reference.
pub fn ratio(unit: Unit, ours: &Result, reference: &Result) -> Option<Estimate> {
    let Some(share) = unit.pooled() else {
        return paired_ratio(&costs(unit, ours), &costs(unit, reference));
    };
    let rounds = undisturbed(ours, reference);
    let of = |result: &'_ Result| -> Option<Vec<Histogram>> {
        rounds.iter().map(|round| result.samples.get(*round)?.outcome.latency.clone()).collect()
    };
    let (ours, reference) = (of(ours)?, of(reference)?);
    pooled_ratio(&ours.iter().collect::<Vec<_>>(), &reference.iter().collect::<Vec<_>>(), share)
}

/// What each round cost.
pub fn costs(unit: Unit, result: &Result) -> Vec<f64> {
    let cost = |sample: &Sample| {
        let (cpu, requests) = (sample.cpu_ns as f64, sample.outcome.requests as f64);
        match unit {
            Unit::MicrosPerRequest => cpu / 1e3 / requests,
            Unit::SecondsPerGigabyte => cpu / sample.outcome.bytes as f64,
            Unit::NanosPerOperation => cpu / requests,
            Unit::MicrosLate => sample.late.map_or(f64::NAN, |late| late.as_nanos() as f64 / 1e3),
            Unit::MicrosMedian => within(sample, 0.5),
            Unit::Micros90 => within(sample, 0.9),
            Unit::Micros99 => within(sample, 0.99),
            Unit::KibUser => kib(sample, |memory| memory.user as f64),
            Unit::KibGrown => kib(sample, |memory| memory.grown),
            Unit::KibKept => kib(sample, |memory| memory.kept),
            Unit::KibKernel => kib(sample, |memory| memory.kernel as f64),
        }
    };
    result.samples.iter().map(cost).collect()
}

/// KiB for each connection.
fn kib(sample: &Sample, bytes: impl FnOnce(IdleMemory) -> f64) -> f64 {
    sample.memory.map_or(f64::NAN, bytes) / 1024.0 / sample.outcome.requests as f64
}

/// The table of one workload, the cheapest contestant first.
pub fn text(work: &Workload, outcomes: &Outcomes, reference: &str) -> String {
    let (cost, speed) = work.unit.names();
    let mut out = format!("\n{}: {} rounds; ratios of cost to `{reference}`\n", work.name, outcomes.rounds);
    let mut row = |cells: [&str; 5]| {
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "  {:<28} {:>30} {:>24} {:>14} {:>5}",
            cells[0], cells[1], cells[2], cells[3], cells[4]
        );
    };
    row(["contestant", &format!("{cost} [quartiles]"), "ratio [95%]", speed, "busy"]);
    for line in lines(work, outcomes, reference) {
        let [low, middle, high] = line.quartiles();
        let ratio = match line.ratio {
            Some(Estimate { value, interval: Some((low, high)) }) => {
                format!("{value:.2} [{low:.2}, {high:.2}]")
            }
            Some(Estimate { value, interval: None }) => format!("{value:.2} [too few rounds]"),
            None => "-".to_owned(),
        };
        row([
            &line.result.who.name,
            &format!("{middle:.3} [{low:.3}, {high:.3}]"),
            &ratio,
            &format!("{:.2}", line.speed()),
            &format!("{:.0}%", line.busy() * 100.0),
        ]);
    }
    for (name, why) in &outcomes.left_out {
        let _ = writeln!(out, "  left out: {name}: {why}");
    }
    out
}

/// How late the driver sent 99 of 100 requests at most, in nanoseconds.
fn driver_late(sample: &Sample) -> Option<u64> {
    sample.outcome.driver.as_ref()?.late.quantile(0.99)
}

/// The same for scripts, with every sample.
pub fn json(work: &Workload, outcomes: &Outcomes, reference: &str) -> Value {
    let contestants: Vec<Value> = lines(work, outcomes, reference)
        .iter()
        .map(|line| {
            let samples: Vec<Value> = line
                .result
                .samples
                .iter()
                .map(|sample| {
                    json!({
                        "cpu_ns": sample.cpu_ns,
                        "wall_ns": sample.outcome.wall.as_nanos() as u64,
                        "requests": sample.outcome.requests,
                        "bytes": sample.outcome.bytes,
                        "late_ns": sample.late.map(|late| late.as_nanos() as u64),
                        "driver_late_99_ns": driver_late(sample),
                        "driver_cpu_ns": sample.outcome.driver.as_ref().map(|driver| driver.cpu.as_nanos() as u64),
                        "user_bytes": sample.memory.map(|memory| memory.user),
                        "grown_bytes": sample.memory.map(|memory| memory.grown),
                        "kept_bytes": sample.memory.map(|memory| memory.kept),
                        "kernel_bytes": sample.memory.map(|memory| memory.kernel),
                    })
                })
                .collect();
            json!({
                "name": line.result.who.name,
                "command": line.result.who.command,
                "cost_median": median(&line.cost),
                "cost_quartiles": [quantile(&line.cost, 0.25), quantile(&line.cost, 0.75)],
                "speed_median": median(&line.speed),
                "ratio": line.ratio.map(|ratio| ratio.value),
                "ratio_interval_95": line.ratio.and_then(|ratio| ratio.interval).map(|(low, high)| [low, high]),
                "busy": line.busy(),
                "latency_ns": latency(line.result).map(|latency| {
                    let shares = SHARES.map(|(name, q)| (name.to_owned(), json!(latency.quantile(q))));
                    Value::Object(shares.into_iter().collect())
                }),
                "latency_curve_ns": latency(line.result).map(|latency| curve(&latency)),
                "samples": samples,
            })
        })
        .collect();
    let left_out: Vec<Value> =
        outcomes.left_out.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect();
    json!({
        "name": work.name,
        "task": format!("{:?}", work.task),
        "unit": work.unit.names().0,
        "speed_unit": work.unit.names().1,
        "rounds": outcomes.rounds,
        "reference": reference,
        "contestants": contestants,
        "left_out": left_out,
    })
}

/// What machine this is, and how busy it was with other things when asked.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let kernel = rustix::system::uname();
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let virtual_machine =
        field(&read("/proc/cpuinfo"), "flags").is_some_and(|flags| flags.contains("hypervisor"));
    json!({
        "kernel": kernel.release().to_string_lossy(),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        // Not those we may use: the driver has pinned itself by now.
        "cpus": read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "governor": if governor.is_empty() { "none" } else { governor.trim() },
        "virtual_machine": virtual_machine,
        // Over 1, 5 and 15 minutes.
        "load_average": read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        // bbr paces, with timers that cost CPU; cubic does not: results under one do not speak of the other.
        "tcp_congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        "optimized": !cfg!(debug_assertions),
    })
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::table::workloads;
    use super::*;
    use crate::drive::Outcome;
    use std::time::Duration;

    #[test]
    fn costs_and_ratios_come_from_the_samples() {
        let work = workloads().into_iter().find(|work| work.name == "file-64k").unwrap();
        let result = |name: &str, cpu_us: u64| {
            let wall = Duration::from_millis(10);
            let outcome = Outcome { requests: 100, bytes: 6_553_600, wall, ..Outcome::default() };
            Result {
                who: contestants(work.kind).into_iter().find(|who| who.name == name).unwrap(),
                samples: vec![Sample { cpu_ns: cpu_us * 1000, outcome, late: None, memory: None }; 6],
            }
        };
        let outcomes = Outcomes {
            rounds: 6,
            results: vec![result("bare sendfile:all", 4000), result(work.reference, 2000)],
            left_out: vec![("nobody".into(), "not there".into())],
        };
        let reference = work.reference;
        assert_eq!(outcomes.results[1].who.name, reference);
        let found = json(&work, &outcomes, reference);
        assert_eq!(found["contestants"][0]["name"], reference);
        assert_eq!(found["contestants"][0]["cost_median"], 20.0);
        let ratio = found["contestants"][1]["ratio"].as_f64().unwrap();
        assert!((ratio - 2.0).abs() < 1e-9);
        assert_eq!(found["left_out"][0]["name"], "nobody");
        let table = text(&work, &outcomes, reference);
        assert!(table.contains("2.00 [2.00, 2.00]"), "{table}");
        assert!(table.contains("left out: nobody: not there"), "{table}");
    }
}
