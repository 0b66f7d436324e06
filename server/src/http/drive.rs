//! An inbox from its first byte to its last, for the properties and for the fuzzer.

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
