//! The sockets of an address: opened once, by the process that was started, and accepted from by every core.
//!
//! An IP address has a socket for each core, and the kernel spreads connections over them. A Unix address has
//! one socket, and so has one that a service manager passes. Each core has a descriptor of it, and the kernel
//! wakes the core that has waited longest.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use annulus::net::{
    ListenOptions, TcpListener, UdpSocket, UnixListener, UnixSocket, datagram_sockets, listening_sockets,
};
use annulus::numa::CpuId;
use annulus::{Error, ErrorKind};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getsockname};

use super::address::{ListenAddress, Place, unix_address};
use super::inherited::{Inherited, Part, share_out};
use super::passed::Passed;
use crate::exit::{Failure, Kind};

/// What distinguishes endpoints: the address, and the options that a socket is given when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointKey {
    /// Where it is, if nobody has passed a socket for it.
    pub(crate) address: ListenAddress,
    /// Which of the sockets that were passed it is.
    pub(crate) passed: Option<usize>,
    /// The permissions of a Unix socket's file.
    pub(crate) mode: Option<u32>,
    /// `[::]` leaves IPv4 to another listener.
    pub(crate) only_v6: bool,
    /// Whether a core prefers connections that arrive on its CPU.
    pub(crate) steer_by_cpu: bool,
    /// What comes there.
    pub(crate) carries: Carries,
}

/// Stands behind the address of an endpoint for datagrams.
const UDP: &str = " (UDP)";

/// What comes to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Connections,
    /// By UDP.
    Datagrams,
    /// By UDP, at the address and port of the endpoint before it.
    DatagramsBeside,
}

/// Tells an endpoint from all others that the program has or had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(crate) u64);

/// An endpoint that was just opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The address with the real port, or `unix:PATH`.
    pub(crate) shown: String,
    /// A socket for each core.
    pub(crate) sockets: Vec<OwnedFd>,
    /// So many of them, from the first on, are what another program needs to take it over: the others are
    /// further descriptors, and what a service manager has passed is kept where it came.
    pub(crate) own: usize,
    /// All of them are one open socket.
    pub(crate) is_shared: bool,
    /// Dropped, it takes the file of a Unix socket away; connections are accepted for as long as a core has
    /// a socket.
    pub(crate) file: Option<UnixSocket>,
}

impl EndpointKey {
    /// Whether the sockets of `other` can serve as those of this one. Their other options need no change or
    /// can be changed.
    pub(crate) fn is_at(&self, other: &EndpointKey) -> bool {
        let is_like = self.carries == other.carries;
        is_like
            && match (self.passed, other.passed) {
                (None, None) => {
                    self.address.place() == other.address.place() && self.only_v6 == other.only_v6
                }
                (passed, others) => passed == others,
            }
    }

    /// What a program that takes this one's place knows it by.
    pub(super) fn name(&self) -> String {
        let udp = if self.carries == Carries::Connections { "" } else { UDP };
        format!("{}{udp}", self.address)
    }

    /// Gives the file of a Unix socket its permissions again.
    pub(crate) fn set_mode(&self) {
        if let (Place::Unix(path), Some(mode), None) = (self.address.place(), self.mode, self.passed)
            && !path.starts_with('@')
            && let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        {
            tracing::warn!(path, %error, "the permissions of a socket's file stay as they are");
        }
    }

    /// Takes over the sockets that the program before had for it, for this many cores.
    ///
    /// # Errors
    /// What the system says to a look at them; no descriptor is left.
    pub(super) fn take_over(&self, inherited: Inherited, cores: usize) -> Result<Vec<Opened>, Failure> {
        let failed = |error| Failure::failed("cannot duplicate a listening socket", error);
        let mut shown = inherited.sockets.first().map(bound).transpose()?.unwrap_or_default();
        if self.carries != Carries::Connections {
            shown += UDP;
        }
        let mut file = None;
        if let (Place::Unix(_), Some(socket)) = (self.address.place(), inherited.sockets.first()) {
            file = Some(UnixSocket::from_owned_fd(socket.try_clone().map_err(failed)?)?);
        }
        let parts = share_out(inherited.sockets, cores).map_err(failed)?;
        let opened = |part: Part| {
            let Part { sockets, own } = part;
            let is_shared = own < sockets.len();
            Opened { shown: shown.clone(), sockets, own, is_shared, file: file.take() }
        };
        Ok(parts.into_iter().map(opened).collect())
    }

    /// Opens it for the cores on `cpus`; `beside` is where the endpoint before it is, if that is an IP
    /// address. `None` where there is nothing to open: no datagrams come beside a Unix socket.
    ///
    /// # Errors
    /// Why the address cannot be listened on.
    pub(crate) fn open(
        &self,
        cpus: &[CpuId],
        passed: &Passed,
        beside: Option<SocketAddr>,
    ) -> Result<Option<Opened>, Failure> {
        match self.carries {
            Carries::Connections => self.open_for_connections(cpus, passed).map(Some),
            Carries::DatagramsBeside => beside
                .map(|at| datagram_sockets(at, cpus.len()).map_err(Failure::from))
                .map_or(Ok(None), opened),
            Carries::Datagrams => {
                let candidates = self.address.place().candidates();
                let mut tried = candidates.iter().map(|&at| datagram_sockets(at, cpus.len()));
                let usable = tried.find(|tried| !tried.as_ref().is_err_and(lacks_family));
                let none = || Failure::input(format!("no datagrams come to {}", self.address));
                opened(usable.ok_or_else(none)?.map_err(Failure::from))
            }
        }
    }

    fn open_for_connections(&self, cpus: &[CpuId], passed: &Passed) -> Result<Opened, Failure> {
        if let Some(index) = self.passed {
            let sockets = passed.clones(index, cpus.len());
            let sockets =
                sockets.map_err(|error| Failure::failed("cannot duplicate a passed socket", error))?;
            let shown = sockets.first().map(bound).transpose()?.unwrap_or_default();
            return Ok(Opened { shown, sockets, own: 0, is_shared: true, file: None });
        }
        let options = ListenOptions::new().steer_by_cpu(self.steer_by_cpu).only_v6(self.only_v6);
        if let Place::Unix(path) = self.address.place() {
            let address = unix_address(path)
                .map_err(|error| Failure::input(format!("cannot listen on {}: {error}", self.address)))?;
            let socket = UnixSocket::bind(&address, &options, self.mode)?;
            let clones = cpus.iter().map(|_| socket.try_clone()).collect::<Result<_, _>>();
            let sockets =
                clones.map_err(|error| Failure::failed("cannot duplicate a listening socket", error))?;
            return Ok(Opened {
                shown: self.address.to_string(),
                sockets,
                own: 1,
                is_shared: false,
                file: Some(socket),
            });
        }
        let candidates = self.address.place().candidates();
        let (last, others) = candidates.split_last().expect("an address that is no path has candidates");
        let opened =
            others.iter().find_map(|&candidate| match listening_sockets(candidate, &options, cpus) {
                Err(error) if lacks_family(&error) => None,
                tried => Some(tried),
            });
        let sockets = opened.unwrap_or_else(|| listening_sockets(*last, &options, cpus))?;
        let shown = sockets.first().map(bound).transpose()?.unwrap_or_else(|| last.to_string());
        let own = sockets.len();
        Ok(Opened { shown, sockets, own, is_shared: false, file: None })
    }
}

/// Sockets for datagrams, as an endpoint.
fn opened(sockets: Result<Vec<OwnedFd>, Failure>) -> Result<Option<Opened>, Failure> {
    let sockets = sockets?;
    let shown = sockets.first().map(bound).transpose()?.unwrap_or_default() + UDP;
    let own = sockets.len();
    Ok(Some(Opened { shown, sockets, own, is_shared: false, file: None }))
}

/// The machine knows no addresses of this family.
fn lacks_family(error: &Error) -> bool {
    let errno = error.io_error().and_then(std::io::Error::raw_os_error).map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// The address of a socket, with the real port, or `unix:` and its path or name.
fn bound(socket: &OwnedFd) -> Result<String, Failure> {
    let failed = |errno| Failure::failed("cannot read the address of a socket", errno);
    let address = getsockname(socket).map_err(failed)?;
    if address.address_family() != AddressFamily::UNIX {
        return Ok(SocketAddr::try_from(address).map_err(failed)?.to_string());
    }
    let address = SocketAddrUnix::try_from(address).map_err(failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => format!("unix:{}", text(path)),
        (None, name) => format!("unix:@{}", text(name.unwrap_or_default())),
    })
}

/// The sockets of one address that the cores of this process take.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// One for each core, until it takes it.
    sockets: Mutex<Vec<Option<OwnedFd>>>,
    /// All of them are one open socket.
    is_shared: bool,
}

/// A socket that a core accepts from.
pub(crate) enum AnyListener {
    /// On an IP address.
    Tcp(TcpListener),
    /// On a path or a name.
    Unix(UnixListener),
    /// On an IP address, for datagrams.
    Udp(UdpSocket),
}

impl Endpoint {
    /// Of sockets, one for each core of this process; `is_shared` if they are descriptors of one open socket.
    pub(crate) fn new(sockets: Vec<OwnedFd>, is_shared: bool) -> Self {
        Endpoint { sockets: Mutex::new(sockets.into_iter().map(Some).collect()), is_shared }
    }

    /// The socket of the current core, once.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) fn listener(&self) -> Result<AnyListener, Failure> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = sockets.get_mut(annulus::cores::index()).and_then(Option::take);
        drop(sockets);
        let none = || Failure::new(Kind::Failed, "there is no socket for this core; report this");
        let socket = socket.ok_or_else(none)?;
        let domain = socket_domain(socket.as_fd())
            .map_err(|errno| Error::with_source(ErrorKind::Io, "cannot read SO_DOMAIN", errno.into()))?;
        if domain == AddressFamily::UNIX {
            return Ok(AnyListener::Unix(UnixListener::from_owned_fd(socket)?));
        }
        let kind = socket_type(socket.as_fd())
            .map_err(|errno| Error::with_source(ErrorKind::Io, "cannot read SO_TYPE", errno.into()))?;
        if kind == SocketType::DGRAM {
            return Ok(AnyListener::Udp(UdpSocket::from_owned_fd(socket)?));
        }
        let listener = TcpListener::from_owned_fd(socket)?;
        Ok(AnyListener::Tcp(if self.is_shared { listener } else { listener.sole() }))
    }
}
