//! The rounds: every contestant is started, checked and given its amount of work, and then all take turns.

use super::contestants::{Contestant, contestants};
use super::launch::{Place, Running, run_own, start};
use super::table::{Task, Workload};
use crate::drive::{Backend, Load, Outcome, files};
use crate::memory;
use crate::micro::{Measured, Op};
use crate::{pattern, size};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How the rounds are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many; below 6 there are no intervals.
    pub rounds: usize,
    /// About how long each contestant works in each of them.
    pub run: Duration,
    /// Contestants whose name contains one of these take part, or is one if it ends in `=`; all if there is
    /// none.
    pub only: Vec<String>,
    /// Contestants whose name contains one of these do not, nor those that are one if it ends in `=`.
    pub without: Vec<String>,
    /// Clients read bulk bytes instead of dropping them inside the kernel.
    pub copy: bool,
}

impl Settings {
    /// Whether the contestant `name` takes part.
    pub fn wants(&self, name: &str) -> bool {
        let fits = |part: &String| match part.strip_suffix('=') {
            Some(whole) => name == whole,
            None => name.contains(part.as_str()),
        };
        (self.only.is_empty() || self.only.iter().any(fits)) && !self.without.iter().any(fits)
    }
}

/// What one contestant did in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Nanoseconds of CPU over all its threads and processes.
    pub cpu_ns: u64,
    /// What was delivered, and how long it took.
    pub outcome: Outcome,
    /// How late sleepers woke.
    pub late: Option<Duration>,
    /// What idle connections cost.
    pub memory: Option<IdleMemory>,
}

/// Bytes of memory, with all connections idle, or gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdleMemory {
    /// All that the process has.
    pub user: u64,
    /// By how much it grew since it was started.
    pub grown: f64,
    /// How much of that it still has when they are gone.
    pub kept: f64,
    /// By how much the kernel's grew.
    pub kernel: u64,
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
    /// How many rounds there were.
    pub rounds: usize,
    /// Those that finished.
    pub results: Vec<Result>,
    /// Those that did not, and why.
    pub left_out: Vec<(String, String)>,
}

struct Player {
    who: Contestant,
    /// The server, or nothing for a program that is started again each time.
    running: Option<Running>,
    amount: u64,
    samples: Vec<Sample>,
}

/// One workload and those who play it.
pub struct Match {
    work: Workload,
    place: Place,
    backend: Backend,
    settings: Settings,
    players: Vec<Player>,
    left_out: Vec<(String, String)>,
    rounds: usize,
}

/// Has all contestants of `work` do it in turns, for as many rounds as `settings` says; for fewer, but if
/// possible [`LEAST_ROUNDS`], where they would not be over by `until`.
///
/// # Errors
/// As for [`Match::new`].
pub fn play(work: &Workload, place: &Place, settings: &Settings, until: &Until) -> io::Result<Outcomes> {
    let mut game = Match::new(work, place, settings)?;
    let wanted = settings.rounds.min(work.task.most_rounds());
    while game.rounds() < wanted {
        let begun = Instant::now();
        game.round();
        let next = Instant::now() + begun.elapsed();
        let limit = if game.rounds() < LEAST_ROUNDS { until.at_the_latest } else { until.better };
        if limit.is_some_and(|limit| next > limit) {
            break;
        }
    }
    Ok(game.finish())
}

/// Below so many there are no intervals.
pub const LEAST_ROUNDS: usize = 6;

/// When rounds should be over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    /// If there are enough of them.
    pub better: Option<Instant>,
    /// In any case.
    pub at_the_latest: Option<Instant>,
}

impl Match {
    /// Starts every contestant, checks every byte of some answers, and finds out how much work fills a turn.
    ///
    /// # Errors
    /// The files or the backend cannot be made. A contestant that fails is left out and named instead.
    pub fn new(work: &Workload, place: &Place, settings: &Settings) -> io::Result<Match> {
        let backend = Backend::new(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let mut place = Place { to: backend.address(), ..place.clone() };
        let (mut work, settings) = (work.clone(), settings.clone());
        if let Some((path, body)) = work.task.asks_for() {
            place.file = path.trim_start_matches('/').to_owned();
            place.body = body;
            make_file(&place.root.join(&place.file), body)?;
        }
        match &mut work.task {
            Task::Drive(Load::Cold(cold)) => cold.file = place.root.join(&place.file),
            Task::Drive(Load::Beside { cold, .. }) => {
                cold.file = place.root.join(cold.path.trim_start_matches('/'));
                make_file(&cold.file, cold.body)?;
            }
            Task::Drive(Load::Many { .. }) => files::make(&place.root)?,
            _ => {}
        }
        let (players, left_out) = (Vec::new(), Vec::new());
        let mut game = Match { work, place, backend, settings, players, left_out, rounds: 0 };
        for who in contestants(game.work.kind) {
            if !game.settings.wants(&who.name) {
                continue;
            }
            match game.prepare(&who) {
                Ok(player) => game.players.push(player),
                Err(e) => game.left_out.push((who.name, e.to_string())),
            }
        }
        Ok(game)
    }

    fn prepare(&self, who: &Contestant) -> io::Result<Player> {
        let checked = |load: &Load| {
            let running = start(who, &self.place)?;
            let mut session = load.open(running.address, Some(&self.backend), self.settings.copy)?;
            session.verify().map_err(|e| io::Error::new(e.kind(), format!("disqualified: {e}")))?;
            Ok::<Running, io::Error>(running)
        };
        let (running, least) = match &self.work.task {
            Task::Own(Op::Sleepers) => (None, 1),
            Task::Own(_) => (None, 100),
            Task::Idle(connections) => {
                checked(&self.hello(64))?;
                let (who, amount) = (who.clone(), *connections as u64);
                return Ok(Player { who, running: None, amount, samples: Vec::new() });
            }
            Task::Drive(load) => (Some(checked(part_of(load, who))?), load.least()),
        };
        let mut player = Player { who: who.clone(), running, amount: least, samples: Vec::new() };
        loop {
            let Sample { cpu_ns, outcome, .. } = self.turn(&player)?;
            // By CPU time, so that a machine that is busy with other things does not shorten the turns;
            // sleepers have hardly any.
            let spent = Duration::from_nanos(cpu_ns).max(outcome.wall / 4).max(Duration::from_micros(1));
            let share = self.settings.run.as_secs_f64() / spent.as_secs_f64();
            if share <= 4.0 {
                player.amount = ((player.amount as f64 * share) as u64).max(least);
                return Ok(player);
            }
            player.amount *= 4;
        }
    }

    /// Lets everyone have one turn. Who fails is left out from then on, with all that he did before.
    pub fn round(&mut self) {
        let mut failed = Vec::new();
        for turn in order(self.players.len(), self.rounds as u64) {
            match self.turn(&self.players[turn]) {
                Ok(sample) => self.players[turn].samples.push(sample),
                Err(e) => failed.push((turn, format!("in round {}: {e}", self.rounds + 1))),
            }
        }
        failed.sort_by_key(|(turn, _)| std::cmp::Reverse(*turn));
        for (turn, why) in failed {
            self.left_out.push((self.players.remove(turn).who.name, why));
        }
        self.rounds += 1;
    }

    /// For a server new connections, warmed by a little work, and then the work that counts.
    fn turn(&self, player: &Player) -> io::Result<Sample> {
        let (load, running) = match (&self.work.task, &player.running) {
            (Task::Drive(load), Some(running)) => (part_of(load, &player.who), running),
            (Task::Drive(_), None) => return Err(io::Error::other("the server was never started")),
            (Task::Idle(connections), _) => return self.idle(player, *connections),
            (Task::Own(op), _) => {
                let Measured { ops, wall, cpu, late } =
                    run_own(&player.who, &self.place, *op, player.amount)?;
                let outcome = Outcome { requests: ops, wall, ..Outcome::default() };
                return Ok(Sample { cpu_ns: cpu.as_nanos() as u64, outcome, late, memory: None });
            }
        };
        let mut session = load.open(running.address, Some(&self.backend), self.settings.copy)?;
        let warm = (player.amount / 10).max(load.least());
        match load {
            // What a cold file costs is not to be warmed away, and strangers connect again each time.
            Load::Cold(_) | Load::Stranger { .. } => {}
            // Each run of it begins with a file that leaves memory.
            Load::Beside { .. } => session.verify()?,
            _ if warm < player.amount => drop(session.run(warm)?),
            _ => {}
        }
        let before = running.cpu_ns()?;
        let outcome = session.run(player.amount)?;
        Ok(Sample { cpu_ns: running.cpu_ns()? - before, outcome, late: None, memory: None })
    }

    /// A server that was never under load has many connections: what it frees and keeps for later would hide
    /// them.
    fn idle(&self, player: &Player, connections: usize) -> io::Result<Sample> {
        let running = start(&player.who, &self.place)?;
        let descriptors = running.descriptors()?;
        let before = memory::measure(running.pid())?;
        let mut session = self.hello(connections).open(running.address, Some(&self.backend), false)?;
        let outcome = session.run(connections as u64)?;
        let after = memory::measure(running.pid())?;
        let cpu_ns = running.cpu_ns()?;
        drop(session);
        // The file that was asked for may stay open, and a few more of its own.
        running.wait_for_descriptors(descriptors + 16)?;
        let gone = memory::measure_when_settled(running.pid())?;
        let memory = IdleMemory {
            user: after.user,
            grown: after.user as f64 - before.user as f64,
            kept: gone.user as f64 - before.user as f64,
            kernel: after.kernel.saturating_sub(before.kernel),
        };
        Ok(Sample { cpu_ns, outcome, late: None, memory: Some(memory) })
    }

    fn hello(&self, connections: usize) -> Load {
        Load::Http { path: format!("/{}", self.place.file), body: self.place.body, connections }
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// How it stands.
    pub fn outcomes(&self) -> Outcomes {
        let result = |player: &Player| Result { who: player.who.clone(), samples: player.samples.clone() };
        Outcomes {
            rounds: self.rounds,
            results: self.players.iter().map(result).collect(),
            left_out: self.left_out.clone(),
        }
    }

    /// Ends all servers.
    pub fn finish(self) -> Outcomes {
        let outcomes = self.outcomes();
        for player in self.players {
            if let Some(Err(e)) = player.running.map(Running::stop) {
                eprintln!("{}: {e}", player.who.name);
            }
        }
        outcomes
    }
}

/// What of `load` is for `who`.
fn part_of<'l>(load: &'l Load, who: &Contestant) -> &'l Load {
    match load {
        Load::Beside { of, .. } if !who.streams => of,
        load => load,
    }
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
pub(super) fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
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

    /// Whoever follows a heavy neighbour finds its traces in the caches: nobody may always do.
    #[test]
    fn places_and_neighbours_change_evenly() {
        const PLAYERS: usize = 6;
        const ROUNDS: u64 = 3_000;
        let (mut places, mut follows) = ([[0; PLAYERS]; PLAYERS], [[0; PLAYERS]; PLAYERS]);
        for round in 0..ROUNDS {
            let order = order(PLAYERS, round);
            for (place, player) in order.iter().enumerate() {
                places[*player][place] += 1;
            }
            for pair in order.windows(2) {
                follows[pair[0]][pair[1]] += 1;
            }
        }
        // 500 of each are due; four standard deviations are 82.
        assert!(places.iter().flatten().all(|n| (410..=590).contains(n)), "{places:?}");
        for (player, next) in
            (0..PLAYERS).flat_map(|a| (0..PLAYERS).map(move |b| (a, b))).filter(|(a, b)| a != b)
        {
            assert!((410..=590).contains(&follows[player][next]), "{follows:?}");
        }
    }

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
