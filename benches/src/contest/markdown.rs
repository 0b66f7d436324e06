//! The results as a page for people.

use super::figure::figure;
use super::latency;
use super::report::{Line, lines};
use super::rounds::Outcomes;
use super::table::Workload;
use crate::stats::Estimate;
use serde_json::Value;
use std::fmt::Write;

/// One section per workload, the cheapest contestant first, after a line that says what machine it was.
pub fn page(
    machine: &Value,
    load_after: &str,
    note: &str,
    played: &[(Workload, Outcomes, String)],
) -> String {
    let text = |name: &str| machine[name].as_str().map_or_else(|| machine[name].to_string(), str::to_owned);
    let mut out = format!(
        "{} CPUs {}{}, governor {}, {}, Linux {}, TCP {}; load average {} at the start, {load_after} at the end.\n",
        text("cpus"),
        text("cpu"),
        if machine["virtual_machine"] == true { " (virtual)" } else { "" },
        text("governor"),
        text("memory"),
        text("kernel"),
        text("tcp_congestion_control"),
        text("load_average"),
    );
    if machine["optimized"] != true {
        out.push_str("\n**A debug build: the numbers say nothing.**\n");
    }
    if !note.is_empty() {
        let _ = writeln!(out, "\n{note}");
    }
    for (i, (work, outcomes, reference)) in played.iter().enumerate() {
        section(&mut out, work, outcomes, reference);
        // Once, where the same rounds are printed more than once.
        if i == 0 || played[i - 1].0.task != work.task {
            out.push_str(&latency::table(outcomes));
        }
    }
    out
}

fn section(out: &mut String, work: &Workload, outcomes: &Outcomes, reference: &str) {
    let (cost, speed) = work.unit.names();
    // Writing to a String does not fail, here and below.
    let _ = write!(
        out,
        "\n### {}\n\n{} rounds, ratios to `{reference}`\n\n| contestant | {cost} (quartiles) | ratio (95%) | {speed} | busy |\n\
         |---|---|---|---|---|\n",
        work.name, outcomes.rounds
    );
    for line in lines(work, outcomes, reference) {
        let Line { result, .. } = &line;
        let [low, middle, high] = line.quartiles().map(figure);
        let ratio = match line.ratio {
            Some(Estimate { value, interval: Some((low, high)) }) => {
                format!("{value:.2} ({low:.2}-{high:.2})")
            }
            Some(Estimate { value, interval: None }) => format!("{value:.2}"),
            None => "-".to_owned(),
        };
        let (speed, busy) = (figure(line.speed()), line.busy() * 100.0);
        let _ = writeln!(
            out,
            "| {} | {middle} ({low}-{high}) | {ratio} | {speed} | {busy:.0}% |",
            result.who.name
        );
    }
    for (name, why) in &outcomes.left_out {
        let _ = writeln!(out, "\nLeft out: {name}: {}", why.replace('\n', " "));
    }
}
