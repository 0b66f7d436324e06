//! The results as pictures: horizontal bars, one block per workload, written as SVG by hand.

use super::figure::figure;
use super::report::lines;
use super::rounds::Outcomes;
use super::table::Workload;
use std::fmt::Write;

/// Pixels: a row, the column of names, the longest bar, the column of figures.
const ROW: f64 = 18.0;
const NAMES: f64 = 190.0;
const BARS: f64 = 420.0;
const FIGURES: f64 = 90.0;

/// One bar.
pub struct Bar {
    /// What stands before it.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// The whisker, from and to, if there is one.
    pub spread: Option<(f64, f64)>,
}

/// Bars of one scale.
pub struct Block {
    /// What stands above them.
    pub title: String,
    /// The bars, from above.
    pub bars: Vec<Bar>,
}

/// What each workload cost, and how fast it was done: two pictures.
pub fn pictures(played: &[(Workload, Outcomes, String)]) -> (String, String) {
    let mut blocks = (Vec::new(), Vec::new());
    for (work, outcomes, reference) in played {
        let (cost, speed) = work.unit.names();
        let (mut costs, mut speeds) = (Vec::new(), Vec::new());
        for line in lines(work, outcomes, reference) {
            let [low, middle, high] = line.quartiles();
            let name = line.result.who.name.clone();
            costs.push(Bar { name: name.clone(), value: middle, spread: Some((low, high)) });
            speeds.push(Bar { name, value: line.speed(), spread: None });
        }
        blocks.0.push(Block { title: format!("{}: {cost}, less is better", work.name), bars: costs });
        blocks.1.push(Block { title: format!("{}: {speed}, more is better", work.name), bars: speeds });
    }
    (picture(&blocks.0), picture(&blocks.1))
}

/// A picture of blocks below each other.
pub fn picture(blocks: &[Block]) -> String {
    let rows: usize = blocks.iter().map(|block| block.bars.len() + 2).sum();
    let (width, height) = (NAMES + BARS + FIGURES, rows as f64 * ROW + ROW);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = ROW;
    for block in blocks {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "<text x=\"8\" y=\"{y}\" font-weight=\"bold\">{}</text>", escape(&block.title));
        y += ROW;
        let reach = |bar: &Bar| bar.spread.map_or(bar.value, |(_, high)| high.max(bar.value));
        let longest =
            block.bars.iter().map(reach).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
        let at = |value: f64| NAMES + BARS * (value / longest).clamp(0.0, 1.0);
        for bar in &block.bars {
            if bar.value.is_finite() {
                row(&mut out, bar, y, at);
            }
            y += ROW;
        }
        y += ROW;
    }
    out.push_str("</svg>\n");
    out
}

fn row(out: &mut String, bar: &Bar, y: f64, at: impl Fn(f64) -> f64) {
    let ours = bar.name.starts_with("annulus");
    let colour = colour(&bar.name);
    let weight = if ours { " font-weight=\"bold\"" } else { "" };
    let (end, top) = (at(bar.value), y - 11.0);
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\"{weight}>{}</text>\
         <rect x=\"{NAMES}\" y=\"{top}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>",
        NAMES - 6.0,
        escape(&bar.name),
        end - NAMES,
    );
    let mut text = end;
    if let Some((low, high)) = bar.spread {
        let (low, high, middle) = (at(low), at(high), y - 4.0);
        text = text.max(high);
        let _ =
            writeln!(out, "<path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"black\" stroke-width=\"2\"/>");
    }
    let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y}\">{}</text>", text + 5.0, figure(bar.value));
}

/// Ours, the limit, and each of the others.
pub(super) fn colour(name: &str) -> &'static str {
    match name.split(' ').next() {
        Some("annulus") => "#1f6f8b",
        Some("bare") => "#9aa5ab",
        Some("nginx" | "haproxy") => "#7a9a4c",
        Some("tokio" | "hyper") => "#b5523b",
        Some("monoio") => "#8a63a8",
        _ => "#d9a566",
    }
}

/// Names come from our own table, but one day one of them will hold a `<`.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_holds_every_bar_and_no_raw_markup() {
        let bar = |name: &str, value| Bar { name: name.into(), value, spread: Some((value, value * 1.1)) };
        let bars = vec![bar("annulus <a>", 1.0), bar("b & c", 2.0), bar("gone", f64::NAN)];
        let svg = picture(&[Block { title: "work".into(), bars }]);
        assert!(svg.contains("annulus &lt;a&gt;") && svg.contains("b &amp; c"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("gone"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3);
    }
}
