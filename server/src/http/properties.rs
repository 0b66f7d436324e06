//! What must hold for every input: no panic, no escape, no dependence on how the network cuts the bytes.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::drive::{drive, is_beneath};
use super::request::{self, Parsed};
use super::target::{Kind, Target};
use super::{MAX_HEAD, Refusal};

fn resolve(target: &[u8]) -> Result<Target, Refusal> {
    Target::resolve(target, &mut Vec::new())
}

fn parse(bytes: &[u8]) -> Parsed {
    request::parse(bytes, &mut Vec::new())
}

/// Pieces of requests. Joined at random they reach deeper into the parser than random bytes.
fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            "GET", "HEAD", "POST", " ", "  ", "\t", "/", "/a", "/..", "%2e", "%", "%00", "?q", "#f", "*", "http://h",
            "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "\r\n", "\r\n\r\n", "\r", "\n", "\0", "Host", "Host: h\r\n", ":", ": ",
            "Content-Length: 3\r\n", "Content-Length: 70000\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "0\r\n\r\n", "Range: bytes=0-1,5-\r\n", "If-Match: *\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n",
            "If-None-Match: \"a\"\r\n", "If-Range: \"a\"\r\n", "Accept-Encoding: br\r\n", "/b/../c",
            "Connection: close\r\n", "Connection: keep-alive\r\n", "Expect: 100-continue\r\n", "X: y\r\n", " folded\r\n",
            "GET /a HTTP/1.1\r\nHost: h\r\n", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD /b/ HTTP/1.0\r\n\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Anything that Linux takes as a file's name.
fn file_name() -> impl Strategy<Value = String> {
    "[^/\\x00]{1,8}".prop_map(|name| if name == "." || name == ".." { name + "x" } else { name })
}

proptest! {
    #[test]
    fn a_resolved_path_lies_beneath_the_root(target in "/?([a-z./%?]|%2[eEfF]|%00|\\.\\.|/\\.\\./){0,12}|\\PC{0,20}") {
        if let Ok(target) = resolve(target.as_bytes()) && target.kind() != Kind::Nothing {
            prop_assert!(is_beneath(target.path()), "{target:?}");
            prop_assert_eq!(target.kind() == Kind::Name && target.path().as_os_str().is_empty(), false);
        }
    }

    #[test]
    fn a_file_is_found_under_its_encoded_name(names in vec(file_name(), 1..4)) {
        let target: String = names.iter().flat_map(|name| {
            std::iter::once("/".to_owned()).chain(name.bytes().map(|b| format!("%{b:02x}")))
        }).collect();
        let target = resolve(target.as_bytes()).unwrap();
        let path = names.join("/");
        prop_assert_eq!((target.kind(), target.path()), (Kind::Name, Path::new(&path)));
    }

    /// The fast path for plain paths finds what the general one finds. A redundant escape selects the general
    /// one.
    #[test]
    fn plain_paths_and_others_are_resolved_alike(target in "(/[a.]{0,3}){1,5}") {
        let plain = resolve(target.as_bytes());
        let escaped = resolve(target.replacen('a', "%61", 1).as_bytes());
        let told = |target: Result<Target, Refusal>| target.map(|target| (target.kind(), target.path().to_owned()));
        prop_assert_eq!(told(plain), told(escaped));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in request_bytes()) {
        match parse(&bytes) {
            Parsed::Complete(whole) => {
                prop_assert!(whole.head <= bytes.len() && bytes[..whole.head].ends_with(b"\r\n\r\n"));
                let target = &whole.request.target;
                prop_assert!(target.kind() == Kind::Nothing || is_beneath(target.path()), "{target:?}");
            }
            Parsed::Partial => prop_assert!(bytes.len() <= MAX_HEAD),
            Parsed::Refused(_) => {}
        }
    }

    /// A verdict on a beginning is the verdict on the whole: more bytes never change it.
    #[test]
    fn a_verdict_is_final(bytes in request_bytes(), more in request_bytes()) {
        let early = parse(&bytes);
        if early != Parsed::Partial {
            prop_assert_eq!(parse(&[bytes, more].concat()), early);
        }
    }

    #[test]
    fn the_cuts_of_the_network_do_not_matter(bytes in request_bytes(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let whole = drive([&bytes[..]]);
        prop_assert_eq!(&drive(cuts.windows(2).map(|w| &bytes[w[0]..w[1]])), &whole);
        prop_assert_eq!(&drive(bytes.chunks(1)), &whole);
    }
}
