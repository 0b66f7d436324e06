//! One request head: it is read, awaited or refused, nothing that it names lies outside of ROOT, and more
//! bytes never change a verdict.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/http/mod.rs"]
mod http;

use http::MAX_HEAD;
use http::drive::is_beneath;
use http::request::{Parsed, parse};
use http::target::Kind;

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
