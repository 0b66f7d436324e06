//! Reads the counters that `--stats` prints when the program ends: lines of `name=number`, one line for each
//! core.

use crate::server::Ended;
use std::collections::BTreeMap;

/// The counters of all cores.
#[derive(Debug)]
pub struct Stats {
    /// One map for each core's line, in the order of the lines.
    pub cores: Vec<BTreeMap<String, u64>>,
}

/// The lines with counters in what the program said, on either of its outputs.
#[track_caller]
pub fn of(ended: &Ended) -> Stats {
    let cores: Vec<_> = ended
        .out
        .iter()
        .chain(&ended.err)
        .filter(|line| line.contains("file_bytes_ring="))
        .map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.split_once('='))
                .filter_map(|(name, value)| {
                    Some((name.to_owned(), value.trim_end_matches(',').parse().ok()?))
                })
                .collect()
        })
        .collect();
    assert!(
        !cores.is_empty(),
        "--stats prints a line with file_bytes_ring= for each core; there was none: {ended:#?}"
    );
    Stats { cores }
}

impl Stats {
    /// One counter, over all cores. A core whose line lacks it ends the test.
    #[track_caller]
    pub fn total(&self, name: &str) -> u64 {
        let of_core = |core: &BTreeMap<String, u64>| match core.get(name) {
            Some(&value) => value,
            None => panic!("no {name}= among a core's counters {core:?}"),
        };
        self.cores.iter().map(of_core).sum()
    }
}
