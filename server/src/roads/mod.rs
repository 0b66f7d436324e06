//! `annulus roads`: what each way to bring a file to a socket costs on this machine, beside what is said of
//! it.

mod figures;
mod svg;
mod techniques;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use figures::Figures;
use techniques::Technique;

use crate::exit::Failure;
use crate::topology::print;

/// Sizes of transfers, in bytes: 1 KiB to 1 GiB, or to 64 MiB where it has to be quick.
const SIZES: [u64; 7] = [1 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 1 << 30];
const QUICK: u64 = 64 << 20;

/// What is moved for a figure, in bytes, and in at most this many transfers.
const MOVED: u64 = 512 << 20;
const MOVED_QUICK: u64 = 64 << 20;
const TRANSFERS: u64 = 20_000;

/// One line of the table.
struct Measured {
    size: u64,
    technique: Technique,
    figures: Figures,
}

/// Measures, prints the table, and draws it into the file `svg`.
///
/// # Errors
/// A file, a socket or a ring cannot be had.
pub(crate) fn run(quick: bool, svg: Option<&Path>) -> Result<(), Failure> {
    let most = if quick { QUICK } else { SIZES[SIZES.len() - 1] };
    let file = sample(most).map_err(|error| {
        Failure::failed(&format!("cannot make a file of {} MiB in TMPDIR", most >> 20), error)
    })?;
    let moved = if quick { MOVED_QUICK } else { MOVED };
    let mut measured = Vec::new();
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        let times = (moved / size).clamp(1, TRANSFERS);
        for technique in Technique::ALL {
            // Once to have everything in memory and every pipe made, and once for the figure.
            technique.measure(&file, size, 1)?;
            let figures = technique.measure(&file, size, times)?;
            measured.push(Measured { size, technique, figures });
        }
    }
    print(&table(&measured))?;
    if let Some(path) = svg {
        let failed = |error| Failure::failed(&format!("cannot write {}", path.display()), error);
        std::fs::write(path, svg::draw(&measured)).map_err(failed)?;
    }
    Ok(())
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

/// The cost of plain copying at the same size.
fn plain(measured: &[Measured], size: u64) -> Option<Figures> {
    let is_it = |line: &&Measured| line.size == size && line.technique == Technique::Copy;
    measured.iter().find(is_it).map(|line| line.figures)
}

/// How many times cheaper a technique is than plain copying.
fn factor(measured: &[Measured], line: &Measured) -> f64 {
    plain(measured, line.size).map_or(1.0, |plain| plain.cpu_per_gb() / line.figures.cpu_per_gb())
}

fn table(measured: &[Measured]) -> String {
    let optimised = if cfg!(debug_assertions) { "; UNOPTIMISED BUILD: figures are of the code" } else { "" };
    let mut text = format!(
        "A file in memory to a TCP socket over loopback, the receiver's CPU not counted{optimised}.\n\
         Loopback copies what is sent without a copy all the same when it is received: SEND_ZC can only lose here.\n\n\
         {:>8}  {:<22} {:>9} {:>9} {:>9} {:>9}  {:>7}  {}\n",
        "size", "technique", "wall s", "user s", "sys s", "CPU-s/GB", "factor", "said to be"
    );
    for line in measured {
        let figures = &line.figures;
        text.push_str(&format!(
            "{:>8}  {:<22} {:>9.3} {:>9.3} {:>9.3} {:>9.3}  {:>6.2}x  {}\n",
            size(line.size),
            line.technique.name(),
            figures.wall,
            figures.user,
            figures.sys,
            figures.cpu_per_gb(),
            factor(measured, line),
            line.technique.claim(),
        ));
    }
    text
}

/// `1 KiB`, `16 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Vec<Measured> {
        let figures = |sys| Figures { wall: 1.0, user: 0.0, sys, bytes: 1_000_000_000 };
        vec![
            Measured { size: 1024, technique: Technique::Copy, figures: figures(2.0) },
            Measured { size: 1024, technique: Technique::Sendfile, figures: figures(0.5) },
        ]
    }

    #[test]
    fn factors_are_of_plain_copying_at_the_same_size() {
        let measured = measured();
        assert!((factor(&measured, &measured[1]) - 4.0).abs() < 1e-9);
        let text = table(&measured);
        assert!(text.contains("4.00x  5-10x") && text.contains("1 KiB"), "{text}");
    }

    #[test]
    fn the_picture_has_a_line_for_each_technique() {
        let picture = svg::draw(&measured());
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<polyline").count(), 2, "{picture}");
    }

    /// Each moves what it says, and the figures are of something.
    #[test]
    fn every_technique_moves_a_file() {
        let file = sample(300_000).unwrap();
        for technique in Technique::ALL {
            let figures = technique.measure(&file, 300_000, 2).unwrap();
            assert_eq!(figures.bytes, 600_000, "{}", technique.name());
            assert!(figures.wall > 0.0, "{}", technique.name());
        }
    }
}
