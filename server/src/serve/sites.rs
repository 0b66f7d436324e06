//! Which of the files that a listener serves are meant: by the name of the host, then by the path.

use std::str::FromStr;

use super::options::ServeArgs;

/// What is served for some hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteConfig {
    /// The names that it is for; none for all.
    pub(crate) hosts: Vec<HostPattern>,
    /// How its files are served.
    pub(crate) args: ServeArgs,
    /// Paths that are served otherwise, the first that matches.
    pub(crate) paths: Vec<PathRule>,
}

/// What is served for some paths of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathRule {
    /// The paths that it is for.
    pub(crate) patterns: Vec<PathPattern>,
    /// How these files are served. What the site says and this rule does not is in here as well.
    pub(crate) args: ServeArgs,
}

impl SiteConfig {
    /// One for every name and every path.
    pub(crate) fn of_all(args: ServeArgs) -> Self {
        SiteConfig { hosts: Vec::new(), args, paths: Vec::new() }
    }

    /// How all of its files are served: first what the site itself says, then each rule.
    pub(crate) fn all_args(&self) -> impl Iterator<Item = &ServeArgs> {
        std::iter::once(&self.args).chain(self.paths.iter().map(|rule| &rule.args))
    }

    /// Whether it is for `host`, a Host field's value.
    pub(crate) fn is_for(&self, host: &[u8]) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// The rule for `path`, which is decoded and relative to the root; `None` for what the site itself says.
    pub(crate) fn rule(&self, path: &[u8]) -> Option<usize> {
        self.paths.iter().position(|rule| rule.patterns.iter().any(|pattern| pattern.matches(path)))
    }
}

/// A name, or `*.` and a name for all names below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern {
    /// In lower case, without the `*`.
    name: String,
    below: bool,
}

impl HostPattern {
    /// Whether it is for `host`, which may have a port, and a dot at its end (RFC 9110 4.2.3: names are
    /// compared without case).
    pub(crate) fn matches(&self, host: &[u8]) -> bool {
        let host = without_port(host);
        let host = host.strip_suffix(b".").unwrap_or(host);
        let name = self.name.as_bytes();
        if self.below {
            host.len() > name.len() && host[host.len() - name.len()..].eq_ignore_ascii_case(name)
        } else {
            host.eq_ignore_ascii_case(name)
        }
    }
}

/// A Host field's value without the port: an IPv6 address stands in brackets (RFC 9110 7.2).
fn without_port(host: &[u8]) -> &[u8] {
    let after_bracket = host.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    match host[after_bracket..].iter().position(|byte| *byte == b':') {
        Some(colon) => &host[..after_bracket + colon],
        None => host,
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let below = text.starts_with("*.");
        let name = if below { &text[1..] } else { text };
        let is_bracketed = text.starts_with('[') && text.ends_with(']');
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_name = !bare.trim_matches('.').is_empty() && bare.bytes().all(allowed);
        if is_name || is_bracketed && text[1..text.len() - 1].parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(HostPattern { name: bare, below });
        }
        Err("write a name without port, such as example.org, or *.example.org for all below it".to_owned())
    }
}

/// A path and all below it, or all files with an ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathPattern {
    /// `/a/b` or `/a/b/`, and all below it; kept without these slashes.
    Below(String),
    /// `*.css`: the path ends so.
    Ending(String),
}

impl PathPattern {
    /// Whether it is for `path`, which is decoded, relative to the root, and without a slash at its end.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            PathPattern::Ending(ending) => path.ends_with(ending.as_bytes()),
            PathPattern::Below(prefix) => {
                let rest = path.strip_prefix(prefix.as_bytes());
                rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
            }
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('*') {
            Some(ending) if !ending.is_empty() && !ending.contains(['*', '/']) => {
                Ok(PathPattern::Ending(ending.to_owned()))
            }
            None if text.starts_with('/') && !text.contains(['*', '?', '#']) && !text.contains("//") => {
                Ok(PathPattern::Below(text.trim_matches('/').to_owned()))
            }
            _ => Err("write a path, such as /assets/, or an ending, such as *.css".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_port_and_last_dot() {
        let matches =
            |pattern: &str, host: &str| pattern.parse::<HostPattern>().unwrap().matches(host.as_bytes());
        for host in ["example.org", "EXAMPLE.org:8080", "example.org."] {
            assert!(matches("Example.org", host), "{host}");
        }
        assert!(!matches("example.org", "www.example.org"));
        assert!(matches("*.example.org", "a.b.example.ORG:1"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("*.example.org", ".example.org"));
        assert!(!matches("*.example.org", "badexample.org"));
        assert!(matches("[::1]", "[::1]:8080") && matches("[::1]", "[::1]"));
        assert!(!matches("example.org", ""));
        for wrong in ["", "*", "*.", "a b", "http://a", "a:80", "[a]"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_path_has_what_is_below_it_and_not_what_begins_like_it() {
        let matches =
            |pattern: &str, path: &str| pattern.parse::<PathPattern>().unwrap().matches(path.as_bytes());
        for pattern in ["/a", "/a/"] {
            assert!(
                matches(pattern, "a")
                    && matches(pattern, "a/b")
                    && !matches(pattern, "ab")
                    && !matches(pattern, "")
            );
        }
        assert!(matches("*.css", "x/y.css") && !matches("*.css", "x.css/y"));
        assert!(matches("/", "anything") && matches("/", ""));
        for wrong in ["", "a", "*", "/a*", "*/a"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong:?}");
        }
    }
}
