//! The table as a picture: CPU seconds for a gigabyte over the size of a transfer, both in powers.

use std::fmt::Write as _;

use super::techniques::Technique;
use super::{Measured, size};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Colours that those who see few of them can tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"];

/// An SVG file.
pub(super) fn draw(measured: &[Measured]) -> String {
    let costs = || measured.iter().map(|line| line.figures.cpu_per_gb());
    let (low, high) = costs().fold((f64::MAX, f64::MIN), |(low, high), cost| (low.min(cost), high.max(cost)));
    let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let smallest = measured.iter().map(|line| line.size).min().unwrap_or(1) as f64;
    let largest = measured.iter().map(|line| line.size).max().unwrap_or(2).max(2) as f64;
    let span = (largest / smallest).log2().max(1.0);
    let x = |size: u64| LEFT + (size as f64 / smallest).log2() / span * (WIDTH - LEFT - RIGHT);
    let y = |cost: f64| TOP + (high - cost.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">CPU seconds for 10^9 bytes from a file in memory to a socket (loopback)</text>\n"
    );
    let mut push = |text: String| out.write_str(&text).expect("a string takes everything");
    for power in low as i32..=high as i32 {
        let at = y(10f64.powi(power));
        push(format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            10f64.powi(power)
        ));
    }
    let mut sizes: Vec<u64> = measured.iter().map(|line| line.size).collect();
    sizes.dedup();
    for one in sizes {
        push(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            x(one),
            HEIGHT - BOTTOM + 20.0,
            size(one)
        ));
    }
    let known =
        Technique::ALL.iter().filter(|technique| measured.iter().any(|line| line.technique == **technique));
    for (at, technique) in known.enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: String = measured
            .iter()
            .filter(|line| line.technique == *technique)
            .map(|line| format!("{:.1},{:.1} ", x(line.size), y(line.figures.cpu_per_gb())))
            .collect();
        let legend = TOP + 20.0 * at as f64;
        push(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} (said: {})</text>\n",
            points.trim_end(),
            WIDTH - RIGHT + 14.0,
            legend,
            WIDTH - RIGHT + 34.0,
            legend + 6.0,
            technique.name(),
            technique.claim()
        ));
    }
    out.push_str("</svg>\n");
    out
}
