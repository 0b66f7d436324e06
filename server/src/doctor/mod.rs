//! `annulus doctor`: checks everything that Annulus needs of a machine, and says what is there, what a lack
//! costs, and which command mends it. It changes nothing.
//!
//! A check is a function from [`Facts`] to [`Finding`]s; what it reads from /proc and /sys it reads through
//! [`Files`], so that tests give it other machines.

mod facts;
mod finding;
mod limits;
mod memory;
mod network;
mod placement;
mod rights;
mod ring;

use annulus::numa::plan::CoreSelection;
use facts::Facts;
use finding::{Finding, Verdict};

use crate::exit::{Failure, Kind};
use crate::topology::print;

/// One group of checks.
type Check = fn(&Facts) -> Vec<Finding>;

/// The groups, in the order in which they are told.
const GROUPS: [(&str, Check); 6] = [
    ("ring", ring::check),
    ("limits", limits::check),
    ("rights", rights::check),
    ("placement", placement::check),
    ("memory", memory::check),
    ("network", network::check),
];

/// Runs every check and prints it, a line each, or all as one JSON object.
///
/// # Errors
/// [`Kind::Failed`] (exit code 1) when there is advice that is not tolerated, [`Kind::Platform`] (3) when
/// Annulus cannot run here, [`Kind::Input`] (2) for CPUs that are not ours.
pub(crate) fn examine(selection: &CoreSelection, json: bool, tolerates_advice: bool) -> Result<(), Failure> {
    let facts = Facts::gather(selection)?;
    let found: Vec<(&str, Finding)> = GROUPS
        .into_iter()
        .flat_map(|(group, check)| check(&facts).into_iter().map(move |finding| (group, finding)))
        .collect();
    let text = if json { as_json(&found) } else { as_lines(&found) };
    print(&text)?;
    let count = |verdict| found.iter().filter(|(_, finding)| finding.verdict == verdict).count();
    match (count(Verdict::Fatal), count(Verdict::Advice)) {
        (0, 0) => Ok(()),
        (0, _) if tolerates_advice => Ok(()),
        (0, advice) => Err(Failure::new(
            Kind::Failed,
            format!("{advice} of {} checks could be better; each says how", found.len()),
        )),
        (fatal, _) => Err(Failure::new(
            Kind::Platform,
            format!(
                "Annulus cannot run here: {fatal} of {} checks failed; each says how to mend it",
                found.len()
            ),
        )),
    }
}

fn as_lines(found: &[(&str, Finding)]) -> String {
    found
        .iter()
        .map(|(group, finding)| format!("{:<6} {group}: {finding}\n", finding.verdict.name()))
        .collect()
}

fn as_json(found: &[(&str, Finding)]) -> String {
    let worst = found.iter().map(|(_, finding)| finding.verdict).max().unwrap_or(Verdict::Good);
    let checks: Vec<_> = found
        .iter()
        .map(|(group, finding)| {
            serde_json::json!({
                "group": group,
                "check": finding.what,
                "verdict": finding.verdict.name(),
                "found": finding.found,
                "cost": finding.cost,
                "mend": finding.mend,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "verdict": worst.name(), "checks": checks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json_say_the_same() {
        let found = [
            ("limits", Finding::good("pipes", "of 1 MiB")),
            ("memory", Finding::advice("THP", "off").costs("TLB misses").mend("echo \"always\" > x")),
        ];
        let lines = as_lines(&found);
        assert_eq!(
            lines,
            "ok     limits: pipes: of 1 MiB\nadvice memory: THP: off; costs: TLB misses; mend: echo \"always\" > x\n"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&found)).unwrap();
        assert_eq!(json["verdict"], "advice");
        assert_eq!(json["checks"][1]["mend"], "echo \"always\" > x");
        assert_eq!(json["checks"][0]["cost"], serde_json::Value::Null);
    }
}
