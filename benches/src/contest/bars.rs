//! The bars: lines of a Markdown table, and how the rounds stand against them.

use super::report::{costs, ratio};
use super::rounds::{Outcomes, Result as Played};
use super::table::Unit;
use super::undisturbed::undisturbed;
use crate::stats::{Estimate, median, paired_difference};
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
    /// What our cost may be; nothing if the line is only measured.
    pub limit: Option<Limit>,
}

/// What our cost may be, seen from the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many times as much.
    Times(f64),
    /// So much more, in the unit of the work.
    More(f64),
}

impl Limit {
    fn value(self) -> f64 {
        match self {
            Limit::Times(value) | Limit::More(value) => value,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Times(ratio) => write!(f, "{ratio:.2}"),
            Limit::More(difference) => write!(f, "+{difference:.2}"),
        }
    }
}

/// Tails are compared over at least so many rounds in which the driver kept its schedule.
pub const POOLED_ROUNDS: usize = 40;

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
    let [work, ours, others, limit] = cells[..] else {
        return Err(format!("a bar has four cells, work, ours, contestant, bar: {line}"));
    };
    let limit = match limit {
        "-" => None,
        text => {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
            let value = value.ok_or_else(|| format!("`{text}` is no ratio, no `+MORE`, nor `-`: {line}"))?;
            Some(if text.starts_with('+') { Limit::More(value) } else { Limit::Times(value) })
        }
    };
    let others = others.split(" / ").map(|name| name.trim().to_owned()).collect();
    Ok(Bar { work: work.to_owned(), ours: ours.to_owned(), others, limit })
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
    /// Our cost to theirs, or by how much it is more, as the bar says it.
    pub found: Option<Estimate>,
    /// Rounds that count.
    pub rounds: usize,
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
        let both = ours.zip(other);
        let found = both.and_then(|(ours, other)| match self.limit {
            Some(Limit::More(_)) => paired_difference(&costs(unit, ours), &costs(unit, other)),
            Some(Limit::Times(_)) | None => ratio(unit, ours, other),
        });
        let is_pooled = unit.pooled().is_some();
        let rounds = match both {
            Some((ours, other)) if is_pooled => undisturbed(ours, other).len(),
            _ => outcomes.rounds,
        };
        let is_enough = !is_pooled || rounds >= POOLED_ROUNDS;
        let verdict = match (self.limit.map(Limit::value), found.and_then(|found| found.interval)) {
            (None, _) => Verdict::Measured,
            // Who is disqualified, or fails in the middle, has not met anything.
            (Some(_), _) if ours.is_none() => Verdict::Missed,
            (Some(bar), Some((_, high))) if is_enough && high <= bar => Verdict::Met,
            (Some(bar), Some((low, _))) if is_enough && low > bar => Verdict::Missed,
            (Some(_), _) => Verdict::Undecided,
        };
        Standing {
            bar: self.clone(),
            other: other.map(|other| other.who.name.clone()),
            found,
            rounds,
            verdict,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { work, ours, others, limit } = &self.bar;
        let other = self.other.clone().unwrap_or_else(|| others.join(" / "));
        write!(f, "{work}: {ours} to {other} ")?;
        match self.found {
            Some(Estimate { value, interval: Some((low, high)) }) => {
                write!(f, "{value:.2} [{low:.2}, {high:.2}]")?;
            }
            Some(Estimate { value, interval: None }) => write!(f, "{value:.2} [too few rounds]")?,
            None => f.write_str("not measured")?,
        }
        limit.map_or(Ok(()), |limit| write!(f, ", bar {limit}"))
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
        assert_eq!(parse("| a | b | c | - |").unwrap()[0].limit, None);
        assert_eq!(parse("| a | b | c | 1.5 |").unwrap()[0].limit, Some(Limit::Times(1.5)));
        assert_eq!(parse("| a | b | c | +0.5 |").unwrap()[0].limit, Some(Limit::More(0.5)));
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
        let limited =
            |limit| Bar { work: "w".into(), ours: names[0].clone(), others: vec![names[1].clone()], limit };
        let bar = |ratio: Option<f64>| limited(ratio.map(Limit::Times));
        let verdict = |bar: &Bar, played: &Outcomes| bar.stands(Unit::NanosPerOperation, played).verdict;
        assert_eq!(verdict(&bar(Some(1.0)), &played(0.5, 9)), Verdict::Met);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.5, 9)), Verdict::Missed);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.01, 9)), Verdict::Undecided);
        assert_eq!(verdict(&bar(Some(1.0)), &played(1.5, 5)), Verdict::Undecided);
        assert_eq!(verdict(&bar(None), &played(1.5, 9)), Verdict::Measured);
        // 1000 operations of a microsecond: half as much again is 500 ns more.
        let more = |more| limited(Some(Limit::More(more)));
        assert_eq!(verdict(&more(600.0), &played(1.5, 9)), Verdict::Met);
        assert_eq!(verdict(&more(400.0), &played(1.5, 9)), Verdict::Missed);
        assert_eq!(verdict(&more(0.1), &played(0.5, 9)), Verdict::Met);
        let alone = |keep: usize| {
            let mut outcomes = played(0.5, 9);
            outcomes.results = vec![outcomes.results.remove(keep)];
            outcomes
        };
        assert_eq!(verdict(&bar(Some(1.0)), &alone(0)), Verdict::Undecided);
        assert_eq!(verdict(&bar(Some(1.0)), &alone(1)), Verdict::Missed);
    }
}
