//! The address of a socket: an IP address and port, a path, an abstract name.

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;

use rustix::net::addr::SocketAddrArg;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use crate::error::os;
use crate::{Error, ErrorKind, Result};

/// An address of either family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Ip(SocketAddr),
    Path(PathBuf),
    /// A name that no file has, without its leading zero byte (`unix(7)`).
    Abstract(Vec<u8>),
    /// One end of a socket pair, or a client that was not bound.
    Unnamed,
}

impl Place {
    /// The address of `socket`.
    pub(crate) fn of(socket: impl AsFd) -> Result<Self> {
        let address = rustix::net::getsockname(socket)
            .map_err(|e| Error::io("cannot ask for a socket's address", os(e)))?;
        Self::read(&address)
    }

    /// The address of the peer of `socket`.
    pub(crate) fn of_peer(socket: impl AsFd) -> Result<Self> {
        let address = rustix::net::getpeername(socket)
            .map_err(|e| Error::io("cannot ask for the peer's address", os(e)))?;
        // A peer without a name has no address at all.
        address.as_ref().map_or(Ok(Self::Unnamed), Self::read)
    }

    /// Converts an address from the kernel.
    pub(crate) fn read(address: &SocketAddrAny) -> Result<Self> {
        if address.address_family() != AddressFamily::UNIX {
            return SocketAddr::try_from(address.clone()).map(Self::Ip).map_err(|_| {
                Error::new(ErrorKind::Io, "a socket's address is neither an IP address nor a Unix one")
            });
        }
        let address = SocketAddrUnix::try_from(address.clone())
            .map_err(|e| Error::io("cannot read a Unix socket's address", os(e)))?;
        Ok(match (address.path_bytes(), address.abstract_name()) {
            (Some(path), _) => Self::Path(OsStr::from_bytes(path).into()),
            // rustix gives "no address" the same form as an empty abstract name, which nobody uses.
            (None, Some(name)) if !name.is_empty() => Self::Abstract(name.to_vec()),
            (None, _) => Self::Unnamed,
        })
    }

    /// Converts it to the kernel's form.
    pub(crate) fn to_any(&self) -> Result<SocketAddrAny> {
        let long =
            |e| Error::with_source(ErrorKind::Input, format!("{self} is no address for a socket"), os(e));
        Ok(match self {
            Self::Ip(address) => address.as_any(),
            Self::Path(path) => SocketAddrUnix::new(path.as_path()).map_err(long)?.as_any(),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name).map_err(long)?.as_any(),
            Self::Unnamed => SocketAddrUnix::new_unnamed().as_any(),
        })
    }

    /// The kind of socket that can be there.
    pub(crate) fn family(&self) -> AddressFamily {
        match self {
            Self::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
            _ => AddressFamily::UNIX,
        }
    }

    /// The IP address.
    pub(crate) fn ip(self) -> Result<SocketAddr> {
        match self {
            Self::Ip(address) => Ok(address),
            other => Err(Error::new(ErrorKind::Io, format!("{other} is not an IP address"))),
        }
    }

    /// The Unix address, in the standard library's type.
    pub(crate) fn unix(self) -> Result<UnixAddr> {
        let made = match &self {
            Self::Path(path) => UnixAddr::from_pathname(path),
            Self::Abstract(name) => UnixAddr::from_abstract_name(name),
            // The standard library makes one in no other way, because an empty path becomes an empty abstract
            // name.
            Self::Unnamed => UnixDatagram::unbound().and_then(|socket| socket.local_addr()),
            Self::Ip(address) => {
                return Err(Error::new(ErrorKind::Io, format!("{address} is not a Unix address")));
            }
        };
        made.map_err(|e| Error::io(format!("cannot express {self}"), e))
    }
}

impl From<&UnixAddr> for Place {
    fn from(address: &UnixAddr) -> Self {
        match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => Self::Path(path.to_owned()),
            (None, Some(name)) => Self::Abstract(name.to_owned()),
            (None, None) => Self::Unnamed,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Self::Unnamed => f.write_str("a socket without a name"),
        }
    }
}
