//! Ten thousand files of 4 to 32 KiB, of which clients ask for one by chance.

use crate::pattern;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

/// How many.
pub(crate) const COUNT: usize = 10_000;
/// Bytes of the smallest and the largest.
const LEAST: u64 = 4 << 10;
const MOST: u64 = 32 << 10;
/// The directory that they lie in.
const DIRECTORY: &str = "many";

/// Which file is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Each as often as any other.
    Uniform,
    /// The n-th most popular in proportion to n to the power of minus this.
    Zipf(f64),
}

/// What is asked for, for the file of a number below [`COUNT`].
pub(crate) fn path(file: usize) -> String {
    format!("/{DIRECTORY}/{file}")
}

/// Bytes of a file. Popular ones are as large as others.
pub(crate) fn size(file: usize) -> u64 {
    LEAST + pattern::mix(file as u64) % (MOST - LEAST + 1)
}

/// Where in the pattern a file begins: no two have the same bytes.
pub(crate) fn offset(file: usize) -> u64 {
    (file as u64) << 20
}

/// Writes those that are not there yet below `root`.
///
/// # Errors
/// They cannot be written; says which.
pub(crate) fn make(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join(DIRECTORY))?;
    let mut bytes = Vec::new();
    for file in 0..COUNT {
        let path = root.join(path(file).trim_start_matches('/'));
        if path.metadata().is_ok_and(|found| found.len() == size(file)) {
            continue;
        }
        bytes.resize(size(file) as usize, 0);
        pattern::fill(&mut bytes, offset(file));
        fs::write(&path, &bytes).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

/// Chooses files. No two choose the same ones in the same order: who was asked the same again would be right
/// to have just these at hand.
pub(super) struct Picker {
    /// The share of all requests that is for this file or a more popular one.
    up_to: Vec<f64>,
    seed: u64,
}

impl Picker {
    pub(super) fn new(choice: Choice) -> Picker {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        let weight = |file: usize| match choice {
            Choice::Uniform => 1.0,
            Choice::Zipf(power) => (file as f64 + 1.0).powf(-power),
        };
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (0..COUNT)
            .map(|file| {
                sum += weight(file);
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|share| *share /= sum);
        Picker { up_to, seed: SESSIONS.fetch_add(1, Ordering::Relaxed) << 40 }
    }

    pub(super) fn next(&mut self) -> usize {
        self.seed += 1;
        let unit = (pattern::mix(self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        self.up_to.partition_point(|share| *share <= unit).min(COUNT - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_as_often_as_they_should_be() {
        let shares = |choice| {
            let (mut picker, mut counts) = (Picker::new(choice), vec![0_u32; COUNT]);
            (0..1_000_000).for_each(|_| counts[picker.next()] += 1);
            counts
        };
        let even = shares(Choice::Uniform);
        // 100 of each are due; six standard deviations are 60.
        assert!(even.iter().all(|n| (40..=160).contains(n)), "{:?}", even.iter().max());
        let zipf = shares(Choice::Zipf(0.9));
        // The second most popular is asked for 2^-0.9 times as often as the first, the hundredth 100^-0.9
        // times.
        for (file, power) in [(1, 2_f64), (99, 100.0)] {
            let found = f64::from(zipf[file]) / f64::from(zipf[0]);
            assert!((found / power.powf(-0.9) - 1.0).abs() < 0.15, "{file}: {found}");
        }
        let sizes: Vec<u64> = (0..COUNT).map(size).collect();
        assert!(sizes.iter().all(|size| (LEAST..=MOST).contains(size)));
        let mean = sizes.iter().sum::<u64>() / COUNT as u64;
        assert!((17 << 10..19 << 10).contains(&mean), "{mean}");
    }
}
