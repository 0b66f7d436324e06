//! What a file says of the program as a whole, and what of it a reload cannot change.

use super::keys::Entry;

/// The keys that hold for the program, as they are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramKeys(Vec<(String, Vec<String>)>);

/// Those that a reload changes; all others take a restart.
const RELOADED: [&str; 4] = ["grace", "drain-wait", "upgrade-grace", "road"];

impl ProgramKeys {
    /// Those of the head of a file.
    pub(super) fn of(entries: &[Entry]) -> Self {
        let key = |entry: &Entry| {
            (entry.key.clone(), entry.values.iter().map(|value| value.text.clone()).collect())
        };
        ProgramKeys(entries.iter().map(key).collect())
    }

    /// The names of those that are others in `now` and that a reload does not change.
    pub(crate) fn changed(&self, now: &Self) -> Vec<String> {
        let missing = |a: &Self, b: &Self| -> Vec<String> {
            let is_missing =
                |key: &&(String, Vec<String>)| !b.0.contains(key) && !RELOADED.contains(&key.0.as_str());
            a.0.iter().filter(is_missing).map(|(key, _)| format!("`{key}`")).collect()
        };
        let mut names = missing(self, now);
        names.extend(missing(now, self));
        names.sort();
        names.dedup();
        names
    }
}
