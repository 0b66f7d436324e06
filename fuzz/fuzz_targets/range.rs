//! Range fields: what is sent lies within the file, is never more than the file, and no byte is sent twice.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::range::{Chosen, Ranges};

fuzz_target!(|input: (u64, &[u8])| {
    let (size, value) = input;
    let Some(ranges) = Ranges::parse(value) else { return };
    let mut parts = match ranges.choose(size) {
        Chosen::Whole | Chosen::Unsatisfiable => return,
        Chosen::Part(part) => vec![part],
        Chosen::Parts(parts) => parts,
    };
    assert!(parts.iter().all(|part| part.start < part.end && part.end <= size), "{parts:?} of {size}");
    parts.sort_unstable_by_key(|part| part.start);
    assert!(parts.windows(2).all(|two| two[0].end <= two[1].start), "{parts:?}: a byte is sent twice");
});
