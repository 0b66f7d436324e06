//! The order in which the addresses of a name are tried (RFC 6724, 6): that of getaddrinfo(3) without a
//! gai.conf(5).

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Labels and precedences (RFC 6724, 2.1): the longest prefix counts.
const POLICY: [(Ipv6Addr, u32, u8, u8); 9] = [
    (Ipv6Addr::LOCALHOST, 128, 50, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 35, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 1, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 30, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 1, 12),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 1, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 3, 13),
    (Ipv6Addr::UNSPECIFIED, 0, 40, 1),
];

/// Sorts `addresses` in the order in which they are tried. Equal ones stay in their order.
pub(super) fn sort(addresses: &mut [IpAddr]) {
    addresses.sort_by_cached_key(|address| rank(*address, source(*address)));
}

/// The address from which this machine would connect to `address`; `None` where it has no way there.
fn source(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Connecting sends nothing (connect(2)), so any port will do.
    socket.connect((address, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A rank by rules 1, 2, 5, 6, 8 and 9 of the section; the least is tried first. Rules 3, 4 and 7 are about
/// what only the kernel knows of its addresses.
fn rank(to: IpAddr, from: Option<IpAddr>) -> impl Ord {
    let (precedence, label) = policy(to);
    let is_other_scope = from.is_none_or(|from| scope(from) != scope(to));
    let is_other_label = from.is_none_or(|from| policy(from).1 != label);
    let common = match (from, to) {
        (Some(IpAddr::V6(from)), IpAddr::V6(to)) => (from.to_bits() ^ to.to_bits()).leading_zeros().min(64),
        _ => 0,
    };
    (from.is_none(), is_other_scope, is_other_label, Reverse(precedence), scope(to), Reverse(common))
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Precedence and label.
fn policy(address: IpAddr) -> (u8, u8) {
    let bits = as_v6(address).to_bits();
    let is_in = |prefix: Ipv6Addr, len: u32| (bits ^ prefix.to_bits()).leading_zeros() >= len;
    let found = POLICY.iter().find(|(prefix, len, ..)| is_in(*prefix, *len));
    found.map_or((0, 0), |(.., precedence, label)| (*precedence, *label))
}

/// How far an address reaches: 2 one link, 5 a site, 14 everywhere (RFC 6724, 3.1 and 3.2).
fn scope(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_link_local() => 2,
        IpAddr::V4(_) => 14,
        IpAddr::V6(ip) if ip.is_multicast() => ip.octets()[1] & 0xf,
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unicast_link_local() => 2,
        IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfec0 => 5,
        IpAddr::V6(_) => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The examples of RFC 6724, 10.2, that have one candidate as source: that one comes first, though it
    /// stands behind.
    #[test]
    fn the_examples_of_the_rfc() {
        for (first, from_first, second, from_second) in [
            ("2001:db8:1::1", Some("2001:db8:1::2"), "198.51.100.121", Some("169.254.13.78")),
            ("198.51.100.121", Some("198.51.100.117"), "2001:db8:1::1", Some("fe80::1")),
            ("2001:db8:1::1", Some("2001:db8:1::2"), "10.1.2.3", Some("10.1.2.4")),
            ("fe80::1", Some("fe80::2"), "2001:db8:1::1", Some("2001:db8:1::2")),
            ("2001:db8:1::1", Some("2001:db8:1::2"), "2002:c633:6401::1", Some("2001:db8:1::2")),
            ("198.51.100.1", Some("198.51.100.2"), "2001:db8::1", None),
            ("::1", Some("::1"), "127.0.0.1", Some("127.0.0.1")),
            ("2001:db8:1::1", Some("2001:db8:1::2"), "2001:db8:3ffe::1", Some("2001:db8:1::2")),
        ] {
            let rank = |to: &str, from: Option<&str>| rank(ip(to), from.map(ip));
            assert!(rank(first, from_first) < rank(second, from_second), "{first} before {second}");
        }
    }

    #[test]
    fn those_alike_stay_as_they_are() {
        let mut addresses = ["127.0.0.2", "127.0.0.1", "127.0.0.3"].map(ip);
        sort(&mut addresses);
        assert_eq!(addresses, ["127.0.0.2", "127.0.0.1", "127.0.0.3"].map(ip));
    }
}
