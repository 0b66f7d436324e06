//! Hosts as RFC 3986 3.2.2 has them: what a Host field and an absolute target may say.

use std::net::Ipv6Addr;

use super::bytes::alphanumeric_and;

/// Whether `value` is `uri-host [ ":" port ]` (RFC 9110 7.2, RFC 3986 3.2.2), with a host that is not empty.
///
/// No user name: `http://trusted@evil/` is a trick, not an address.
pub(crate) fn is_host_and_port(value: &[u8]) -> bool {
    let (host_ok, rest) = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&b| b == b']') else {
            return false;
        };
        (is_ip_literal(&literal[..end]), &literal[end + 1..])
    } else {
        let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
        (end > 0 && is_name(&value[..end]), &value[end..])
    };
    let port_ok = match rest {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    host_ok && port_ok
}

/// Digits, or none at all (RFC 3986 3.2.3), that make a number a port can have.
fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0u32, |sum, digit| {
        let sum = sum.checked_mul(10)?.checked_add(u32::from(*digit).checked_sub(48).filter(|d| *d < 10)?)?;
        (sum <= u32::from(u16::MAX)).then_some(sum)
    });
    number.is_some()
}

/// RFC 3986 `reg-name`, of which an IPv4 address is one too: unreserved, sub-delims, and whole percent
/// escapes.
fn is_name(name: &[u8]) -> bool {
    const NAME: [bool; 256] = alphanumeric_and(b"-._~%!$&'()*+,;=");
    name.iter().all(|&b| NAME[b as usize])
        && (memchr::memchr(b'%', name).is_none() || escapes_are_whole(name))
}

/// Whether two hexadecimal digits follow each percent sign.
pub(crate) fn escapes_are_whole(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text)
        .all(|at| text.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

/// RFC 3986 `IP-literal` between its brackets: an IPv6 address without a zone, or `IPvFuture`.
fn is_ip_literal(literal: &[u8]) -> bool {
    if let [b'v' | b'V', rest @ ..] = literal {
        const FUTURE: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+,;=:");
        let Some(dot) = rest.iter().position(|&b| b == b'.') else { return false };
        let (version, address) = (&rest[..dot], &rest[dot + 1..]);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|&b| FUTURE[b as usize]);
    }
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_taken() {
        for host in [
            "localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "[1:2:3:4:5:6:7:8]",
            "[::ffff:1.2.3.4]:1",
            "[v1.fe80::a+en1]",
            "a-b.example",
            "a:",
            "x_y",
            "%41",
            "a!$&'()*+,;=~b",
            "a:065535",
        ] {
            assert!(is_host_and_port(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_refused() {
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:99999999999999999999",
            "a:+1",
            "[::1",
            "[]",
            "[::1]x",
            "[1:2]",
            "[:::1]",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "[v1]",
            "[v.a]",
            "[v1.]",
            "::1",
            "한",
            "a?b",
            "a#b",
            "a\\b",
            "%",
            "%4",
            "%4g",
            "a\"b",
        ] {
            assert!(!is_host_and_port(host.as_bytes()), "{host}");
        }
    }
}
