//! What the properties and the fuzzer have in common: an inbox from its first byte to its last, and where a
//! path may lie.

use std::path::{Component, Path};

use super::inbox::{Inbox, Next};

/// All that an inbox makes of these chunks, up to the first refusal.
pub(crate) fn drive<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Next> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    for chunk in chunks {
        let mut next = inbox.push(chunk);
        loop {
            match next {
                Next::More => break,
                Next::Refused(_) => {
                    seen.push(next);
                    return seen;
                }
                Next::Request(_) => seen.push(next),
                // Whether the client waits depends on what has come.
                Next::Continue => {}
            }
            next = inbox.next();
        }
    }
    seen
}

/// Whether a path, taken from a folder, cannot lead out of it.
pub(crate) fn is_beneath(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}
