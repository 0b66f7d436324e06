//! docs/metrics.md has every metric, and no other: the table there is compared with what is exposed.

use std::collections::BTreeMap;

use super::cells::{CACHE_EVENTS, KINDS, METHODS, OUTCOMES};
use super::exposition::expose;
use super::families::EXPORTED;
use super::format::Format;
use super::status::tests::sample;
use super::upstreams::UpstreamState;

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// The unit that a name ends with, as the conventions have it.
fn unit(name: &str) -> &'static str {
    match name {
        _ if name.ends_with("_seconds") || name.ends_with("_seconds_total") => "seconds",
        _ if name.ends_with("_bytes") || name.ends_with("_bytes_total") => "bytes",
        _ => "",
    }
}

/// Of each metric its row: name, type, unit, labels, help.
fn rows() -> BTreeMap<String, String> {
    let text = expose(&sample(), Format::Prometheus);
    let (mut help, mut rows) = (BTreeMap::new(), BTreeMap::new());
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let names = rest.split("=\"").filter_map(|part| part.rsplit([',', '"']).next());
        let names: Vec<_> = names.map(str::to_owned).filter(|name| !name.is_empty()).collect();
        // The value is behind the last label.
        let names = &names[..rest.matches("=\"").count()];
        labels.entry(name.to_owned()).or_insert_with(|| names.to_vec());
    }
    for line in text.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            help.insert(name.to_owned(), text.to_owned());
        }
    }
    for (name, kind) in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        let sampled = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let labels: Vec<_> = labels[&sampled].iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {kind} | {} | {} | {} |", unit(name), labels.join(", "), help[name]);
        rows.insert(name.to_owned(), row.replace("|  |", "| |").replace("|  |", "| |"));
    }
    rows
}

/// Seen to fail: with a family renamed, and with a row more.
#[test]
fn the_page_has_every_metric_and_no_other() {
    let expected: Vec<String> = rows().into_values().collect();
    let is_row = |line: &&str| line.starts_with("| `annulus_") || line.starts_with("| `process_");
    let mut found: Vec<&str> = PAGE.lines().filter(is_row).collect();
    found.sort_unstable();
    let mut sorted: Vec<&str> = expected.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    assert_eq!(found, sorted, "the rows of docs/metrics.md are to be:\n{}", expected.join("\n"));
}

/// Every label of the rows is explained, with each value that the program makes up itself.
#[test]
fn the_page_has_every_label_and_its_values() {
    let table: Vec<&str> = PAGE.lines().take_while(|line| !line.starts_with("## ")).collect();
    let row = |label: &str| {
        let names =
            |line: &&&str| line.split('|').nth(1).is_some_and(|names| names.contains(&format!("`{label}`")));
        table.iter().find(names).unwrap_or_else(|| panic!("no row for the label {label}")).to_owned()
    };
    for line in rows().values() {
        let labels = line.split('|').nth(4).unwrap();
        labels
            .split('`')
            .filter(|part| part.chars().any(char::is_alphabetic))
            .for_each(|label| assert!(row(label).starts_with("| `")));
    }
    let exported = |label| {
        let labels = EXPORTED.iter().filter_map(|of| of.label);
        labels.filter(|(name, _)| *name == label).map(|(_, value)| value).collect::<Vec<_>>()
    };
    for (label, values) in [
        ("kind", KINDS.to_vec()),
        ("method", METHODS.to_vec()),
        ("result", CACHE_EVENTS.to_vec()),
        ("outcome", OUTCOMES.to_vec()),
        ("state", UpstreamState::ALL.map(|(_, name)| name).to_vec()),
        ("road", exported("road")),
        ("distance", exported("distance")),
        ("by", exported("by")),
    ] {
        let row = row(label);
        values.iter().for_each(|value| assert!(row.contains(&format!("`{value}`")), "{value} in {row}"));
    }
}
