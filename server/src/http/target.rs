//! From a request target to the path below ROOT that it names (RFC 9112 3.2, RFC 3986 3.3).
//!
//! The rules, in one place:
//! - the query names no other file, a fragment is refused;
//! - each segment is percent-decoded once; a broken escape or a NUL is refused;
//! - `.`, `..` and empty segments are taken away as RFC 3986 5.2.4 has it, in every spelling, since an
//!   escaped dot is a dot; a `..` that leads above ROOT is refused;
//! - an encoded slash makes no second level: no file has a slash in its name, so it names nothing; with `..`
//!   beside it, it is refused.
//!
//! The kernel enforces the root again (openat2 with RESOLVE_BENEATH); this module is the first of two checks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Refusal;
use super::host::{escapes_are_whole, is_host_and_port};

/// What a request target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The path below ROOT, and the query behind it as it came.
    text: Vec<u8>,
    path_len: usize,
    kind: Kind,
    has_query: bool,
}

/// What kind of thing a target names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What has this name: a path that is never empty.
    Name,
    /// A directory, because the path is empty or ends with a slash. Empty for ROOT itself.
    Directory,
    /// Something that cannot exist.
    Nothing,
    /// The server as a whole: `*` (RFC 9112 3.2.4), or the authority of a CONNECT.
    Server,
}

impl Target {
    /// Resolves the target of a request: origin-form, or absolute-form, which a server must take (RFC 9112
    /// 3.2.2). It is written into `memory`, which an earlier target left, and keeps it.
    ///
    /// # Errors
    /// It names nothing that lies below ROOT.
    pub(crate) fn resolve(target: &[u8], memory: &mut Vec<u8>) -> Result<Self, Refusal> {
        let target = if target.first() == Some(&b'/') { target } else { absolute_form(target)? };
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
            None => (target, None),
        };
        memory.clear();
        let kind = if is_plain(path) {
            memory.extend_from_slice(&path[1..]);
            Kind::Name
        } else {
            resolve_segments(path, memory)?
        };
        let path_len = memory.len();
        memory.extend_from_slice(query.unwrap_or_default());
        Ok(Self { text: std::mem::take(memory), path_len, kind, has_query: query.is_some() })
    }

    /// `*`, or an authority.
    pub(crate) fn server() -> Self {
        Self { text: Vec::new(), path_len: 0, kind: Kind::Server, has_query: false }
    }

    /// What kind of thing it names.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The path relative to ROOT: never absolute, without `.`, `..` and empty segments, without a slash at
    /// its end.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.text[..self.path_len]))
    }

    /// What stands behind the first question mark, as it came.
    pub(crate) fn query(&self) -> Option<&[u8]> {
        self.has_query.then(|| &self.text[self.path_len..])
    }

    /// Its memory, for the next one.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.text
    }
}

/// Whether a byte may stand in a request target.
///
/// Stricter than a token, looser than a URI: bytes above 127 are let through, because curl and many tools
/// send a path such as `/한글.txt` as it was typed, and they can only mean the file of that name.
pub(crate) fn may_stand_in_target(b: u8) -> bool {
    b > b' ' && b != b'#' && b != 0x7f
}

/// Whether a path names what it says: no escape, no segment to take away, no slash at its end.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &b in path {
        match b {
            b'%' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = b == b'/',
        }
    }
    // It begins with a slash, so it does not end within one.
    !after_slash && !path.is_empty()
}

/// Takes a path apart and writes what is left of it.
fn resolve_segments(path: &[u8], resolved: &mut Vec<u8>) -> Result<Kind, Refusal> {
    let (mut exists, mut directory) = (true, true);
    for segment in path.split(|&b| b == b'/') {
        let segment = decode(segment)?;
        if segment.contains(&0) {
            return Err(Refusal::bad("the path holds a NUL"));
        }
        directory = matches!(*segment, [] | [b'.'] | [b'.', b'.']);
        if *segment == *b".." {
            if resolved.is_empty() {
                return Err(Refusal::bad("the path leads out of the root"));
            }
            let parent = memchr::memrchr(b'/', resolved).unwrap_or(0);
            resolved.truncate(parent);
        }
        if directory {
            continue;
        }
        if segment.contains(&b'/') {
            if segment.split(|&b| b == b'/').any(|piece| piece == b"..") {
                return Err(Refusal::bad("the path holds '..' beside an encoded slash"));
            }
            exists = false;
        }
        if !resolved.is_empty() {
            resolved.push(b'/');
        }
        resolved.extend_from_slice(&segment);
    }
    Ok(match (exists, directory) {
        (false, _) => Kind::Nothing,
        (true, true) => Kind::Directory,
        (true, false) => Kind::Name,
    })
}

/// The path and query of `http://host:port/path?query`. The host is not examined here.
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
    if !escapes_are_whole(segment) {
        return Err(Refusal::bad("a percent sign in the path is not followed by two hexadecimal digits"));
    }
    Ok(percent_encoding::percent_decode(segment).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(target: &[u8]) -> Result<(Kind, String), Refusal> {
        // What an earlier path has left must not show.
        let target = Target::resolve(target, &mut b"left/over".to_vec())?;
        Ok((target.kind(), target.path().display().to_string()))
    }

    fn file(path: &str) -> Result<(Kind, String), Refusal> {
        Ok((Kind::Name, path.to_owned()))
    }

    fn directory(path: &str) -> Result<(Kind, String), Refusal> {
        Ok((Kind::Directory, path.to_owned()))
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
        assert_eq!(resolve(b"/.a"), file(".a"));
        assert_eq!(resolve(b"/"), directory(""));
        assert_eq!(resolve(b"/?a"), directory(""));
        assert_eq!(resolve(b"/a/"), directory("a"));
        assert_eq!(resolve(b"/a/."), directory("a"));
    }

    #[test]
    fn dot_dot_is_resolved_within_the_root() {
        for (target, expected) in [
            ("/a/../b", file("b")),
            ("/a/..", directory("")),
            ("/a/b/../c/", directory("a/c")),
            ("/a/b/..", directory("a")),
            ("/a/b/../..", directory("")),
            ("/a/%2e%2E/b", file("b")),
            ("/a/.%2e/b", file("b")),
            ("/a/./../b", file("b")),
            ("/a//../b", file("b")),
            ("http://h/a/../x", file("x")),
        ] {
            assert_eq!(resolve(target.as_bytes()), expected, "{target}");
        }
        // Decoded once, this is a file called "%2e%2e".
        assert_eq!(resolve(b"/%252e%252e/x"), file("%2e%2e/x"));
    }

    #[test]
    fn what_leads_out_of_the_root_is_refused_in_every_spelling() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/a/../..",
            "/a/../../a",
            "/a/../b/../../b",
            "/%2e%2e/x",
            "/.%2E/x",
            "/%2E./x",
            "/..%2fetc",
            "/a%2f..%2f..%2fetc",
            "/a%2F%2e%2E",
            "//..//x",
            "/./../x",
            "http://h/../x",
            "/..?x",
        ] {
            assert!(resolve(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn the_query_is_kept_as_it_came() {
        let query =
            |target: &[u8]| Target::resolve(target, &mut Vec::new()).unwrap().query().map(<[u8]>::to_vec);
        assert_eq!(query(b"/a"), None);
        assert_eq!(query(b"/a?"), Some(b"".to_vec()));
        assert_eq!(query(b"/a?x=%zz&../?y"), Some(b"x=%zz&../?y".to_vec()));
        assert_eq!(query(b"/a/../?x"), Some(b"x".to_vec()));
    }

    #[test]
    fn nul_and_broken_escapes_are_refused() {
        for target in ["/a%00b", "/%00", "/a%", "/a%2", "/a%zz", "/%2", "/%-1", "/a%2/b"] {
            assert!(resolve(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn an_encoded_slash_names_nothing() {
        for target in ["/a%2fb", "/%2fetc/passwd", "/a%2Fb/"] {
            assert_eq!(resolve(target.as_bytes()).unwrap().0, Kind::Nothing, "{target}");
        }
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
