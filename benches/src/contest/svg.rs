//! Results as pictures: horizontal bars, a block for each workload, written as SVG by hand.

use super::figure::figure;
use serde_json::Value;
use std::fmt::Write;

/// Pixels from one row to the next.
const ROW: f64 = 18.0;

/// Where things are in a block, in pixels, and how many blocks stand beside each other.
#[derive(Clone, Copy)]
pub struct Layout {
    /// The column of names.
    pub names: f64,
    /// The longest bar.
    pub bars: f64,
    /// The column of figures.
    pub figures: f64,
    /// Blocks in a row.
    pub columns: usize,
}

/// Blocks below each other.
const LIST: Layout = Layout { names: 190.0, bars: 420.0, figures: 90.0, columns: 1 };

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

/// The figures of a result as `--json` writes it, as one array.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What each workload cost, and how fast it was done: two pictures.
pub fn pictures(results: &Value) -> (String, String) {
    let (mut cost, mut speed) = (Vec::new(), Vec::new());
    for work in list(&results["workloads"]) {
        let text = |name: &str| work[name].as_str().unwrap_or_default();
        let name = text("name");
        let title = format!("{name}: {}, less is better", text("unit"));
        cost.push(Block { title, bars: list(&work["contestants"]).filter_map(cost_of).collect() });
        let title = format!("{name}: {}, more is better", text("speed_unit"));
        let bar = |who: &Value| {
            let value = who["speed_median"].as_f64()?;
            Some(Bar { name: who["name"].as_str()?.to_owned(), value, spread: None })
        };
        speed.push(Block { title, bars: list(&work["contestants"]).filter_map(bar).collect() });
    }
    (picture("", &cost, LIST), picture("", &speed, LIST))
}

/// What a contestant cost; `None` where that was not measured.
pub(super) fn cost_of(who: &Value) -> Option<Bar> {
    let spread = who["cost_quartiles"][0].as_f64().zip(who["cost_quartiles"][1].as_f64());
    Some(Bar { name: who["name"].as_str()?.to_owned(), value: who["cost_median"].as_f64()?, spread })
}

/// The beginning of a picture of this size, in pixels.
///
/// Its colours are light or dark as the reader's are, and it has a ground of its own, because a page need not
/// follow the reader. They are classes and no variables, which not every program that draws SVG knows.
pub(super) fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n<style>\n\
         .ground{{fill:#ffffff}} text{{fill:#1f2328}} .soft{{fill:#59636e}} .grid{{stroke:#d8dee4}} \
         .whisker{{stroke:#1f2328;stroke-width:1.5}}\n\
         .ours{{fill:#0a7ea4}} .limit{{fill:#9aa5ab}} .other{{fill:#c98f5a}}\n\
         @media (prefers-color-scheme:dark){{.ground{{fill:#0d1117}} text{{fill:#e6edf3}} .soft{{fill:#9198a1}} \
         .grid{{stroke:#30363d}} .whisker{{stroke:#e6edf3}} .ours{{fill:#2f9fc4}} .limit{{fill:#6e7781}} \
         .other{{fill:#a8703c}}}}\n</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n"
    )
}

/// A picture of blocks, under a title if it has one.
pub fn picture(title: &str, blocks: &[Block], layout: Layout) -> String {
    let Layout { names, bars, figures, columns } = layout;
    let (cell, rows) = (names + bars + figures, |block: &Block| block.bars.len() + 2);
    let top = if title.is_empty() { ROW } else { 2.5 * ROW };
    let tall = |line: &[Block]| line.iter().map(rows).max().unwrap_or(0) as f64 * ROW;
    let height = top + blocks.chunks(columns.max(1)).map(tall).sum::<f64>();
    let mut out = begin(cell * columns as f64, height);
    // Writing to a String does not fail, here and below.
    if !title.is_empty() {
        let _ =
            writeln!(out, "<text x=\"8\" y=\"{:.0}\" font-size=\"15\">{}</text>", 1.2 * ROW, escape(title));
    }
    let mut y = top;
    for line in blocks.chunks(columns.max(1)) {
        for (column, shown) in line.iter().enumerate() {
            block(&mut out, shown, (cell * column as f64, y), layout);
        }
        y += tall(line);
    }
    out.push_str("</svg>\n");
    out
}

fn block(out: &mut String, block: &Block, (left, top): (f64, f64), layout: Layout) {
    let title = escape(&block.title);
    let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{top:.0}\" font-weight=\"bold\">{title}</text>", left + 8.0);
    let reach = |bar: &Bar| bar.spread.map_or(bar.value, |(_, high)| high.max(bar.value));
    let longest = block.bars.iter().map(reach).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let begin = left + layout.names;
    let at = |value: f64| begin + layout.bars * (value / longest).clamp(0.0, 1.0);
    for (i, bar) in block.bars.iter().enumerate() {
        if bar.value.is_finite() {
            row(out, bar, (begin, top + ROW * (i + 1) as f64), at);
        }
    }
}

fn row(out: &mut String, bar: &Bar, (begin, y): (f64, f64), at: impl Fn(f64) -> f64) {
    let (class, weight) = match bar.name.split(' ').next() {
        Some("annulus") => ("ours", " font-weight=\"bold\""),
        Some("bare") => ("limit", ""),
        _ => ("other", ""),
    };
    let (end, top) = (at(bar.value), y - 11.0);
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\"{weight}>{}</text>\
         <rect class=\"{class}\" x=\"{begin:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"14\"/>",
        begin - 6.0,
        escape(&bar.name),
        end - begin,
    );
    let mut text = end;
    if let Some((low, high)) = bar.spread {
        let (low, high, middle) = (at(low), at(high), y - 4.0);
        text = text.max(high);
        let _ = writeln!(out, "<path class=\"whisker\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/>");
    }
    let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y:.1}\"{weight}>{}</text>", text + 5.0, figure(bar.value));
}

/// A colour for the line of a contestant, seen on light and on dark ground.
pub(super) fn colour(name: &str) -> &'static str {
    match name {
        "annulus hello" => "#1495c2",
        "annulus serve" => "#7fb800",
        "bare" => "#8b949e",
        "compio" => "#e0873a",
        "monoio" => "#a678d8",
        "tokio" => "#e0524d",
        "hyper" => "#d772b0",
        "glommio" => "#b59a2c",
        _ if name.starts_with("nginx") => "#3fa35b",
        _ => "#6f8fc9",
    }
}

/// Names come from our own table, but one day one of them will hold a `<`.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Seen to fail: with a name that is not escaped.
    #[test]
    fn a_picture_holds_every_bar_and_no_raw_markup() {
        let who = |name: &str, cost: Value| json!({ "name": name, "cost_median": cost, "cost_quartiles": [1.0, 2.5], "speed_median": 7.0 });
        let contestants =
            [who("annulus <a>", json!(1.0)), who("b & c", json!(2.0)), who("gone", Value::Null)];
        let work = json!({ "name": "work", "unit": "us", "speed_unit": "k/s", "contestants": contestants });
        let (cost, speed) = pictures(&json!({ "workloads": [work] }));
        assert!(cost.contains("annulus &lt;a&gt;") && cost.contains("b &amp; c"), "{cost}");
        assert!(!cost.contains("NaN") && !cost.contains("gone"), "{cost}");
        assert_eq!((cost.matches("<rect").count(), speed.matches("<rect").count()), (3, 4));
        assert_eq!(cost.matches("class=\"whisker\"").count(), 2);
        assert_eq!(cost.matches("prefers-color-scheme").count(), 1);
    }

    #[test]
    fn blocks_stand_beside_each_other_and_all_is_inside() {
        let bars =
            |n: usize| (0..n).map(|i| Bar { name: "b".into(), value: i as f64, spread: None }).collect();
        let blocks = [3, 5, 1].map(|n| Block { title: "t".into(), bars: bars(n) });
        let layout = Layout { names: 50.0, bars: 100.0, figures: 30.0, columns: 2 };
        let svg = picture("title", &blocks, layout);
        // Two lines of 7 and 3 rows below the title.
        assert!(svg.contains("viewBox=\"0 0 360 225\""), "{svg}");
        let numbers = |name: &str| -> Vec<f64> {
            let mark = format!(" {name}=\"");
            svg.split(&mark).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
        };
        assert!(numbers("x").iter().all(|x| (0.0..360.0).contains(x)), "{svg}");
        assert!(numbers("y").iter().all(|y| (0.0..225.0).contains(y)), "{svg}");
    }
}
