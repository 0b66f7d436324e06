//! Requests one after the other, with bodies: how the network cuts the bytes makes no difference.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::drive::drive;

fuzz_target!(|bytes: &[u8]| {
    // The first byte says where it is cut.
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let whole = drive([bytes]);
    assert_eq!(drive(bytes.chunks(usize::from(step).max(1))), whole);
});
