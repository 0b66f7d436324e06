//! One rule of the operator's, as it is written: a header line, caching, an origin, an error page.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::http::fields::is_token;

/// A header line for some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderRule {
    pub(super) pattern: Pattern,
    pub(super) name: String,
    pub(super) value: String,
}

/// Cache-Control for some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheRule {
    pub(super) pattern: Pattern,
    pub(super) value: String,
}

/// A file that is sent with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorPage {
    /// The status code.
    pub(super) status: u16,
    /// Below ROOT.
    pub(super) file: PathBuf,
}

/// Whose pages may read what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(pub(super) String);

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl HeaderRule {
    /// Reads `GLOB: Name: value`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (pattern, rest) =
            text.split_once(": ").ok_or("write 'GLOB: Name: value', such as '*: X-Frame-Options: DENY'")?;
        let (name, value) =
            rest.split_once(':').ok_or("write 'GLOB: Name: value', such as '*: X-Frame-Options: DENY'")?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("{name:?} is not the name of a header field"));
        }
        if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            return Err(format!("{name} is for the server to say"));
        }
        check_value(value)?;
        Ok(Self { pattern: Pattern::parse(pattern)?, name: name.to_owned(), value: value.to_owned() })
    }
}

/// Fields that say where an answer ends and which bytes of which version it has. No rule can know that.
const OURS: &[&str] = &[
    "Accept-Ranges",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Date",
    "ETag",
    "Keep-Alive",
    "Last-Modified",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

impl CacheRule {
    /// Reads `GLOB=value`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (pattern, value) =
            text.split_once('=').ok_or("write 'GLOB=value', such as '/assets/**=max-age=3600'")?;
        let value = value.trim();
        check_value(value)?;
        if value.is_empty() {
            return Err("write 'GLOB=value', such as '/assets/**=max-age=3600'".to_owned());
        }
        Ok(Self { pattern: Pattern::parse(pattern)?, value: value.to_owned() })
    }
}

impl ErrorPage {
    /// Reads `404=FILE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (status, file) = text.split_once('=').ok_or("write STATUS=FILE, such as 404=/404.html")?;
        let status = status.parse().ok().filter(|status| (400..600).contains(status));
        let status = status.ok_or("the status is one of an error, 400 to 599")?;
        let file = Path::new(file.trim_start_matches('/'));
        if file.as_os_str().is_empty() || !file.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err("the file is named below ROOT, such as /404.html".to_owned());
        }
        Ok(Self { status, file: file.to_owned() })
    }
}

impl Origin {
    /// Reads `*` or `scheme://host[:port]`, as browsers write it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        check_value(text)?;
        let host = text.split_once("://").map(|(_, host)| host);
        let is_origin = host.is_some_and(|host| crate::http::host::is_host_and_port(host.as_bytes()));
        if text == "*" || is_origin {
            return Ok(Self(text.to_owned()));
        }
        Err("write '*', or an origin such as https://www.example.org".to_owned())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        Self(text.to_owned()).compile()?;
        Ok(Self(text.to_owned()))
    }

    pub(super) fn compile(&self) -> Result<Matcher, String> {
        let whole = self.0.contains('/');
        let text = self.0.trim_start_matches('/');
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("{:?} is no pattern: {}", self.0, error.kind()))?;
        Ok(Matcher { glob: glob.compile_matcher(), whole })
    }
}

fn check_value(value: &str) -> Result<(), String> {
    let bad = value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f);
    if bad { Err("a header value holds no control character".to_owned()) } else { Ok(()) }
}

/// A pattern, ready to be asked.
#[derive(Debug)]
pub(super) struct Matcher {
    glob: GlobMatcher,
    /// It is about the whole path, not the last name.
    whole: bool,
}

impl Matcher {
    pub(super) fn is_match(&self, path: &Path) -> bool {
        if self.whole {
            return self.glob.is_match(path);
        }
        // ROOT itself has no name; `*` is for it too.
        self.glob.is_match(path.file_name().map_or(Path::new(""), Path::new))
    }
}

impl fmt::Display for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.pattern.0, self.name, self.value)
    }
}

impl fmt::Display for CacheRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern.0, self.value)
    }
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=/{}", self.status, self.file.display())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern(pattern.to_owned()).compile().unwrap().is_match(Path::new(path))
    }

    #[test]
    fn patterns() {
        for (pattern, path) in [
            ("*", "a"),
            ("*", "a/b.txt"),
            ("*", ""),
            ("*.html", "a/b.html"),
            ("/assets/**", "assets/a/b"),
            ("/assets/*", "assets/a"),
            ("/*.html", "a.html"),
            ("**/b", "a/b"),
            ("*.{js,css}", "a/b.css"),
            ("/a.txt", "a.txt"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.html", "a.htm"),
            ("/assets/*", "assets/a/b"),
            ("/*.html", "a/b.html"),
            ("assets/*", "x/assets/a"),
            ("/assets/**", "assets.txt"),
            ("*.html", "a.html/b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_written_wrong_is_said() {
        for (text, word) in [
            ("x", "GLOB"),
            ("*: x", "GLOB"),
            ("*: a b: c", "a b"),
            ("*: Content-Length: 3", "server"),
            ("*: transfer-encoding: chunked", "server"),
            ("*: X: a\r\nb", "control"),
            ("[: X: y", "pattern"),
        ] {
            assert!(HeaderRule::parse(text).unwrap_err().contains(word), "{text}");
        }
        for text in ["x", "*=", "*=a\nb", "[=x"] {
            assert!(CacheRule::parse(text).is_err(), "{text}");
        }
        for text in ["404", "200=/a", "x=/a", "404=", "404=/../a", "404=/a/../b", "404=/./a"] {
            assert!(ErrorPage::parse(text).is_err(), "{text}");
        }
        for text in ["", "example.org", "https://", "https://a/b", "**"] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        let rule = HeaderRule::parse("/a/*: X-Y:  z: w ").unwrap();
        assert_eq!(rule.to_string(), "/a/*: X-Y: z: w");
        assert_eq!(CacheRule::parse("/a/**=max-age=5").unwrap().to_string(), "/a/**=max-age=5");
        assert_eq!(ErrorPage::parse("404=/e/404.html").unwrap().to_string(), "404=/e/404.html");
        assert!(Origin::parse("https://a.example:8443").is_ok());
    }
}
