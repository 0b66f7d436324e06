//! What came out, for people and for scripts.

use super::rounds::{Outcomes, Result, Settings};
use super::table::{Unit, Workload};
use crate::stats::{Ratio, median, paired_ratio, quantile};
use serde_json::{Value, json};
use std::fmt::Write;

/// One line of a table.
struct Line<'a> {
    result: &'a Result,
    cost: Vec<f64>,
    speed: Vec<f64>,
    ratio: Option<Ratio>,
}

fn lines<'a>(work: &Workload, outcomes: &'a Outcomes, reference: &str) -> Vec<Line<'a>> {
    let cost_of = |result: &Result| -> Vec<f64> {
        let cost = |sample: &super::rounds::Sample| match work.unit {
            Unit::MicrosPerRequest => sample.cpu_ns as f64 / 1e3 / sample.outcome.requests as f64,
            Unit::SecondsPerGigabyte => sample.cpu_ns as f64 / sample.outcome.bytes as f64,
        };
        result.samples.iter().map(cost).collect()
    };
    let reference = outcomes.results.iter().find(|result| result.who.name == reference).map(cost_of);
    let mut lines: Vec<Line<'a>> = outcomes
        .results
        .iter()
        .map(|result| {
            let cost = cost_of(result);
            let speed = |sample: &super::rounds::Sample| {
                let done = match work.unit {
                    Unit::MicrosPerRequest => sample.outcome.requests as f64 / 1e3,
                    Unit::SecondsPerGigabyte => sample.outcome.bytes as f64 / 1e9,
                };
                done / sample.outcome.wall.as_secs_f64()
            };
            let ratio = reference.as_ref().and_then(|reference| paired_ratio(&cost, reference));
            Line { result, cost, speed: result.samples.iter().map(speed).collect(), ratio }
        })
        .collect();
    lines.sort_by(|a, b| median(&a.cost).unwrap_or(f64::MAX).total_cmp(&median(&b.cost).unwrap_or(f64::MAX)));
    lines
}

/// The share of the wall time in which the contestant had a CPU, over all rounds.
fn busy(result: &Result) -> f64 {
    let cpu: u64 = result.samples.iter().map(|sample| sample.cpu_ns).sum();
    let wall: f64 = result.samples.iter().map(|sample| sample.outcome.wall.as_secs_f64()).sum();
    cpu as f64 / 1e9 / wall.max(1e-9)
}

/// The table of one workload, the cheapest contestant first.
pub fn text(work: &Workload, outcomes: &Outcomes, reference: &str, settings: &Settings) -> String {
    let (cost, speed) = match work.unit {
        Unit::MicrosPerRequest => ("CPU us/request", "k requests/s"),
        Unit::SecondsPerGigabyte => ("CPU s/GB", "GB/s"),
    };
    let mut out = format!("\n{}: {} rounds; ratios of CPU to `{reference}`\n", work.name, settings.rounds);
    let mut row = |cells: [&str; 5]| {
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "  {:<28} {:>24} {:>24} {:>12} {:>5}",
            cells[0], cells[1], cells[2], cells[3], cells[4]
        );
    };
    row(["contestant", &format!("{cost} [quartiles]"), "ratio [95%]", speed, "busy"]);
    for line in lines(work, outcomes, reference) {
        let at = |q| quantile(&line.cost, q).unwrap_or(f64::NAN);
        let ratio = match line.ratio {
            Some(Ratio { value, interval: Some((low, high)) }) => format!("{value:.2} [{low:.2}, {high:.2}]"),
            Some(Ratio { value, interval: None }) => format!("{value:.2} [too few rounds]"),
            None => "-".to_owned(),
        };
        row([
            &line.result.who.name,
            &format!("{:.3} [{:.3}, {:.3}]", at(0.5), at(0.25), at(0.75)),
            &ratio,
            &format!("{:.2}", median(&line.speed).unwrap_or(f64::NAN)),
            &format!("{:.0}%", busy(line.result) * 100.0),
        ]);
    }
    for (name, why) in &outcomes.left_out {
        let _ = writeln!(out, "  left out: {name}: {why}");
    }
    out
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
                "busy": busy(line.result),
                "samples": samples,
            })
        })
        .collect();
    let left_out: Vec<Value> =
        outcomes.left_out.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect();
    json!({
        "name": work.name,
        "load": format!("{:?}", work.load),
        "unit": match work.unit {
            Unit::MicrosPerRequest => "CPU us per request",
            Unit::SecondsPerGigabyte => "CPU s per 10^9 bytes",
        },
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
    json!({
        "kernel": kernel.release().to_string_lossy(),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        // Not those we may use: the driver has pinned itself by now.
        "cpus": read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "load_average": read("/proc/loadavg").trim(),
        // bbr paces, with timers that cost CPU; cubic does not: results under one do not speak of the other.
        "tcp_congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        "optimized": !cfg!(debug_assertions),
    })
}

#[cfg(test)]
mod tests {
    use super::super::rounds::Sample;
    use super::super::table::{contestants, workloads};
    use super::*;
    use crate::drive::Outcome;
    use std::time::Duration;

    #[test]
    fn costs_and_ratios_come_from_the_samples() {
        let work = workloads().into_iter().find(|work| work.name == "file-64k").unwrap();
        let result = |index: usize, cpu_us: u64| {
            let outcome = Outcome { requests: 100, bytes: 6_553_600, wall: Duration::from_millis(10) };
            Result {
                who: contestants(work.kind)[index].clone(),
                samples: vec![Sample { cpu_ns: cpu_us * 1000, outcome }; 6],
            }
        };
        let outcomes = Outcomes {
            results: vec![result(0, 4000), result(4, 2000)],
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
        let settings = super::super::rounds::Settings {
            rounds: 6,
            run: Duration::from_millis(1),
            only: vec![],
            copy: false,
        };
        let table = text(&work, &outcomes, reference, &settings);
        assert!(table.contains("2.00 [2.00, 2.00]"), "{table}");
        assert!(table.contains("left out: nobody: not there"), "{table}");
    }
}
