//! Distributions of latency, for people: a table, and a picture in which the tail is as wide as the rest.

use super::figure::figure;
use super::report::{NINES, SHARES, STEPS, latency};
use super::rounds::Outcomes;
use super::svg::{begin, colour, escape, list};
use crate::histogram::Histogram;
use serde_json::Value;
use std::fmt::Write;

/// Pixels of a diagram, and of what is around it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 30.0;
const LEGEND: f64 = 190.0;
const BOTTOM: f64 = 40.0;

/// The contestants whose latency was measured, the quickest at 99% first.
fn found(outcomes: &Outcomes) -> Vec<(&str, Histogram)> {
    let named = |result| Some((result, latency(result)?));
    let mut found: Vec<(&str, Histogram)> = outcomes
        .results
        .iter()
        .filter_map(named)
        .map(|(result, histogram)| (result.who.name.as_str(), histogram))
        .collect();
    found.sort_by_key(|(_, histogram)| histogram.quantile(0.99));
    found
}

/// A table in Markdown; nothing where latency was not measured.
pub fn table(outcomes: &Outcomes) -> String {
    let found = found(outcomes);
    if found.is_empty() {
        return String::new();
    }
    let heads: Vec<String> = SHARES.iter().map(|(name, _)| format!(" {name} |")).collect();
    let mut out = format!(
        "\n| latency in us, all rounds |{} requests |\n|---|{}---|\n",
        heads.concat(),
        "---|".repeat(SHARES.len())
    );
    for (name, histogram) in found {
        let cells: Vec<String> = SHARES
            .iter()
            .map(|(_, q)| format!(" {} |", figure(histogram.quantile(*q).unwrap_or(0) as f64 / 1e3)))
            .collect();
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "| {name} |{} {} |", cells.concat(), histogram.total());
    }
    out
}

/// A contestant's line, as nines and nanoseconds.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

impl<'a> Line<'a> {
    /// Of a contestant in a result as `--json` writes it, from its curve, or from its few shares where it is
    /// older than curves.
    fn of(who: &'a Value) -> Option<Self> {
        let curve = list(&who["latency_curve_ns"]).enumerate();
        let curve = curve.filter_map(|(step, ns)| Some((step as f64 / STEPS as f64, ns.as_f64()?)));
        let mut points: Vec<_> = curve.collect();
        if points.is_empty() {
            let share =
                |(name, q): &(&str, f64)| Some((-(1.0 - q).log10(), who["latency_ns"][name].as_f64()?));
            points = SHARES.iter().filter(|(_, q)| *q < 1.0).filter_map(share).collect();
        }
        // The axis is one of logarithms.
        points.iter_mut().for_each(|(_, ns)| *ns = ns.max(1.0));
        (!points.is_empty()).then_some(Line { name: who["name"].as_str()?, points })
    }

    /// Nanoseconds within which 99% were answered.
    fn two_nines(&self) -> f64 {
        self.points.iter().find(|(nines, _)| *nines >= 2.0).map_or(f64::MAX, |(_, ns)| *ns)
    }
}

/// One diagram for each work whose latency was measured: from left to right the share of requests (90% is
/// one step, 99% the next), upwards the time within which they were answered, each step ten times as long.
/// `title` says what stands above one, `chosen` who is in it.
pub fn picture(
    results: &Value,
    title: impl Fn(&str) -> String,
    chosen: impl Fn(&str, &str) -> bool,
) -> Option<String> {
    let (mut diagrams, mut last) = (Vec::new(), None);
    for work in list(&results["workloads"]) {
        // Works of one task in a row are views of the same rounds.
        if last.replace(&work["task"]) == Some(&work["task"]) {
            continue;
        }
        let name = work["name"].as_str().unwrap_or_default();
        let mut lines: Vec<_> = list(&work["contestants"]).filter_map(Line::of).collect();
        lines.retain(|line| chosen(name, line.name));
        lines.sort_by(|a, b| a.two_nines().total_cmp(&b.two_nines()));
        if !lines.is_empty() {
            diagrams.push((title(name), lines));
        }
    }
    if diagrams.is_empty() {
        return None;
    }
    let tall = |lines: &[Line]| TOP + BOTTOM + HEIGHT.max(lines.len() as f64 * 16.0);
    let mut out = begin(LEFT + WIDTH + LEGEND, diagrams.iter().map(|(_, lines)| tall(lines)).sum());
    let mut y = 0.0;
    for (title, lines) in &diagrams {
        diagram(&mut out, title, lines, y + TOP);
        y += tall(lines);
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// The powers of ten, in nanoseconds, between which all that is shown lies.
fn bounds(lines: &[Line]) -> (i32, i32) {
    let all = || lines.iter().flat_map(|line| line.points.iter().map(|(_, ns)| ns.log10()));
    let low = all().fold(f64::MAX, f64::min).floor() as i32;
    (low, (all().fold(f64::MIN, f64::max).ceil() as i32).max(low + 1))
}

/// As people say it.
fn time(log_ns: i32) -> String {
    if log_ns < 6 {
        format!("{} us", 10_f64.powi(log_ns - 3))
    } else {
        format!("{} ms", 10_f64.powi(log_ns - 6))
    }
}

fn diagram(out: &mut String, title: &str, lines: &[Line], top: f64) {
    let (low, high) = bounds(lines);
    let across = |nines: f64| LEFT + WIDTH * (nines / NINES as f64).clamp(0.0, 1.0);
    let up = |log: f64| top + HEIGHT * (1.0 - (log - f64::from(low)) / f64::from(high - low)).clamp(0.0, 1.0);
    // Writing to a String does not fail, here and below.
    let _ =
        writeln!(out, "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", top - 12.0, escape(title));
    for share in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99] {
        let x = across(-(1.0 - share / 100.0_f64).log10());
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{:.1}\"/><text class=\"soft\" x=\"{x:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{share}%</text>",
            top + HEIGHT,
            top + HEIGHT + 16.0
        );
    }
    for log in low..=high {
        let y = up(f64::from(log));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"soft\" x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0,
            time(log)
        );
    }
    for (i, Line { name, points }) in lines.iter().enumerate() {
        let shown = points.iter().map(|(nines, ns)| format!("{:.1},{:.1}", across(*nines), up(ns.log10())));
        let ours = name.starts_with("annulus");
        let (stroke, width, weight) =
            (colour(name), if ours { 3.0 } else { 1.6 }, if ours { " font-weight=\"bold\"" } else { "" });
        let dash = ["none", "6 3", "2 2", "8 2 2 2"][i % 4];
        let (x, y) = (LEFT + WIDTH + 12.0, top + 12.0 + i as f64 * 16.0);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dash}\"/><path d=\"M{x:.1} {:.1}h24\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\" stroke-dasharray=\"{dash}\"/><text x=\"{:.1}\" y=\"{y:.1}\"{weight}>{}</text>",
            shown.collect::<Vec<_>>().join(" "),
            y - 4.0,
            x + 30.0,
            escape(name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::report;
    use super::super::rounds::{Result, Sample};
    use super::super::table::workloads;
    use super::*;
    use crate::drive::Outcome;
    use serde_json::json;

    fn drawn(results: &Value) -> Option<String> {
        picture(results, |work| format!("{work}: latency"), |_, _| true)
    }

    /// Seen to fail: with a curve that is not written.
    #[test]
    fn a_distribution_is_told_and_drawn_and_other_work_is_not() {
        let work = workloads().into_iter().find(|work| work.name == "rate-10k").unwrap();
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|us| histogram.record(us * 1000));
        let outcome = Outcome { requests: 10_000, latency: Some(histogram), ..Outcome::default() };
        let sample = Sample { cpu_ns: 1, outcome, late: None, memory: None };
        let who = contestants(work.kind).remove(0);
        let mut outcomes = Outcomes { rounds: 1, ..Outcomes::default() };
        outcomes.results.push(Result { who, samples: vec![sample.clone(), sample.clone()] });
        let told = table(&outcomes);
        assert!(told.contains("| 20000 |") && told.contains("50%"), "{told}");
        let results = |outcomes: &Outcomes| {
            let found = report::json(&work, outcomes, work.reference);
            json!({ "workloads": [found, report::json(&work, outcomes, work.reference)] })
        };
        let svg = drawn(&results(&outcomes)).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 1, "once for both views: {svg}");
        assert_eq!(svg.matches(',').count(), 81, "a point each twentieth of four nines: {svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        outcomes.results[0].samples[0].outcome.latency = None;
        assert_eq!(table(&outcomes), "");
        assert_eq!(drawn(&results(&outcomes)), None);
    }

    #[test]
    fn results_that_are_older_than_curves_are_drawn_by_their_shares() {
        let who = json!({ "name": "old", "latency_ns": { "50%": 40_000, "90%": 60_000, "99%": 1_000_000, "100%": 5 } });
        let svg = drawn(&json!({ "workloads": [{ "name": "w", "contestants": [who] }] })).unwrap();
        // Between 10 us and 1 ms, 99% in the middle of the four nines and at the top.
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points, "126.1,211.7 224.0,188.8 364.0,30.0");
        assert!(svg.contains(">10 us<") && svg.contains(">1 ms<"), "{svg}");
    }
}
