//! How values are written that several flags have: sizes and addresses.

use std::net::{SocketAddr, ToSocketAddrs};

/// `HOST:PORT` or `[IPV6]:PORT`, with a name or an address as the host.
pub(crate) fn resolve(text: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                "write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned()
            }
            _ => {
                format!("{text} is not found: {error}; write an address that exists, such as 127.0.0.1:8080")
            }
        })?
        .collect();
    if addresses.is_empty() { Err(format!("the name {text} has no address")) } else { Ok(addresses) }
}

/// What a parser says of a value, with what to write in place of what the standard library says.
pub(crate) fn what_to_write(why: &str) -> String {
    let ours = [
        ("invalid digit found in string", "write a whole number"),
        ("cannot parse integer from empty string", "write a whole number"),
        ("number too large to fit in target type", "write a smaller number"),
        ("invalid socket address syntax", "write ADDR:PORT, such as 192.0.2.1:8080"),
    ];
    ours.iter().fold(why.to_owned(), |said, (theirs, ours)| said.replace(theirs, ours))
}

/// A number of bytes, or of KiB, MiB or GiB by the letter behind it.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.ok_or_else(|| "write a number of bytes, or of KiB, MiB or GiB, such as 16M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("300000", 300_000), ("512k", 512 << 10), ("16M", 16 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "M", "-1M", "1.5G", "16MiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
