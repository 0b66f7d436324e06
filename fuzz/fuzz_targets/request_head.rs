//! One request head: it is read, awaited or refused, nothing that it names lies outside of ROOT, and more bytes never
//! change a verdict.

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::MAX_HEAD;
use http::request::{Parsed, parse};
use http::target::Kind;

fn is_beneath(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fuzz_target!(|bytes: &[u8]| {
    let verdict = parse(bytes, &mut Vec::new());
    match &verdict {
        Parsed::Complete(whole) => {
            assert!(whole.head <= bytes.len() && bytes[..whole.head].ends_with(b"\r\n\r\n"));
            let target = &whole.request.target;
            assert!(target.kind() == Kind::Nothing || is_beneath(target.path()), "{target:?}");
        }
        Parsed::Partial => assert!(bytes.len() <= MAX_HEAD, "a head without end"),
        Parsed::Refused(_) => {}
    }
    if verdict != Parsed::Partial {
        assert_eq!(
            parse(&[bytes, b" x\r\n\r\n"].concat(), &mut Vec::new()),
            verdict,
            "more bytes changed a verdict"
        );
    }
});
