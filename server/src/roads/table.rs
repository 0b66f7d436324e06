//! What was measured, as a table.

use super::figures::Figures;
use super::receiver::Target;
use super::techniques::Technique;

/// One line of the table.
pub(super) struct Measured {
    pub(super) size: u64,
    pub(super) technique: Technique,
    pub(super) figures: Figures,
}

/// All that was measured, and why the rest was not.
pub(super) struct Report {
    pub(super) target: Target,
    pub(super) measured: Vec<Measured>,
    pub(super) missing: Vec<(Technique, String)>,
}

impl Report {
    /// One that has nothing yet.
    pub(super) fn new(target: Target) -> Self {
        Self { target, measured: Vec::new(), missing: Vec::new() }
    }

    /// Whether the technique was found to be missing here.
    pub(super) fn is_missing(&self, technique: Technique) -> bool {
        self.missing.iter().any(|(missing, _)| *missing == technique)
    }

    /// How many times cheaper a technique is than plain copying at the same size.
    pub(super) fn factor(&self, line: &Measured) -> f64 {
        let is_plain = |other: &&Measured| other.size == line.size && other.technique == Technique::Copy;
        let plain = self.measured.iter().find(is_plain);
        plain.map_or(1.0, |plain| plain.figures.cpu_per_gb() / line.figures.cpu_per_gb())
    }

    /// The least and the greatest factor of a technique, if it was measured.
    pub(super) fn factors(&self, technique: Technique) -> Option<(f64, f64)> {
        let factors = || {
            self.measured.iter().filter(move |line| line.technique == technique).map(|line| self.factor(line))
        };
        Some((factors().reduce(f64::min)?, factors().reduce(f64::max)?))
    }

    /// How many of the zero-copy sends the kernel copied all the same, from 0 to 1, if it says so.
    fn copied(&self) -> Option<f64> {
        let shares: Vec<f64> = self.measured.iter().filter_map(|line| line.figures.copied).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Where the bytes go.
    pub(super) fn path(&self) -> String {
        match self.target {
            Target::Loopback => "loopback".to_owned(),
            Target::Elsewhere(address) => format!("the path to {address}"),
        }
    }

    /// The table, what is missing in it, and what SEND_ZC came to.
    pub(super) fn table(&self) -> String {
        let optimised =
            if cfg!(debug_assertions) { "; UNOPTIMISED BUILD: figures are of the code" } else { "" };
        let mut text = format!(
            "A file in memory to a TCP socket over {}, the receiver's CPU not counted{optimised}.\n\n\
             {:>8}  {:<20} {:>9} {:>9} {:>9} {:>9}  {:>7}  {}\n",
            self.path(),
            "size",
            "technique",
            "wall s",
            "user s",
            "sys s",
            "CPU-s/GB",
            "factor",
            "said to be"
        );
        for line in &self.measured {
            let figures = &line.figures;
            text.push_str(&format!(
                "{:>8}  {:<20} {:>9.3} {:>9.3} {:>9.3} {:>9.3}  {:>6.2}x  {}\n",
                size(line.size),
                line.technique.name(),
                figures.wall,
                figures.user,
                figures.sys,
                figures.cpu_per_gb(),
                self.factor(line),
                line.technique.claim(),
            ));
        }
        text.push('\n');
        for (technique, why) in &self.missing {
            text.push_str(&format!("Not measured: {}, because {why}\n", technique.name()));
        }
        if let Some(copied) = self.copied() {
            text.push_str(&format!(
                "On this path the kernel copied {:.0} % of what SEND_ZC was to send without a copy.\n",
                copied * 100.0
            ));
        }
        text
    }
}

/// `1 KiB`, `16 MiB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two sizes of three techniques, one of which is missing.
    pub(in super::super) fn report() -> Report {
        let mut report = Report::new(Target::Loopback);
        let mut add = |size, technique, sys, copied| {
            let figures = Figures { wall: 1.0, user: 0.0, sys, bytes: 1_000_000_000, copied };
            report.measured.push(Measured { size, technique, figures });
        };
        add(1 << 10, Technique::Copy, 2.0, None);
        add(1 << 10, Technique::Sendfile, 0.5, None);
        add(1 << 10, Technique::SendZc, 4.0, Some(1.0));
        add(1 << 30, Technique::Copy, 0.3, None);
        add(1 << 30, Technique::Sendfile, 0.1, None);
        add(1 << 30, Technique::SendZc, 0.2, Some(0.5));
        report.missing.push((Technique::SpliceRing, "a ring is refused".to_owned()));
        report
    }

    /// Seen to fail: with the factor over the first line of plain copying, whatever its size.
    #[test]
    fn factors_are_of_plain_copying_at_the_same_size() {
        let text = report().table();
        let line = |size: &str, technique: &str| {
            let is_it = |line: &&str| line.trim_start().starts_with(size) && line.contains(technique);
            text.lines().find(is_it).unwrap_or_else(|| panic!("no {size} {technique}: {text}")).to_owned()
        };
        assert!(line("1 KiB", "sendfile").ends_with("0.500    4.00x  5-10x"), "{text}");
        assert!(line("1 GiB", "sendfile").ends_with("0.100    3.00x  5-10x"), "{text}");
        assert!(line("1 KiB", "read + write").ends_with("1.00x  1x"), "{text}");
        assert_eq!(report().factors(Technique::Sendfile), Some((0.3 / 0.1, 4.0)));
        assert_eq!(report().factors(Technique::SpliceRing), None);
    }

    #[test]
    fn what_is_missing_has_its_reason_and_what_was_copied_its_share() {
        let text = report().table();
        assert!(text.contains("Not measured: splice in the ring, because a ring is refused\n"), "{text}");
        assert!(
            text.ends_with("the kernel copied 75 % of what SEND_ZC was to send without a copy.\n"),
            "{text}"
        );
    }

    #[test]
    fn sizes_have_their_units() {
        assert_eq!([1 << 10, 64 << 10, 1 << 20, 1 << 30].map(size), ["1 KiB", "64 KiB", "1 MiB", "1 GiB"]);
    }
}
