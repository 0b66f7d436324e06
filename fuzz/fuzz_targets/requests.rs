//! Requests one after the other, with bodies: how the network cuts the bytes makes no difference.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::inbox::{Inbox, Next};

/// All that an inbox makes of these chunks, up to the first refusal.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Next> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    for chunk in chunks {
        let mut next = inbox.push(chunk);
        loop {
            match next {
                Next::More => break,
                // Whether the client waits depends on what has come.
                Next::Continue => {}
                Next::Request(_) => seen.push(next),
                Next::Refused(_) => {
                    seen.push(next);
                    return seen;
                }
            }
            next = inbox.next();
        }
    }
    seen
}

fuzz_target!(|bytes: &[u8]| {
    // The first byte says where it is cut.
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let whole = read(std::iter::once(bytes));
    assert_eq!(read(bytes.chunks(usize::from(step).max(1))), whole);
});
