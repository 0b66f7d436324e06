//! The bars: lines of a Markdown table, and how the rounds stand against them.

use super::report::costs;
use super::rounds::{Outcomes, Result as Played};
use super::table::Unit;
use crate::stats::{Ratio, median, paired_ratio};
use std::fmt;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The workload.
    pub work: String,
    /// Our contestant in it.
    pub ours: String,
    /// The others, of which the cheapest counts.
    pub others: Vec<String>,
    /// Our cost may be so many times the other's; nothing if the line is only measured.
    pub ratio: Option<f64>,
}

/// The lines of the table in `text`, which begins below a row of dashes and ends where no `|` begins a line.
///
/// # Errors
/// A line that does not have the four cells; says which.
pub fn parse(text: &str) -> Result<Vec<Bar>, String> {
    let rows = text.lines().skip_while(|line| !line.starts_with("|-")).skip(1);
    rows.take_while(|line| line.starts_with('|')).map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Bar, String> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let [work, ours, others, ratio] = cells[..] else {
        return Err(format!("a bar has four cells, work, ours, contestant, bar: {line}"));
    };
    let ratio = match ratio {
        "-" => None,
        number => {
            let ratio = number.parse::<f64>().ok().filter(|ratio| ratio.is_finite() && *ratio > 0.0);
            Some(ratio.ok_or_else(|| format!("`{number}` is no ratio, nor `-`: {line}"))?)
        }
    };
    let others = others.split(" / ").map(|name| name.trim().to_owned()).collect();
    Ok(Bar { work: work.to_owned(), ours: ours.to_owned(), others, ratio })
}

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies at or below the bar.
    Met,
    /// The whole interval lies above it, or our contestant failed.
    Missed,
    /// Neither, or there is nobody to compare with.
    Undecided,
    /// There is no bar.
    Measured,
}

/// A line after some rounds.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The line.
    pub bar: Bar,
    /// The cheapest of the others, if any of them is there.
    pub other: Option<String>,
    /// Our cost to theirs.
    pub ratio: Option<Ratio>,
    /// What follows.
    pub verdict: Verdict,
}

impl Bar {
    /// How it stands after the rounds of its workload.
    pub fn stands(&self, unit: Unit, outcomes: &Outcomes) -> Standing {
        let find = |name: &str| outcomes.results.iter().find(|result| result.who.name == name);
        let middle = |result: &&Played| median(&costs(unit, result)).unwrap_or(f64::MAX);
        let other =
            self.others.iter().filter_map(|name| find(name)).min_by(|a, b| middle(a).total_cmp(&middle(b)));
        let ours = find(&self.ours);
        let ratio = match (ours, other) {
            (Some(ours), Some(other)) => paired_ratio(&costs(unit, ours), &costs(unit, other)),
            _ => None,
        };
        let verdict = match (self.ratio, ratio.and_then(|ratio| ratio.interval)) {
            (None, _) => Verdict::Measured,
            // Who is disqualified, or fails in the middle, has not met anything.
            (Some(_), _) if ours.is_none() => Verdict::Missed,
            (Some(bar), Some((_, high))) if high <= bar => Verdict::Met,
            (Some(bar), Some((low, _))) if low > bar => Verdict::Missed,
            (Some(_), _) => Verdict::Undecided,
        };
        Standing { bar: self.clone(), other: other.map(|other| other.who.name.clone()), ratio, verdict }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { work, ours, others, ratio: bar } = &self.bar;
        let other = self.other.clone().unwrap_or_else(|| others.join(" / "));
        write!(f, "{work}: {ours} to {other} ")?;
        match self.ratio {
            Some(Ratio { value, interval: Some((low, high)) }) => {
                write!(f, "{value:.2} [{low:.2}, {high:.2}]")?;
            }
            Some(Ratio { value, interval: None }) => write!(f, "{value:.2} [too few rounds]")?,
            None => f.write_str("not measured")?,
        }
        bar.map_or(Ok(()), |bar| write!(f, ", bar {bar:.2}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::rounds::Sample;
    use super::super::table::{Kind, workloads};
    use super::*;
    use crate::drive::Outcome;
    use std::time::Duration;

    #[test]
    fn every_bar_names_work_and_contestants_that_exist() {
        let bars = parse(include_str!("../../bars.md")).unwrap();
        assert!(bars.len() > 10);
        for bar in bars {
            let work = workloads().into_iter().find(|work| work.name == bar.work);
            let work = work.unwrap_or_else(|| panic!("{bar:?}"));
            for name in bar.others.iter().chain([&bar.ours]) {
                assert!(contestants(work.kind).iter().any(|who| who.name == *name), "{bar:?}");
            }
        }
    }

    #[test]
    fn lines_that_are_no_bars_are_refused() {
        let parse = |line: &str| parse(&format!("|-|\n{line}\n"));
        assert_eq!(parse("| a | b | c / d | 1.5 |").unwrap()[0].others, ["c", "d"]);
        assert_eq!(parse("| a | b | c | - |").unwrap()[0].ratio, None);
        for line in ["| a | b | c |", "| a | b | c | fast |", "| a | b | c | -1 |", "| a | b | c | 0 |"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    /// Two contestants, of which the first costs `ratio` times as much as the second, each round a little
    /// otherwise.
    fn played(ratio: f64, rounds: u64) -> Outcomes {
        let outcome = Outcome { requests: 1000, wall: Duration::from_millis(1), ..Outcome::default() };
        let result = |index: usize, factor: f64| Played {
            who: contestants(Kind::Micro)[index].clone(),
            samples: (0..rounds)
                .map(|i| Sample {
                    cpu_ns: ((1e6 + 1e3 * i as f64) * factor * (1.0 + 0.01 * index as f64 * (i % 3) as f64))
                        as u64,
                    outcome: outcome.clone(),
                    late: None,
                    memory: None,
                })
                .collect(),
        };
        Outcomes {
            rounds: rounds as usize,
            results: vec![result(0, ratio), result(1, 1.0)],
            left_out: vec![],
        }
    }

    #[test]
    fn the_whole_interval_decides() {
        let names: Vec<String> = contestants(Kind::Micro).into_iter().take(2).map(|who| who.name).collect();
        let bar =
            |ratio| Bar { work: "w".into(), ours: names[0].clone(), others: vec![names[1].clone()], ratio };
        let verdict = |bar: &Bar, played: &Outcomes| bar.stands(Unit::NanosPerOperation, played).verdict;
        assert_eq!(verdict(&bar(Some(1.0)), &played(0.5, 9)), Verdict::Met);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.5, 9)), Verdict::Missed);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.01, 9)), Verdict::Undecided);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.5, 5)), Verdict::Undecided);
        assert_eq!(verdict(&bar(None), &played(1.5, 9)), Verdict::Measured);
        let alone = |keep: usize| {
            let mut outcomes = played(0.5, 9);
            outcomes.results = vec![outcomes.results.remove(keep)];
            outcomes
        };
        assert_eq!(verdict(&bar(Some(1.0)), &alone(0)), Verdict::Undecided);
        assert_eq!(verdict(&bar(Some(1.0)), &alone(1)), Verdict::Missed);
    }
}
