//! The parser against the crate `ppp`, which many use.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::{v1, v2};
use proptest::prelude::*;

use super::{Header, Parsed, parse};

fn same_family() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (any::<Ipv4Addr>(), any::<u16>(), any::<Ipv4Addr>(), any::<u16>())
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    let v6 = (any::<Ipv6Addr>(), any::<u16>(), any::<Ipv6Addr>(), any::<u16>())
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    prop_oneof![v4, v6]
}

/// What the oracle takes version 1 for.
fn oracle_v1(bytes: &[u8]) -> Option<(Option<(SocketAddr, SocketAddr)>, usize)> {
    let header = v1::Header::try_from(bytes).ok()?;
    let addresses = match header.addresses {
        v1::Addresses::Tcp4(a) => Some((
            SocketAddr::from((a.source_address, a.source_port)),
            SocketAddr::from((a.destination_address, a.destination_port)),
        )),
        v1::Addresses::Tcp6(a) => Some((
            SocketAddr::from((a.source_address, a.source_port)),
            SocketAddr::from((a.destination_address, a.destination_port)),
        )),
        v1::Addresses::Unknown => None,
    };
    Some((addresses, header.header.len()))
}

/// What it takes version 2 for.
fn oracle_v2(bytes: &[u8]) -> Option<(Option<(SocketAddr, SocketAddr)>, usize)> {
    let header = v2::Header::try_from(bytes).ok()?;
    let addresses = match (header.command, header.protocol, header.addresses) {
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(a)) => Some((
            SocketAddr::from((a.source_address, a.source_port)),
            SocketAddr::from((a.destination_address, a.destination_port)),
        )),
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(a)) => Some((
            SocketAddr::from((a.source_address, a.source_port)),
            SocketAddr::from((a.destination_address, a.destination_port)),
        )),
        _ => None,
    };
    Some((addresses, header.header.len()))
}

fn ours(bytes: &[u8]) -> Option<(Option<(SocketAddr, SocketAddr)>, usize)> {
    match parse(bytes) {
        Parsed::Complete(Header::Unknown, len) => Some((None, len)),
        Parsed::Complete(Header::Addresses { from, to }, len) => Some((Some((from, to)), len)),
        Parsed::Partial | Parsed::Wrong(_) => None,
    }
}

proptest! {
    /// What the oracle writes is read as it was meant, whatever comes behind it, and is partial before.
    #[test]
    fn what_others_write_is_read((from, to) in same_family(), behind in prop::collection::vec(any::<u8>(), 0..64), cut in any::<prop::sample::Index>()) {
        let line = v1::Addresses::from((from, to)).to_string();
        let addresses = v2::Addresses::from((from, to));
        let built = v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, addresses);
        let tlv = built.write_tlv(v2::Type::NoOp, &behind).unwrap().build().unwrap();
        for header in [line.into_bytes(), tlv] {
            let all = [header.as_slice(), &behind].concat();
            prop_assert_eq!(parse(&all), Parsed::Complete(Header::Addresses { from, to }, header.len()));
            prop_assert_eq!(parse(&header[..cut.index(header.len())]), Parsed::Partial);
        }
    }

    /// Where both take something for a header, they take it for the same; and what we take, the oracle takes.
    #[test]
    fn a_header_with_a_byte_changed_is_read_as_the_oracle_reads_it(
        (from, to) in same_family(), at in any::<prop::sample::Index>(), byte in any::<u8>(), second in any::<bool>()
    ) {
        let mut header = if second {
            let addresses = v2::Addresses::from((from, to));
            v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, addresses).build().unwrap()
        } else {
            v1::Addresses::from((from, to)).to_string().into_bytes()
        };
        let at = at.index(header.len());
        header[at] = byte;
        let (ours, oracle) = (ours(&header), if second { oracle_v2(&header) } else { oracle_v1(&header) });
        if let (Some(ours), Some(oracle)) = (ours, oracle) {
            prop_assert_eq!(ours, oracle);
        }
    }

    /// Nothing is too much, and what is partial is not so for ever.
    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..300), beginning in 0..3usize) {
        let begun = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][beginning];
        let all = [begun, &bytes].concat();
        if let Parsed::Complete(_, len) = parse(&all) {
            prop_assert!(len <= all.len());
        }
        prop_assert!(parse(&[all.as_slice(), &[0; 5000]].concat()) != Parsed::Partial);
    }
}
