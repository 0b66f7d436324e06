//! Measures the bars: only the workloads and contestants that they name, and more rounds where it is close.

use super::bars::{Bar, POOLED_ROUNDS, Standing, Verdict};
use super::launch::Place;
use super::report;
use super::rounds::{Match, Outcomes, Settings};
use super::table::{Workload, workloads};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// Numbers of rounds after which it is checked whether a line is decided. They are few, because each is
/// another chance to be wrong: an interval that holds 95 times of 100 at every check holds less often at all
/// of them.
const CHECKS: [usize; 3] = [9, 18, 36];

/// The same where the tails of all rounds are compared: a few more than are asked for, because those in which
/// the driver was disturbed do not count.
const POOLED_CHECKS: [usize; 3] = [POOLED_ROUNDS, POOLED_ROUNDS + 8, POOLED_ROUNDS * 3 / 2];

/// What all work may take. Each gets an equal share of what is left of it, and no further rounds after the
/// first check when that is over.
const ENOUGH: Duration = Duration::from_secs(17 * 60);

/// Everything that was measured.
pub struct Checked {
    /// How each line stands, in the order of the table.
    pub standings: Vec<Standing>,
    /// The results, as JSON, per workload.
    pub results: Vec<serde_json::Value>,
}

/// Measures `bars`, and tells how far it is.
///
/// # Errors
/// A workload that does not exist, or one that cannot be prepared.
pub fn check(bars: &[Bar], place: &Place, settings: &Settings) -> io::Result<Checked> {
    let end = Instant::now() + ENOUGH;
    let mut checked = Checked { standings: Vec::new(), results: Vec::new() };
    let groups = together(bars)?;
    for (i, now) in groups.iter().enumerate() {
        let left = u32::try_from(groups.len() - i).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / left;
        let (outcomes, standings) = one(now, place, settings, Instant::now() + share)?;
        for standing in &standings {
            println!("{:<9} {standing} ({} rounds)", format!("{:?}", standing.verdict), standing.rounds);
        }
        for (who, why) in &outcomes.left_out {
            println!("left out  {}: {who}: {why}", now[0].1.name);
        }
        let mut views: Vec<&Workload> = now.iter().map(|(_, of)| of).collect();
        views.dedup_by_key(|of| of.name);
        checked.results.extend(views.into_iter().map(|of| report::json(of, &outcomes, of.reference)));
        checked.standings.extend(standings);
    }
    Ok(checked)
}

/// Views of the same rounds are measured together.
fn together(bars: &[Bar]) -> io::Result<Vec<Vec<(Bar, Workload)>>> {
    let mut groups: Vec<Vec<(Bar, Workload)>> = Vec::new();
    for bar in bars {
        let work = find(&bar.work)?;
        let same = |group: &&mut Vec<(Bar, Workload)>| {
            group.first().is_some_and(|(_, first)| first.kind == work.kind && first.task == work.task)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push((bar.clone(), work)),
            None => groups.push(vec![(bar.clone(), work)]),
        }
    }
    Ok(groups)
}

/// Has those play whom the lines name, until all lines are decided, or `enough` is over.
fn one(
    lines: &[(Bar, Workload)],
    place: &Place,
    settings: &Settings,
    enough: Instant,
) -> io::Result<(Outcomes, Vec<Standing>)> {
    let work = &lines[0].1;
    let names = lines.iter().flat_map(|(bar, _)| bar.others.iter().chain([&bar.ours]));
    let settings = Settings { only: names.map(|name| format!("{name}=")).collect(), ..settings.clone() };
    let is_pooled = lines.iter().any(|(_, of)| of.unit.pooled().is_some());
    let mut game = Match::new(work, place, &settings)?;
    let mut standings = Vec::new();
    for rounds in if is_pooled { POOLED_CHECKS } else { CHECKS } {
        while game.rounds() < rounds.min(work.task.most_rounds()) {
            game.round();
        }
        let outcomes = game.outcomes();
        standings = lines.iter().map(|(bar, of)| bar.stands(of.unit, &outcomes)).collect();
        let open = standings.iter().any(|standing| standing.verdict == Verdict::Undecided);
        if !open || Instant::now() > enough {
            break;
        }
    }
    Ok((game.finish(), standings))
}

fn find(name: &str) -> io::Result<Workload> {
    workloads().into_iter().find(|work| work.name == name).ok_or_else(|| {
        let text = format!("a bar names the work `{name}`, which there is not");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

impl Checked {
    /// Whether a line was missed.
    pub fn missed(&self) -> bool {
        self.standings.iter().any(|standing| standing.verdict == Verdict::Missed)
    }
}

/// One line with the figures: how many were met, and each that was not.
impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |verdict| self.standings.iter().filter(move |standing| standing.verdict == verdict);
        write!(f, "{} met, {} missed", of(Verdict::Met).count(), of(Verdict::Missed).count())?;
        list(f, of(Verdict::Missed))?;
        write!(f, ", {} undecided", of(Verdict::Undecided).count())?;
        list(f, of(Verdict::Undecided))?;
        write!(f, ", {} without a bar", of(Verdict::Measured).count())?;
        list(f, of(Verdict::Measured))
    }
}

fn list<'a>(f: &mut fmt::Formatter<'_>, standings: impl Iterator<Item = &'a Standing>) -> fmt::Result {
    let texts: Vec<String> = standings.map(Standing::to_string).collect();
    if texts.is_empty() { Ok(()) } else { write!(f, " ({})", texts.join("; ")) }
}
