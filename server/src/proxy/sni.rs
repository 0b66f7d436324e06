//! Routes TLS by server name without decrypting it: the name is read from the ClientHello, and every byte is
//! sent on unchanged.
//!
//! The parser has no I/O. It is given what has come so far, and says what is known by then. A ClientHello may
//! come in any segments, and lie in several records (RFC 8446, 5.1; 4.1.2; RFC 6066, 3).

use std::str::FromStr;

use super::address::UpstreamList;

/// Bytes of a ClientHello that are waited for at most; the largest known have a few kilobytes (post-quantum
/// key shares).
pub(super) const LONGEST: usize = 32 << 10;

/// What is known of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// More has to come.
    NotYet,
    /// It asks for this name, in lower case.
    Name(String),
    /// It asks for none.
    NoName,
    /// It is none.
    NotTls,
}

/// A name, and where connections that ask for it go: `NAME=ADDR`. `*.NAME` is every name with one label more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SniRoute {
    name: String,
    pub(super) to: UpstreamList,
}

impl FromStr for SniRoute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, to) = text.split_once('=').ok_or("write NAME=ADDR, such as a.example=10.0.0.1:443")?;
        let rest = name.strip_prefix("*.").unwrap_or(name);
        let is_name = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if rest.is_empty() || !is_name {
            return Err(format!("{name:?} is no name: write NAME=ADDR, or *.NAME=ADDR"));
        }
        Ok(SniRoute { name: name.to_ascii_lowercase(), to: to.parse()? })
    }
}

impl SniRoute {
    /// Whether it is for this name: exactly, or by its wildcard.
    fn fits(&self, name: &str) -> Option<bool> {
        if self.name == name {
            return Some(true);
        }
        let rest = self.name.strip_prefix('*')?;
        let label = name.strip_suffix(rest)?;
        (!label.is_empty() && !label.contains('.')).then_some(false)
    }
}

/// The place of the route for a name: an exact one before a wildcard.
pub(super) fn route(routes: &[SniRoute], name: &str) -> Option<usize> {
    let exact = routes.iter().position(|route| route.fits(name) == Some(true));
    exact.or_else(|| routes.iter().position(|route| route.fits(name).is_some()))
}

/// What `bytes`, the beginning of a connection, say.
pub(super) fn hello(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = Reader(bytes);
    loop {
        // TLSPlaintext: handshake, version 3.x, length.
        match rest.0 {
            [] => return Hello::NotYet,
            [22] | [22, 3] => return Hello::NotYet,
            [22, 3, ..] => {}
            _ => return Hello::NotTls,
        }
        let Some(length) = rest.0.get(3..5).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]]))) else {
            return Hello::NotYet;
        };
        // 2^14 at most, and an empty fragment is none of a handshake (5.1).
        if length == 0 || length > 1 << 14 {
            return Hello::NotTls;
        }
        let fragment = &rest.0[5..];
        message.extend_from_slice(&fragment[..length.min(fragment.len())]);
        match client_hello(&message) {
            Hello::NotYet if fragment.len() > length => rest.0 = &fragment[length..],
            known => return known,
        }
    }
}

/// A handshake message, as far as it has come.
fn client_hello(message: &[u8]) -> Hello {
    match message.first() {
        None => return Hello::NotYet,
        Some(1) => {}
        Some(_) => return Hello::NotTls,
    }
    let Some(length) = message.get(1..4) else { return Hello::NotYet };
    let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
    if length > LONGEST {
        return Hello::NotTls;
    }
    match message.get(4..4 + length) {
        None => Hello::NotYet,
        Some(body) => server_name(body).unwrap_or(Hello::NotTls),
    }
}

/// The body of a whole ClientHello; `None` where it is not well-formed.
fn server_name(body: &[u8]) -> Option<Hello> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.0.is_empty() {
        return Some(Hello::NoName);
    }
    let mut extensions = Reader(body.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        if kind != 0 {
            continue;
        }
        let mut list = Reader(Reader(data).vector16()?);
        while !list.0.is_empty() {
            let kind = list.take(1)?[0];
            let name = list.vector16()?;
            if kind == 0 {
                let is_name = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic());
                let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
                return Some(Hello::Name(name.trim_end_matches('.').to_ascii_lowercase()));
            }
        }
    }
    Some(Hello::NoName)
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with its length in one byte before it.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = self.take(1)?[0];
        self.take(n.into())
    }

    /// A vector with its length in two bytes before it.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(len_bytes: usize, content: &[u8]) -> Vec<u8> {
        let len = (content.len() as u32).to_be_bytes();
        [&len[4 - len_bytes..], content].concat()
    }

    /// A ClientHello in records of at most `record` bytes.
    fn client_hello_for(name: Option<&str>, record: usize) -> Vec<u8> {
        let mut extensions = [&[0, 43][..], &vector(2, &[2, 3, 4])].concat();
        if let Some(name) = name {
            let entry = [&[0][..], &vector(2, name.as_bytes())].concat();
            extensions.extend([&[0, 0][..], &vector(2, &vector(2, &entry))].concat());
        }
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[9; 32]),
            &vector(2, &[0x13, 1]),
            &vector(1, &[0]),
            &vector(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &vector(3, &body)].concat();
        message.chunks(record).flat_map(|part| [&[22, 3, 1][..], &vector(2, part)].concat()).collect()
    }

    #[test]
    fn what_begins_otherwise_is_no_tls() {
        for no in [
            &b"GET / HTTP/1.1"[..],
            b"SSH-2.0",
            &[22, 2],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
            &[21, 3],
        ] {
            assert_eq!(hello(no), Hello::NotTls, "{no:?}");
        }
    }

    #[test]
    fn routes_are_exact_before_they_are_wild() {
        let routes: Vec<SniRoute> = ["*.Example.com=10.0.0.1:1", "a.example.com=10.0.0.2:1,10.0.0.3:1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let found = |name| route(&routes, name);
        assert_eq!((found("a.example.com"), found("b.example.com")), (Some(1), Some(0)));
        assert_eq!(
            (found("example.com"), found("x.b.example.com"), found("example.org")),
            (None, None, None)
        );
        for no in ["", "a", "=10.0.0.1:1", "a b=10.0.0.1:1", "*=10.0.0.1:1", "a=", "a=10.0.0.1"] {
            assert!(no.parse::<SniRoute>().is_err(), "{no}");
        }
    }

    proptest! {
        /// Any segments, any records: not known until it is whole, and then what was written.
        ///
        /// Seen to fail: with the first record taken for the whole message.
        #[test]
        fn a_name_is_found_in_any_segmentation(
            name in prop::option::of("[a-zA-Z0-9]{1,20}(\\.[a-z]{1,9}){0,3}"), record in 1..400_usize, cut in any::<prop::sample::Index>()
        ) {
            let bytes = client_hello_for(name.as_deref(), record);
            let due = name.map_or(Hello::NoName, |name| Hello::Name(name.to_ascii_lowercase()));
            prop_assert_eq!(hello(&bytes), due.clone());
            prop_assert_eq!(hello(&[&bytes[..], b"more"].concat()), due);
            prop_assert_eq!(hello(&bytes[..cut.index(bytes.len())]), Hello::NotYet);
        }

        /// Any bytes have a verdict.
        #[test]
        fn nothing_is_too_much(mut bytes in prop::collection::vec(any::<u8>(), 0..600), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            hello(&bytes);
            bytes.splice(0..0, [22, 3, 1, 2, 0, 1]);
            hello(&bytes);
            let mut near = client_hello_for(Some("a.example"), 100);
            let at = at.index(near.len());
            near[at] = byte;
            hello(&near);
        }
    }
}
