//! How much time there is, and what each piece of work gets of it.

use super::contestants::contestants;
use super::rounds::{Settings, Until};
use super::table::Workload;
use std::time::{Duration, Instant};

/// A turn takes about so many times as long as the contestant works in it: the driver and the disk take their
/// time too, and some work is done before it counts.
const STRETCH: u32 = 3;
/// Shorter turns measure the beginning of a turn.
const SHORTEST: Duration = Duration::from_millis(5);

/// A deadline for several pieces of work.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    end: Option<Instant>,
}

impl Budget {
    /// From now on; without `length`, as long as it takes.
    pub fn new(length: Option<Duration>) -> Budget {
        Budget { end: length.map(|length| Instant::now() + length) }
    }

    /// What the first of `left` gets: the settings, with shorter turns where there is not enough time, and
    /// when to stop.
    pub fn share(&self, left: &[&Workload], settings: &Settings) -> (Settings, Until) {
        let (Some(end), Some(first)) = (self.end, left.first()) else {
            return (settings.clone(), Until::default());
        };
        let now = Instant::now();
        let turns = |work: &Workload| {
            let rounds = settings.rounds.min(work.task.most_rounds()) as u32;
            let players =
                contestants(work.kind).iter().filter(|who| settings.wants(&who.name)).count() as u32;
            // Preparing a contestant takes about as long as two rounds.
            players * (rounds + 2) * work.task.weight()
        };
        let mine = turns(first).max(1);
        let all: u32 = left.iter().map(|work| turns(work)).sum();
        let share = end.saturating_duration_since(now).mul_f64(f64::from(mine) / f64::from(all.max(1)));
        let run = (share / (mine * STRETCH)).clamp(SHORTEST.min(settings.run), settings.run);
        let until = Until { better: Some(now + share), at_the_latest: Some(end) };
        (Settings { run, ..settings.clone() }, until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::workloads;
    use super::*;

    fn settings() -> Settings {
        let run = Duration::from_millis(250);
        Settings { rounds: 9, run, only: vec![], without: vec![], copy: false }
    }

    #[test]
    fn turns_shrink_so_that_all_work_fits() {
        let all = workloads();
        let left: Vec<&Workload> = all.iter().collect();
        let minutes = |n: u64| Budget::new(Some(Duration::from_secs(60 * n)));
        let (short, until) = minutes(5).share(&left, &settings());
        assert!(short.run < Duration::from_millis(250) && short.run >= SHORTEST, "{short:?}");
        assert!(until.better < until.at_the_latest);
        let (long, _) = minutes(1000).share(&left, &settings());
        assert_eq!(long.run, Duration::from_millis(250));
        let (free, until) = Budget::new(None).share(&left, &settings());
        assert_eq!((free.run, until.better), (Duration::from_millis(250), None));
        // The last one gets all that is left.
        let (last, until) = minutes(5).share(&left[left.len() - 1..], &settings());
        assert!(last.run == Duration::from_millis(250));
        let left_over = until.at_the_latest.unwrap().saturating_duration_since(until.better.unwrap());
        assert!(left_over < Duration::from_secs(1));
    }
}
