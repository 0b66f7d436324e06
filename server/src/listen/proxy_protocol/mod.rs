//! The PROXY protocol, versions 1 and 2: what a proxy in front says of the connection that it relays
//! (`doc/proxy-protocol.txt` of HAProxy, 2020). Bytes in, a header out.

#[cfg(test)]
mod properties;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bytes of a version 1 header with its CRLF, at most (2.1).
const LONGEST_V1: usize = 107;
/// How every version 2 header begins (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before the addresses.
const HEAD_V2: usize = 16;
/// Bytes of addresses and extensions that are taken. The protocol allows 65,535; nobody sends so many.
const LONGEST_V2: usize = 4096;

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The beginning of a header: more bytes, please.
    Partial,
    /// A header, and how many bytes it took.
    Complete(Header, usize),
    /// No header, and why.
    Wrong(&'static str),
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// The proxy speaks for itself, or of a connection that has no IP addresses: what the socket says holds.
    Unknown,
    /// The addresses of the connection that is relayed.
    Addresses {
        /// Who connected to the proxy.
        from: SocketAddr,
        /// The address that it connected to.
        to: SocketAddr,
    },
}

/// Reads a header from the beginning of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return Parsed::Partial;
    }
    if bytes.starts_with(b"PROXY ") {
        version_1(bytes)
    } else {
        Parsed::Wrong("it begins with no PROXY header")
    }
}

/// A line: `PROXY TCP4 FROM TO FROM-PORT TO-PORT`, or `PROXY UNKNOWN` and whatever.
fn version_1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        let is_over = bytes.len() >= LONGEST_V1;
        return if is_over {
            Parsed::Wrong("the line does not end within 107 bytes")
        } else {
            Parsed::Partial
        };
    };
    let Ok(line) = std::str::from_utf8(&bytes[b"PROXY ".len()..end]) else {
        return Parsed::Wrong("the line is no text");
    };
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Complete(Header::Unknown, end + 2);
    }
    match addresses_1(line) {
        Some(header) => Parsed::Complete(header, end + 2),
        None => Parsed::Wrong("the line is not: PROXY TCP4|TCP6 and two addresses and two ports"),
    }
}

fn addresses_1(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let (from, to) = (words.next()?, words.next()?);
    let (from_port, to_port) = (port(words.next()?)?, port(words.next()?)?);
    let (from, to) = match family {
        "TCP4" => (ip::<Ipv4Addr>(from)?, ip::<Ipv4Addr>(to)?),
        "TCP6" => (ip::<Ipv6Addr>(from)?, ip::<Ipv6Addr>(to)?),
        _ => return None,
    };
    let is_all = words.next().is_none();
    is_all.then(|| Header::Addresses { from: (from, from_port).into(), to: (to, to_port).into() })
}

fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// A port in decimal, without zeros before it (2.1).
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Twelve bytes that no other protocol begins with, version and command, family and transport, the length
/// of what follows.
fn version_2(bytes: &[u8]) -> Parsed {
    let Some(head) = bytes.first_chunk::<HEAD_V2>() else { return Parsed::Partial };
    let [.., command, family, high, low] = *head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Parsed::Wrong("its version is neither 1 nor 2");
    }
    if len > LONGEST_V2 {
        return Parsed::Wrong("it is longer than 4,112 bytes");
    }
    // What is said of the addresses is judged when it is there.
    let Some(rest) = bytes[HEAD_V2..].get(..len) else { return Parsed::Partial };
    let complete = |header| Parsed::Complete(header, HEAD_V2 + len);
    match (command & 0xf, family) {
        // LOCAL: a health check of the proxy itself.
        (0, _) => complete(Header::Unknown),
        (1, 0x11) => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, e, f, g, h, p0, p1, q0, q1]) => complete(Header::Addresses {
                from: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1])).into(),
                to: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([q0, q1])).into(),
            }),
            None => Parsed::Wrong("its addresses are cut off"),
        },
        (1, 0x21) => match rest.first_chunk::<36>() {
            Some(addresses) => complete(addresses_6(addresses)),
            None => Parsed::Wrong("its addresses are cut off"),
        },
        // UNSPEC, UDP, Unix: there is no TCP address to take.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => complete(Header::Unknown),
        (1, _) => Parsed::Wrong("its address family is unknown"),
        _ => Parsed::Wrong("its command is neither LOCAL nor PROXY"),
    }
}

fn addresses_6(addresses: &[u8; 36]) -> Header {
    let ip = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&addresses[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    Header::Addresses { from: (ip(0), port(32)).into(), to: (ip(16), port(34)).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(from: &str, to: &str) -> Header {
        Header::Addresses { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn version_1() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\nGET /";
        assert_eq!(parse(line), Parsed::Complete(addresses("192.0.2.1:5000", "198.51.100.2:443"), 44));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(parse(line), Parsed::Complete(addresses("[2001:db8::1]:1", "[::1]:65535"), line.len()));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nx"), Parsed::Complete(Header::Unknown, 15));
        assert_eq!(parse(b"PROXY UNKNOWN ffff::1 x 1 2\r\n"), Parsed::Complete(Header::Unknown, 29));
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 05 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 5 70000\r\n",
            "PROXY TCP4 ::1 ::1 5 7\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 5 7\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 5 7\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY\r\n",
        ] {
            assert!(matches!(parse(wrong.as_bytes()), Parsed::Wrong(_)), "{wrong:?}");
        }
        assert!(matches!(parse(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 96]].concat()), Parsed::Wrong(_)));
        assert_eq!(parse(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 95]].concat()), Parsed::Partial);
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &len, rest].concat()
    }

    #[test]
    fn version_2() {
        let rest = [192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 0x01, 0xbb, 0x04, 0, 1, 9];
        let header = v2(0x21, 0x11, &rest);
        assert_eq!(parse(&header), Parsed::Complete(addresses("192.0.2.1:5000", "198.51.100.2:443"), 32));
        assert_eq!(parse(&v2(0x20, 0x00, &[])), Parsed::Complete(Header::Unknown, 16));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Parsed::Complete(Header::Unknown, 232));
        for wrong in [
            v2(0x11, 0x11, &rest),
            v2(0x22, 0x11, &rest),
            v2(0x21, 0x11, &rest[..11]),
            v2(0x21, 0x21, &rest),
            v2(0x21, 0x41, &rest),
            v2(0x21, 0x11, &[0; 4097]),
        ] {
            assert!(matches!(parse(&wrong), Parsed::Wrong(_)), "{wrong:?}");
        }
    }

    /// However the network cuts it: what is cut off is partial, and nothing behind it changes what it says.
    #[test]
    fn a_header_is_partial_until_its_last_byte() {
        let rest = [0; 36];
        for header in [b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(), v2(0x21, 0x21, &rest)] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Parsed::Partial, "{end} of {header:?}");
            }
            let whole = parse(&header);
            assert!(matches!(whole, Parsed::Complete(_, len) if len == header.len()));
            assert_eq!(parse(&[header.as_slice(), b"\r\n\0more"].concat()), whole);
        }
    }
}
