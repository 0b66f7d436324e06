//! Request targets: what is resolved lies beneath ROOT, and an escape that says nothing new changes nothing.

#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::target::{Kind, Target, may_stand_in_target};

fuzz_target!(|bytes: &[u8]| {
    // The request line was looked at before.
    if !bytes.iter().copied().all(may_stand_in_target) {
        return;
    }
    let Ok(target) = Target::resolve(bytes, &mut Vec::new()) else { return };
    if target.kind() == Kind::Nothing {
        return;
    }
    let path = target.path();
    assert!(path.components().all(|component| matches!(component, Component::Normal(_))), "{path:?}");
    assert!(!path.as_os_str().as_encoded_bytes().contains(&0), "{path:?}");
});
