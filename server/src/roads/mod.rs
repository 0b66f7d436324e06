//! `annulus roads`: what each way to bring a file to a socket costs on this machine, beside what is said of
//! it.

mod figures;
mod plain;
mod receiver;
mod runtime;
mod svg;
mod table;
mod techniques;
mod zero_copy;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

pub(crate) use receiver::{Target, receive};
use table::{Measured, Report};
use techniques::Technique;

use crate::exit::Failure;
use crate::topology::print;

/// Sizes of transfers, in bytes: 1 KiB to 1 GiB, or to 64 MiB where it has to be quick.
const SIZES: [u64; 7] = [1 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 1 << 30];
const QUICK: u64 = 64 << 20;

/// How long the transfers of a figure may take, as far as the first ones tell, and how many there are at
/// most.
const TIME: Duration = Duration::from_millis(600);
const TIME_QUICK: Duration = Duration::from_millis(60);
const TRANSFERS: u64 = 20_000;
/// How much is moved by the first ones, in bytes, and how many of them there are at most.
const FIRST: u64 = 4 << 20;
const FIRST_TRANSFERS: u64 = 1000;

/// Measures, prints the table, and draws it into the file `svg`.
///
/// # Errors
/// A file cannot be had, or plain copying fails. What is missing of the other techniques is said in the
/// table.
pub(crate) fn run(quick: bool, target: Target, svg: Option<&Path>) -> Result<(), Failure> {
    let most = if quick { QUICK } else { SIZES[SIZES.len() - 1] };
    let file = sample(most).map_err(|error| {
        Failure::failed(&format!("cannot make a file of {} MiB in TMPDIR", most >> 20), error)
    })?;
    let mut report = Report::new(target);
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        for technique in Technique::ALL {
            if report.is_missing(technique) {
                continue;
            }
            match measure(technique, &file, target, size, if quick { TIME_QUICK } else { TIME }) {
                Ok(figures) => report.measured.push(Measured { size, technique, figures }),
                // All factors are over this one.
                Err(failure) if technique == Technique::Copy => return Err(failure),
                Err(failure) => report.missing.push((technique, failure.to_string())),
            }
        }
    }
    print(&report.table())?;
    if let Some(path) = svg {
        let failed = |error| Failure::failed(&format!("cannot write {}", path.display()), error);
        std::fs::write(path, svg::draw(&report)).map_err(failed)?;
    }
    Ok(())
}

/// A few times, to have everything in memory and to see how long it takes; then for the figure.
fn measure(
    technique: Technique,
    file: &File,
    target: Target,
    size: u64,
    time: Duration,
) -> Result<figures::Figures, Failure> {
    let times = (FIRST / size).clamp(1, FIRST_TRANSFERS);
    let first = technique.measure(file, target, size, times)?;
    let times = time.as_secs_f64() / first.wall.max(1e-6) * times as f64;
    technique.measure(file, target, size, (times as u64).clamp(1, TRANSFERS))
}

/// A file of this many bytes in the page cache, without a name.
fn sample(len: u64) -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("annulus-roads-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let block: Vec<u8> =
        (0..1u32 << 18).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let mut left = len;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each moves what it says, and the figures are of something.
    #[test]
    fn every_technique_moves_a_file() {
        let file = sample(300_000).unwrap();
        for technique in Technique::ALL {
            let figures = technique.measure(&file, Target::Loopback, 300_000, 2).unwrap();
            assert_eq!(figures.bytes, 600_000, "{}", technique.name());
            assert!(figures.wall > 0.0, "{}", technique.name());
            assert!(figures.copied.is_none() || technique == Technique::SendZc, "{}", technique.name());
        }
    }
}
