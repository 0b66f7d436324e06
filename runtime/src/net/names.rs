//! The target of a connect: an address, or a name that has to be looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

use crate::{Error, ErrorKind, Result, spawn_blocking};

/// An address, or a host's name and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// An address, which needs no look-up.
    Address(SocketAddr),
    /// A name, which [`lookup_host`] looks up.
    Name {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Target {
    fn name(host: &str, port: u16) -> Self {
        match host.parse::<IpAddr>() {
            Ok(address) => Self::Address(SocketAddr::new(address, port)),
            Err(_) => Self::Name { host: host.to_owned(), port },
        }
    }

    /// `host:port`, `127.0.0.1:80` or `[::1]:80`.
    fn parsed(text: &str) -> Result<Self> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let wrong = || {
            let what = format!(
                "{text:?} is no place to connect to; write host:port, such as localhost:80 or [::1]:80"
            );
            Error::new(ErrorKind::Input, what)
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // A colon in a host means an IPv6 address without its brackets.
        if host.is_empty() || host.contains(':') {
            return Err(wrong());
        }
        Ok(Self::Name { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A target to connect to: an address, `"host:port"`, `("host", port)`.
pub trait ToTarget {
    /// The place.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a text that is no address and no `host:port`.
    fn to_target(self) -> Result<Target>;
}

impl ToTarget for Target {
    fn to_target(self) -> Result<Target> {
        Ok(self)
    }
}

macro_rules! addresses {
    ($($type:ty),+) => {$(
        impl ToTarget for $type {
            #[inline]
            fn to_target(self) -> Result<Target> {
                Ok(Target::Address(self.into()))
            }
        }
    )+};
}

addresses!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToTarget for &SocketAddr {
    #[inline]
    fn to_target(self) -> Result<Target> {
        Ok(Target::Address(*self))
    }
}

impl ToTarget for &str {
    fn to_target(self) -> Result<Target> {
        Target::parsed(self)
    }
}

impl ToTarget for &String {
    fn to_target(self) -> Result<Target> {
        Target::parsed(self)
    }
}

impl ToTarget for String {
    fn to_target(self) -> Result<Target> {
        Target::parsed(&self)
    }
}

impl ToTarget for (&str, u16) {
    fn to_target(self) -> Result<Target> {
        Ok(Target::name(self.0, self.1))
    }
}

impl ToTarget for (String, u16) {
    fn to_target(self) -> Result<Target> {
        Ok(Target::name(&self.0, self.1))
    }
}

/// The addresses of a host, in the order in which they should be tried (RFC 6724), each once. For an address
/// it returns just that. The C library looks the name up (`getaddrinfo(3)`), by `/etc/hosts`, DNS, or
/// whatever `/etc/nsswitch.conf` says, on a [blocking thread](crate::spawn_blocking).
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// let addresses = annulus::net::lookup_host(("localhost", 80)).await?;
/// assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Errors
/// [`ErrorKind::Input`] for a text that is no `host:port`; [`ErrorKind::Io`], naming the host, when it has no
/// address or nobody answers, after as long as `resolv.conf(5)` says: a [`timeout`](crate::time::timeout)
/// around it bounds the wait.
///
/// # Cancellation
/// Safe. The thread goes on until it has an answer.
pub async fn lookup_host(target: impl ToTarget) -> Result<Vec<SocketAddr>> {
    match target.to_target()? {
        Target::Address(address) => Ok(vec![address]),
        Target::Name { host, port } => addresses_of(host, port).await,
    }
}

/// The addresses of a name.
pub(super) async fn addresses_of(host: String, port: u16) -> Result<Vec<SocketAddr>> {
    let found = spawn_blocking(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        (found, host)
    });
    let (found, host) = found.await?;
    let failed = |e| Error::io(format!("cannot find the host {host}"), e);
    let mut addresses = Vec::new();
    for address in found.map_err(failed)? {
        // There are few of them, and `/etc/hosts` may name one twice.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_says_where_to_connect_to_is_an_address_a_name_or_wrong() {
        let name = |host: &str, port| Target::Name { host: host.to_owned(), port };
        let address = |text: &str| Target::Address(text.parse().unwrap());
        for (text, target) in [
            ("127.0.0.1:80", address("127.0.0.1:80")),
            ("[::1]:80", address("[::1]:80")),
            ("localhost:8080", name("localhost", 8080)),
            ("a.b-c.example:0", name("a.b-c.example", 0)),
        ] {
            assert_eq!(text.to_target().unwrap(), target);
            assert_eq!(text.to_owned().to_target().unwrap().to_string(), text);
        }
        for wrong in
            ["", "localhost", ":80", "localhost:", "localhost:http", "localhost:65536", "::1", "::1:80"]
        {
            let e = wrong.to_target().unwrap_err();
            assert!(e.kind() == ErrorKind::Input && e.to_string().contains("host:port"), "{wrong}: {e}");
        }
        assert_eq!(("::1", 80).to_target().unwrap(), address("[::1]:80"));
        assert_eq!(("10.0.0.1".to_owned(), 80).to_target().unwrap(), address("10.0.0.1:80"));
        assert_eq!(("host", 80).to_target().unwrap(), name("host", 80));
        assert_eq!((Ipv4Addr::LOCALHOST, 80).to_target().unwrap(), address("127.0.0.1:80"));
    }
}
