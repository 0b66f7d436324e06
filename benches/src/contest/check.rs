//! Measures the bars: only the workloads and contestants that they name, and more rounds where it is close.

use super::bars::{Bar, Standing, Verdict};
use super::launch::Place;
use super::report;
use super::rounds::{Match, Settings};
use super::table::{Workload, workloads};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// After so many rounds we look whether a line is decided. Few looks, because each is another chance to be
/// wrong: an interval that holds 95 times of 100 at every look holds less often at all of them.
const LOOKS: [usize; 3] = [9, 18, 36];

/// After so long no further rounds are begun.
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
    let begun = Instant::now();
    let mut checked = Checked { standings: Vec::new(), results: Vec::new() };
    let mut left = bars.to_vec();
    while let Some(first) = left.first() {
        let work = find(&first.work)?;
        // Views of the same rounds are measured together.
        let mut now = Vec::new();
        let mut later = Vec::new();
        for bar in left {
            let of = find(&bar.work)?;
            if of.kind == work.kind && of.task == work.task { now.push((bar, of)) } else { later.push(bar) }
        }
        left = later;
        let names = now.iter().flat_map(|(bar, _)| bar.others.iter().chain([&bar.ours]));
        let settings = Settings { only: names.map(|name| format!("{name}=")).collect(), ..settings.clone() };
        let mut game = Match::new(&work, place, &settings)?;
        let mut standings = Vec::new();
        for rounds in LOOKS {
            let rounds = rounds.min(work.task.most_rounds());
            while game.rounds() < rounds {
                game.round();
            }
            let outcomes = game.outcomes();
            standings = now.iter().map(|(bar, of)| bar.stands(of.unit, &outcomes)).collect::<Vec<_>>();
            let open = standings.iter().any(|standing| standing.verdict == Verdict::Undecided);
            if !open || begun.elapsed() > ENOUGH {
                break;
            }
        }
        let outcomes = game.finish();
        for standing in &standings {
            println!("{:<9} {standing} ({} rounds)", format!("{:?}", standing.verdict), outcomes.rounds);
        }
        for (who, why) in &outcomes.left_out {
            println!("left out  {}: {who}: {why}", work.name);
        }
        let mut views: Vec<&Workload> = now.iter().map(|(_, of)| of).collect();
        views.dedup_by_key(|of| of.name);
        checked.results.extend(views.into_iter().map(|of| report::json(of, &outcomes, of.reference)));
        checked.standings.append(&mut standings);
    }
    Ok(checked)
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
