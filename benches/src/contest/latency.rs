//! Distributions of latency, for people: a table, and a picture in which the tail is as wide as the rest.

use super::figure::figure;
use super::report::{SHARES, latency};
use super::rounds::Outcomes;
use super::svg::{colour, escape};
use super::table::Workload;
use crate::histogram::Histogram;
use std::fmt::Write;

/// Pixels of a diagram, and of what is around it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 30.0;
const LEGEND: f64 = 190.0;
const BOTTOM: f64 = 40.0;

/// So many nines stand at the right edge: 99.99%.
const NINES: f64 = 4.0;

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

/// One diagram per workload: from left to right the share of requests (90% is one step, 99% the next),
/// upwards the time within which they were answered, each step ten times as long.
pub fn picture<'a>(played: impl Iterator<Item = (&'a Workload, &'a Outcomes)>) -> String {
    let diagrams: Vec<(&str, Vec<(&str, Histogram)>)> = played
        .map(|(work, outcomes)| (work.name, found(outcomes)))
        .filter(|(_, found)| !found.is_empty())
        .collect();
    let tall = |found: &[(&str, Histogram)]| TOP + BOTTOM + HEIGHT.max(found.len() as f64 * 16.0);
    let (width, height) = (LEFT + WIDTH + LEGEND, diagrams.iter().map(|(_, found)| tall(found)).sum::<f64>());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        height.max(1.0)
    );
    let mut y = 0.0;
    for (name, found) in &diagrams {
        diagram(&mut out, name, found, y + TOP);
        y += tall(found);
    }
    out.push_str("</svg>\n");
    out
}

/// The powers of ten, in nanoseconds, between which all that is shown lies.
fn bounds(found: &[(&str, Histogram)]) -> (f64, f64) {
    let at = |q| found.iter().filter_map(move |(_, histogram)| histogram.quantile(q));
    let low = at(0.0).min().unwrap_or(1).max(1) as f64;
    let high = at(1.0 - 10_f64.powf(-NINES)).max().unwrap_or(10) as f64;
    (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0))
}

fn diagram(out: &mut String, name: &str, found: &[(&str, Histogram)], top: f64) {
    let (low, high) = bounds(found);
    let across = |nines: f64| LEFT + WIDTH * nines / NINES;
    let up = |log: f64| top + HEIGHT * (1.0 - ((log - low) / (high - low)).clamp(0.0, 1.0));
    let _ = writeln!(
        out,
        "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{}: latency, less is better</text>",
        top - 12.0,
        escape(name)
    );
    for nines in 0..=NINES as usize {
        let (x, share) = (across(nines as f64), 100.0 - 100.0 / 10_f64.powi(nines as i32));
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {top:.1}V{:.1}\" stroke=\"#dddddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{share}%</text>",
            top + HEIGHT,
            top + HEIGHT + 16.0
        );
    }
    for log in low as i32..=high as i32 {
        let y = up(f64::from(log));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{} us</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0,
            10_f64.powi(log - 3)
        );
    }
    for (i, (who, histogram)) in found.iter().enumerate() {
        let points = (0..=200).filter_map(|step| {
            let nines = NINES * f64::from(step) / 200.0;
            let ns = histogram.quantile(1.0 - 10_f64.powf(-nines))?;
            Some(format!("{:.1},{:.1}", across(nines), up((ns.max(1) as f64).log10())))
        });
        let (stroke, weight) = (colour(who), if who.starts_with("annulus") { 2.5 } else { 1.2 });
        let dash = ["none", "6 3", "2 2", "8 2 2 2"][i % 4];
        let (x, y) = (LEFT + WIDTH + 12.0, top + 12.0 + i as f64 * 16.0);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{weight}\" \
             stroke-dasharray=\"{dash}\"/><path d=\"M{x:.1} {:.1}h24\" stroke=\"{stroke}\" \
             stroke-width=\"{weight}\" stroke-dasharray=\"{dash}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            points.collect::<Vec<_>>().join(" "),
            y - 4.0,
            x + 30.0,
            escape(who)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::rounds::{Result, Sample};
    use super::super::table::workloads;
    use super::*;
    use crate::drive::Outcome;

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
        let table = table(&outcomes);
        assert!(table.contains("| 20000 |") && table.contains("50%"), "{table}");
        let svg = picture([(&work, &outcomes)].into_iter());
        assert_eq!(svg.matches("<polyline").count(), 1, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        outcomes.results[0].samples[0].outcome.latency = None;
        assert_eq!(super::table(&outcomes), "");
        assert!(!picture([(&work, &outcomes)].into_iter()).contains("polyline"));
    }
}
