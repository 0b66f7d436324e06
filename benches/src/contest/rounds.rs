//! The rounds: every contestant is started, checked and given its amount of work, and then all take turns.

use super::launch::{Place, Running, start};
use super::table::{Contestant, Kind, Workload, contestants};
use crate::drive::{Backend, Load, Outcome};
use crate::{pattern, size};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How the rounds are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many; below 6 there are no intervals.
    pub rounds: usize,
    /// About how long each contestant works in each of them.
    pub run: Duration,
    /// Contestants whose name contains one of these take part; all if there is none.
    pub only: Vec<String>,
    /// Clients read bulk bytes instead of dropping them inside the kernel.
    pub copy: bool,
}

/// What one contestant did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds of CPU over all its threads and processes.
    pub cpu_ns: u64,
    /// What was delivered, and how long it took.
    pub outcome: Outcome,
}

/// A contestant that finished all rounds.
#[derive(Clone, Debug)]
pub struct Result {
    /// Who.
    pub who: Contestant,
    /// One per round, in the order of the rounds: the n-th of two contestants are a pair.
    pub samples: Vec<Sample>,
}

/// What came of one workload.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Those that finished.
    pub results: Vec<Result>,
    /// Those that did not, and why.
    pub left_out: Vec<(String, String)>,
}

struct Player {
    who: Contestant,
    running: Running,
    work: u64,
    samples: Vec<Sample>,
}

/// Has all contestants of `work` do it in turns.
///
/// # Errors
/// The files or the backend cannot be made. A contestant that fails is left out and named instead.
pub fn play(work: &Workload, place: &Place, settings: &Settings) -> io::Result<Outcomes> {
    let backend = Backend::new(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut place = Place { to: backend.address(), ..place.clone() };
    if let Load::Http { path, body, .. } = &work.load {
        place.file = path.trim_start_matches('/').to_owned();
        place.body = *body;
        if let Kind::File(_) | Kind::Hello(_) = work.kind {
            make_file(&place.root.join(&place.file), *body)?;
        }
    }
    let mut outcomes = Outcomes::default();
    let mut players = Vec::new();
    for who in contestants(work.kind) {
        if !settings.only.is_empty() && !settings.only.iter().any(|part| who.name.contains(part)) {
            continue;
        }
        match prepare(&who, work, &place, &backend, settings) {
            Ok(player) => players.push(player),
            Err(e) => outcomes.left_out.push((who.name, e.to_string())),
        }
    }
    for round in 0..settings.rounds {
        let mut failed = Vec::new();
        for turn in order(players.len(), round as u64) {
            let player = &mut players[turn];
            match one_turn(&player.running, player.work, work, &backend, settings) {
                Ok(sample) => player.samples.push(sample),
                Err(e) => failed.push((turn, format!("in round {}: {e}", round + 1))),
            }
        }
        failed.sort_by_key(|(turn, _)| std::cmp::Reverse(*turn));
        for (turn, why) in failed {
            outcomes.left_out.push((players.remove(turn).who.name, why));
        }
    }
    for player in players {
        if let Err(e) = player.running.stop() {
            eprintln!("{}: {e}", player.who.name);
        }
        outcomes.results.push(Result { who: player.who, samples: player.samples });
    }
    Ok(outcomes)
}

/// Starts a contestant, checks every byte of some answers, and finds out how much work fills a turn.
fn prepare(
    who: &Contestant,
    work: &Workload,
    place: &Place,
    backend: &Backend,
    settings: &Settings,
) -> io::Result<Player> {
    let running = start(who, place)?;
    let mut session = work.load.open(running.address, Some(backend), settings.copy)?;
    session.verify().map_err(|e| io::Error::new(e.kind(), format!("disqualified: {e}")))?;
    let least = least_work(work);
    let mut amount = least;
    loop {
        let wall = session.run(amount)?.wall.max(Duration::from_micros(1));
        let share = settings.run.as_secs_f64() / wall.as_secs_f64();
        if share <= 4.0 {
            amount = ((amount as f64 * share) as u64).max(least);
            break;
        }
        amount *= 4;
    }
    drop(session);
    Ok(Player { who: who.clone(), running, work: amount, samples: Vec::new() })
}

/// One request on each connection, or bulk that is more than all buffers on the way.
fn least_work(work: &Workload) -> u64 {
    match &work.load {
        Load::Http { connections, .. } | Load::Echo { connections, .. } => *connections as u64,
        Load::Bulk { connections, .. } => (*connections as u64) << 20,
    }
}

/// New connections, warmed by a little work, and then the work that counts.
fn one_turn(
    running: &Running,
    amount: u64,
    work: &Workload,
    backend: &Backend,
    settings: &Settings,
) -> io::Result<Sample> {
    let mut session = work.load.open(running.address, Some(backend), settings.copy)?;
    let warm = (amount / 10).max(least_work(work));
    if warm < amount {
        session.run(warm)?;
    }
    let before = running.cpu_ns()?;
    let outcome = session.run(amount)?;
    let cpu_ns = running.cpu_ns()? - before;
    Ok(Sample { cpu_ns, outcome })
}

/// Who plays when: another order each round, so that nobody always follows the same one.
pub fn order(players: usize, round: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..players).collect();
    for last in (1..players).rev() {
        let pick = pattern::mix(round << 32 | last as u64) % (last as u64 + 1);
        order.swap(last, pick as usize);
    }
    order
}

/// Writes the first `bytes` of the pattern to `path`, unless a file of that size is there.
fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
    if path.metadata().is_ok_and(|found| found.len() == bytes) {
        return Ok(());
    }
    let mut file = BufWriter::new(File::create(path)?);
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let n = (bytes - at).min(piece.len() as u64) as usize;
        pattern::fill(&mut piece[..n], at);
        file.write_all(&piece[..n])?;
        at += n as u64;
    }
    file.flush().map_err(|e| {
        io::Error::new(e.kind(), format!("{} ({}): {e}", path.display(), size::show_size(bytes)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_plays_once_a_round_and_not_always_in_the_same_order() {
        let orders: std::collections::HashSet<Vec<usize>> = (0..20).map(|round| order(5, round)).collect();
        assert!(orders.len() > 10);
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        assert!(order(0, 1).is_empty());
    }
}
