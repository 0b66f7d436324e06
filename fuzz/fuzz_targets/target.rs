//! Request targets: a path that is resolved lies beneath ROOT.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::drive::is_beneath;
use http::target::{Kind, Target, may_stand_in_target};

fuzz_target!(|bytes: &[u8]| {
    // The request line is checked before.
    if !bytes.iter().copied().all(may_stand_in_target) {
        return;
    }
    let Ok(target) = Target::resolve(bytes, &mut Vec::new()) else { return };
    if target.kind() == Kind::Nothing {
        return;
    }
    assert!(is_beneath(target.path()), "{target:?}");
});
