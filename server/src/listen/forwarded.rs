//! The client that a trusted HTTP proxy in front names, in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy adds the address that asked it, at the end. So the list is read from its end, for as long as
//! the proxy that has added an entry is trusted. Anybody may have written what stands before.

use std::net::{IpAddr, SocketAddr};

use super::networks::Network;
use crate::log::access::Client as Address;

/// Which field names the client. A proxy that sets one passes the other on as it came, so only one can be
/// believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Field {
    /// `X-Forwarded-For`: addresses with commas.
    XForwardedFor,
    /// `Forwarded`, of which `for` is read.
    Forwarded,
}

/// The client, when `peer` has connected and the lines of the field are `lines`, joined in order.
pub(crate) fn client(peer: Address, trusted: &[Network], field: Field, lines: &[u8]) -> Address {
    let mut client = peer;
    let mut entries = split(lines, b',');
    while trusted.iter().any(|network| network.has(&client)) {
        let Some(entry) = entries.pop() else { break };
        let named = match field {
            Field::XForwardedFor => node(entry),
            Field::Forwarded => for_of(entry),
        };
        // A proxy that hides its client, or writes what is no address, is the last that is known.
        let Some(named) = named else { break };
        client = Address::Tcp(named);
    }
    client
}

/// The parts between separators that stand in no quoted string.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim_ascii().is_empty());
    parts
}

/// The `for` of an element of `Forwarded`.
fn for_of(element: &[u8]) -> Option<SocketAddr> {
    let pair = split(element, b';').into_iter().find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for").then_some(pair[equals + 1..].trim_ascii())
    })?;
    node(pair.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(pair))
}

/// An address with or without a port, which is 0 then; IPv6 stands in brackets, or bare as many write it.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bare = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip.to_canonical(), 0));
    let with_port = || text.parse::<SocketAddr>().ok().map(super::client::canonical);
    let bracketed = || bare(text.strip_prefix('[')?.strip_suffix(']')?);
    bare(text).or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(peer: &str, field: Field, lines: &str) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8", "unix"].map(|text| text.parse().unwrap());
        let peer = peer.parse().map_or(Address::Unix, |ip| Address::Tcp(SocketAddr::new(ip, 7)));
        match client(peer, &trusted, field, lines.as_bytes()) {
            Address::Tcp(address) => address.ip().to_string(),
            other => other.to_string(),
        }
    }

    #[test]
    fn the_list_is_believed_for_as_long_as_who_wrote_it_is_trusted() {
        for (peer, lines, client) in [
            ("192.0.2.9", "1.1.1.1", "192.0.2.9"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1 , 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", ",,", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, unknown", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1:5000", "1.1.1.1"),
            ("fd00::1", "2001:db8::1", "2001:db8::1"),
            ("fd00::1", "[2001:db8::1]:5", "2001:db8::1"),
            ("fd00::1", "::ffff:1.1.1.1", "1.1.1.1"),
            ("unix", "1.1.1.1", "1.1.1.1"),
        ] {
            assert_eq!(named(peer, Field::XForwardedFor, lines), client, "{peer}: {lines}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (lines, client) in [
            ("for=1.1.1.1", "1.1.1.1"),
            ("For=\"1.1.1.1:47\";proto=http;by=10.0.0.1", "1.1.1.1"),
            ("for=6.6.6.6, for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=1.1.1.1;by=\"a,b;c\"", "1.1.1.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("by=1.1.1.1", "10.0.0.1"),
            ("for=\"1.1.1.1", "10.0.0.1"),
        ] {
            assert_eq!(named("10.0.0.1", Field::Forwarded, lines), client, "{lines}");
        }
    }
}
