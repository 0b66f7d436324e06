//! Where to relay to, as it is written: `ADDR [weight=N]`, several with commas.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::listen::address::unix_address;

/// Some upstreams, as one `--to` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamList(pub(super) Vec<UpstreamAddress>);

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamAddress {
    pub(super) target: Target,
    /// Its share of connections, beside those of the others.
    pub(super) weight: u32,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address.
    Ip(SocketAddr),
    /// A name and a port, to be looked up again and again.
    Name(String, u16),
    /// A path, or an abstract name, which begins with `@`.
    Unix(String),
}

/// As it is written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ip(address) => address.fmt(f),
            Target::Name(name, port) => write!(f, "{name}:{port}"),
            Target::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

const HOW: &str =
    "write HOST:PORT or unix:PATH, such as 127.0.0.1:8080 or [::1]:8080, and weight=N behind it";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            // Its length is what is wrong most often; the kernel takes 107 bytes (unix(7)).
            unix_address(path)
                .map_err(|error| format!("{error}; write unix:PATH or unix:@NAME, in at most 107 bytes"))?;
            return Ok(Target::Unix(path.to_owned()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(HOW.to_owned()) } else { Ok(Target::Ip(address)) };
        }
        let (name, port) = text.rsplit_once(':').ok_or(HOW)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(HOW)?;
        // Text that looks like an address was meant as one. No resolver is asked for it.
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let is_number = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if name.is_empty() || name.len() > 253 || !is_name || is_number {
            return Err(HOW.to_owned());
        }
        Ok(Target::Name(name.to_owned(), port))
    }
}

impl FromStr for UpstreamAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        let target = words.next().ok_or(HOW)?.parse()?;
        let mut weight = 1;
        for word in words {
            let value = word.strip_prefix("weight=").and_then(|value| value.parse().ok());
            weight = value
                .filter(|weight| (1..=1000).contains(weight))
                .ok_or_else(|| format!("{word:?} is no weight: write weight=N, with N from 1 to 1000"))?;
        }
        Ok(UpstreamAddress { target, weight })
    }
}

impl FromStr for UpstreamList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(UpstreamList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_write_upstreams() {
        let list = |text: &str| {
            let UpstreamList(list) = text.parse().unwrap();
            list.iter().map(|it| format!("{} {}", it.target, it.weight)).collect::<Vec<_>>()
        };
        assert_eq!(list("127.0.0.1:80"), ["127.0.0.1:80 1"]);
        assert_eq!(
            list("[::1]:80 weight=3,b.example:81, unix:/run/x weight=2"),
            ["[::1]:80 3", "b.example:81 1", "unix:/run/x 2"]
        );
        assert_eq!(list("unix:@name"), ["unix:@name 1"]);
    }

    #[test]
    fn what_is_none_is_told_how_to_write_one() {
        for (text, word) in [
            ("", "HOST:PORT"),
            ("80", "HOST:PORT"),
            ("localhost", "HOST:PORT"),
            ("localhost:0", "HOST:PORT"),
            ("127.0.0.1:0", "HOST:PORT"),
            ("127.0.0.1.5:80", "HOST:PORT"),
            ("::1:80", "HOST:PORT"),
            ("a b:80", "HOST:PORT"),
            ("unix:", "unix:PATH"),
            ("127.0.0.1:80 weight=0", "weight=N"),
            ("127.0.0.1:80 wieght=2", "weight=N"),
            ("127.0.0.1:80,", "HOST:PORT"),
        ] {
            let error = text.parse::<UpstreamList>().unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
