//! Rounds in which the driver kept its schedule.
//!
//! At a fixed rate the driver reads the clock all the time, so it wants all of its CPU. Where another
//! program takes it, requests leave late and answers are seen late, and the contestant seems slow.

use super::rounds::{Result, Sample};
use std::time::Duration;

/// 99 of 100 requests that wait for their moment leave within so much of it.
const LATE: Duration = Duration::from_micros(20);
/// The share of a run in which the driver has its CPU.
const SHARE: f64 = 0.97;

/// The rounds in which the driver was disturbed with neither of the two.
pub fn undisturbed(ours: &Result, reference: &Result) -> Vec<usize> {
    let pairs = ours.samples.iter().zip(&reference.samples).enumerate();
    pairs.filter(|(_, (a, b))| kept_schedule(a) && kept_schedule(b)).map(|(round, _)| round).collect()
}

fn kept_schedule(sample: &Sample) -> bool {
    let Some(driver) = &sample.outcome.driver else { return true };
    let late = driver.late.quantile(0.99).map_or(Duration::ZERO, Duration::from_nanos);
    late <= LATE && driver.cpu.as_secs_f64() >= SHARE * sample.outcome.wall.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::table::Kind;
    use super::*;
    use crate::drive::{Driver, Outcome};
    use crate::histogram::Histogram;

    fn sample(late_us: u64, cpu_ms: u64) -> Sample {
        let mut late = Histogram::default();
        (0..100).for_each(|_| late.record(late_us * 1000));
        let driver = Some(Driver { late, cpu: Duration::from_millis(cpu_ms) });
        let outcome =
            Outcome { requests: 100, wall: Duration::from_millis(100), driver, ..Outcome::default() };
        Sample { cpu_ns: 1, outcome, late: None, memory: None }
    }

    #[test]
    fn a_round_counts_if_the_driver_was_on_time_with_both() {
        let who = contestants(Kind::Site).remove(0);
        let result = |samples| Result { who: who.clone(), samples };
        let ours = result(vec![sample(2, 100), sample(900, 100), sample(2, 100), sample(2, 60)]);
        let theirs = result(vec![sample(2, 99), sample(2, 100), sample(90, 99), sample(2, 100)]);
        assert_eq!(undisturbed(&ours, &theirs), [0]);
        assert_eq!(undisturbed(&ours, &ours), [0, 2]);
    }

    #[test]
    fn work_without_a_schedule_counts_always() {
        let mut sample = sample(900, 1);
        sample.outcome.driver = None;
        let result = Result { who: contestants(Kind::Site).remove(0), samples: vec![sample; 3] };
        assert_eq!(undisturbed(&result, &result), [0, 1, 2]);
    }
}
