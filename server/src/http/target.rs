//! From a request target to the thing below ROOT that it names (RFC 9112 3.2, RFC 3986 3.3).
//!
//! The rules, in one place:
//! - the query is ignored, a fragment is refused;
//! - each segment is percent-decoded once; a broken escape or a NUL is refused;
//! - `..` is refused in every spelling, instead of being folded: no honest client sends it;
//! - `.` and empty segments are dropped;
//! - an encoded slash makes no second level: no file has a slash in its name, so it names nothing.
//!
//! The kernel enforces the root again (openat2 with RESOLVE_BENEATH); this module is the first fence, not the only.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::Refusal;
use super::fields::is_host_and_port;

/// What a request target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A file, by its path relative to ROOT. Never empty, never absolute, without `.` and `..`.
    File(PathBuf),
    /// A directory, because the path is empty or ends with a slash. Relative to ROOT; empty for ROOT itself.
    Directory(PathBuf),
    /// Something that cannot exist.
    Nothing,
}

/// Whether a byte may stand in a request target.
///
/// Stricter than a token, looser than a URI: bytes above 127 are let through, because curl and many tools send a
/// path such as `/한글.txt` as it was typed, and they can only mean the file of that name.
pub(crate) fn may_stand_in_target(b: u8) -> bool {
    b > b' ' && b != b'#' && b != 0x7f
}

/// Resolves the target of a GET or HEAD: origin-form, or absolute-form, which a server must take (RFC 9112 3.2.2). The
/// path is written into `room`, which it takes along.
pub(crate) fn resolve(target: &[u8], room: &mut Vec<u8>) -> Result<Resource, Refusal> {
    let path = if target.first() == Some(&b'/') { target } else { absolute_form(target)? };
    let path = path.split(|&b| b == b'?').next().unwrap_or_default();
    let resolved = room;
    resolved.clear();
    let mut exists = true;
    let mut directory = true;
    for segment in path.split(|&b| b == b'/') {
        let segment = decode(segment)?;
        if segment.contains(&0) {
            return Err(Refusal::bad("the path holds a NUL"));
        }
        if segment.split(|&b| b == b'/').any(|piece| piece == b"..") {
            return Err(Refusal::bad("the path holds '..'"));
        }
        directory = matches!(*segment, [] | [b'.']);
        if directory {
            continue;
        }
        exists &= !segment.contains(&b'/');
        if !resolved.is_empty() {
            resolved.push(b'/');
        }
        resolved.extend_from_slice(&segment);
    }
    let mut path = || PathBuf::from(OsString::from_vec(std::mem::take(resolved)));
    Ok(match (exists, directory) {
        (false, _) => Resource::Nothing,
        (true, true) => Resource::Directory(path()),
        (true, false) => Resource::File(path()),
    })
}

impl Resource {
    /// The path's memory, for the next one.
    pub(crate) fn into_room(self) -> Vec<u8> {
        match self {
            Resource::File(path) | Resource::Directory(path) => path.into_os_string().into_vec(),
            Resource::Nothing => Vec::new(),
        }
    }
}

/// The path and query of `http://host:port/path?query`. Whose name the client used does not matter here.
fn absolute_form(target: &[u8]) -> Result<&[u8], Refusal> {
    const BAD: Refusal = Refusal::bad("the request target is neither a path nor an http address");
    let starts_with =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    let rest = if starts_with(b"http://") {
        &target[b"http://".len()..]
    } else if starts_with(b"https://") {
        &target[b"https://".len()..]
    } else {
        return Err(BAD);
    };
    let authority_end = rest.iter().position(|&b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    if is_host_and_port(authority) { Ok(path) } else { Err(BAD) }
}

/// Percent-decodes one segment, once.
fn decode(segment: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, Refusal> {
    let whole =
        segment.iter().enumerate().filter(|&(_, &b)| b == b'%').all(|(at, _)| {
            segment.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        });
    if !whole {
        return Err(Refusal::bad("a percent sign in the path is not followed by two hexadecimal digits"));
    }
    Ok(percent_encoding::percent_decode(segment).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(target: &[u8]) -> Result<Resource, Refusal> {
        // What an earlier path has left must not show.
        super::resolve(target, &mut b"left/over".to_vec())
    }

    fn file(path: &str) -> Result<Resource, Refusal> {
        Ok(Resource::File(path.into()))
    }

    fn directory(path: &str) -> Result<Resource, Refusal> {
        Ok(Resource::Directory(path.into()))
    }

    #[test]
    fn files_and_directories() {
        assert_eq!(resolve(b"/a.txt"), file("a.txt"));
        assert_eq!(resolve(b"/a/b%20c?x=../..&y=%zz"), file("a/b c"));
        assert_eq!(resolve(b"//a/./b//c"), file("a/b/c"));
        assert_eq!(resolve("/한글.txt".as_bytes()), file("한글.txt"));
        assert_eq!(resolve(b"/%ED%95%9C%EA%B8%80.txt"), file("한글.txt"));
        assert_eq!(resolve(b"/..a/b.."), file("..a/b.."));
        assert_eq!(resolve(b"/..."), file("..."));
        assert_eq!(resolve(b"/"), directory(""));
        assert_eq!(resolve(b"/?a"), directory(""));
        assert_eq!(resolve(b"/a/"), directory("a"));
        assert_eq!(resolve(b"/a/."), directory("a"));
    }

    #[test]
    fn dot_dot_is_refused_in_every_spelling() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/a/../b",
            "/a/..",
            "/%2e%2e/x",
            "/.%2E/x",
            "/%2E./x",
            "/..%2fetc",
            "/a%2f..%2f..%2fetc",
            "/a%2F%2e%2E",
            "http://h/../x",
            "/..?x",
        ] {
            assert!(resolve(target.as_bytes()).is_err(), "{target}");
        }
        // Decoded once, this is a file called "%2e%2e".
        assert_eq!(resolve(b"/%252e%252e/x"), file("%2e%2e/x"));
    }

    #[test]
    fn nul_and_broken_escapes_are_refused() {
        for target in ["/a%00b", "/%00", "/a%", "/a%2", "/a%zz", "/%2", "/%-1", "/a%2/b"] {
            assert!(resolve(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn an_encoded_slash_names_nothing() {
        assert_eq!(resolve(b"/a%2fb"), Ok(Resource::Nothing));
        assert_eq!(resolve(b"/%2fetc/passwd"), Ok(Resource::Nothing));
    }

    #[test]
    fn absolute_form_is_taken() {
        assert_eq!(resolve(b"http://example/a.txt"), file("a.txt"));
        assert_eq!(resolve(b"HTTP://[::1]:80/a?b"), file("a"));
        assert_eq!(resolve(b"https://example"), directory(""));
        assert_eq!(resolve(b"http://example?q"), directory(""));
        for bad in
            ["http://", "http:///a", "http://u@h/a", "ftp://h/a", "example/a", "*", "http://h\\x/a", "a.txt"]
        {
            assert!(resolve(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
