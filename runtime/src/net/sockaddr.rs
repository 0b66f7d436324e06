//! IP addresses in the kernel's form, small enough to lie in an operation's cell beside a buffer's handle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the larger of `sockaddr_in` and `sockaddr_in6` (`ip(7)`, `ipv6(7)`).
pub(crate) const MAX: usize = size_of::<libc::sockaddr_in6>();

/// A `sockaddr_in` or `sockaddr_in6`: family in the machine's order, port and address in the network's.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct SockAddr {
    bytes: [u8; MAX],
    len: u8,
}

impl SockAddr {
    pub(crate) fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> u32 {
        self.len.into()
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; MAX];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, MAX)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Self { bytes, len: len as u8 }
    }
}

/// Reads what the kernel wrote; `None` when it is no IP address.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let at = |from: usize| bytes.get(from..from + 4)?.try_into().ok();
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(at(4)?)), port)),
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let (flow, scope) = (u32::from_be_bytes(at(4)?), u32::from_ne_bytes(at(24)?));
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_and_as_rustix_has_them() {
        use rustix::net::addr::SocketAddrArg;
        for text in ["192.0.2.7:4711", "[2001:db8::7%3]:53", "0.0.0.0:0", "[::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let ours = SockAddr::from(address);
            let bytes = &ours.bytes[..ours.len() as usize];
            assert_eq!(parse(bytes), Some(address));
            let theirs = address.as_any();
            assert_eq!(theirs.addr_len(), ours.len());
            // SAFETY: rustix has initialised as many bytes as it says.
            let theirs = unsafe { std::slice::from_raw_parts(theirs.as_ptr().cast::<u8>(), bytes.len()) };
            assert_eq!(theirs, bytes);
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&(libc::AF_UNIX as u16).to_ne_bytes()), None);
    }
}
