//! The PROXY protocol towards upstreams: who the client is, in front of its first byte.
//!
//! Versions 1 and 2 of haproxy.org/download/1.8/doc/proxy-protocol.txt.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;

/// Which version upstreams are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What version 2 begins with (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// The header for a connection from `source` to `destination`; where they are not both known, one that says
/// so.
pub(super) fn header(
    version: Version,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> Vec<u8> {
    let both = source.zip(destination).map(|(source, destination)| same_family(source, destination));
    match version {
        Version::V1 => text(both).into_bytes(),
        Version::V2 => binary(both),
    }
}

/// Both of IPv4 or both of IPv6: the header has one family.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    }
}

fn text(both: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((source, destination)) = both else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

fn binary(both: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    // AF_UNSPEC, AF_INET or AF_INET6, over a stream.
    let family = match both {
        None => 0x00,
        Some((source, _)) if source.is_ipv4() => 0x11,
        Some(_) => 0x21,
    };
    let mut addresses = Vec::new();
    if let Some((source, destination)) = both {
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(ip) => addresses.extend(ip.octets()),
                IpAddr::V6(ip) => addresses.extend(Ipv6Addr::octets(&ip)),
            }
        }
        addresses.extend(source.port().to_be_bytes());
        addresses.extend(destination.port().to_be_bytes());
    }
    header.extend([PROXY, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1() {
        let line = |from, to| String::from_utf8(header(Version::V1, from, to)).unwrap();
        assert_eq!(
            line(address("192.0.2.1:1000"), address("198.51.100.2:80")),
            "PROXY TCP4 192.0.2.1 198.51.100.2 1000 80\r\n"
        );
        assert_eq!(
            line(address("[2001:db8::1]:1"), address("[::1]:80")),
            "PROXY TCP6 2001:db8::1 ::1 1 80\r\n"
        );
        assert_eq!(
            line(address("[::ffff:192.0.2.1]:1"), address("192.0.2.2:80")),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n"
        );
        assert_eq!(
            line(address("192.0.2.1:1"), address("[2001:db8::1]:80")),
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 80\r\n"
        );
        assert_eq!(line(None, address("192.0.2.2:80")), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn bytes_of_version_2() {
        let v4 = header(Version::V2, address("192.0.2.1:258"), address("198.51.100.2:80"));
        assert_eq!(&v4[..12], SIGNATURE);
        assert_eq!(v4[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 0, 80]);
        let v6 = header(Version::V2, address("[2001:db8::1]:1"), address("[::1]:80"));
        assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(header(Version::V2, None, None)[12..], [0x21, 0, 0, 0]);
    }
}
