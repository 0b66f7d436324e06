//! epoll with numbers for sockets, and sockets that never block.

use super::{STALL, wrong};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recv, send, socket_with,
    sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// Which sockets can be read from.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    pub(super) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// Waits for sockets, and gives the numbers of those that are ready; nothing for [`STALL`] is an error.
    pub(super) fn wait(&mut self) -> io::Result<Vec<u64>> {
        let limit = Timespec { tv_sec: STALL.as_secs() as i64, tv_nsec: 0 };
        self.events.clear();
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
                Ok(0) => return Err(wrong(format!("stuck: no byte moved for {} s", STALL.as_secs()))),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let token = |event: &epoll::Event| {
            // The kernel's struct is packed: the field is copied out before it is read.
            let data = event.data;
            data.u64()
        };
        Ok(self.events.iter().map(token).collect())
    }
}

/// A connected socket, non-blocking, without Nagle's delay.
///
/// On loopback each comes from the next of 127.0.0.2 to 127.0.0.201: of one address, some 28,000 ports are
/// all there are, those of connections that ended in the last minute included.
pub(super) fn connect(server: SocketAddr) -> io::Result<OwnedFd> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    // One that connects is writable within this time, or connect(2) fails (socket(7), SO_SNDTIMEO).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(STALL))?;
    if server.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let last = 2 + NEXT.fetch_add(1, Ordering::Relaxed) % 200;
        bind(&socket, &SocketAddr::from(([127, 0, 0, last], 0)))?;
    }
    rustix::net::connect(&socket, &server)
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("connect to {server}: {e}")))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Receives; `None` when nothing is there yet, `Some(0)` at the end of the stream.
pub(super) fn receive(socket: impl AsFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(socket, buf, RecvFlags::DONTWAIT) {
        Ok((n, _)) => Ok(Some(n)),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Drops up to `len` received bytes inside the kernel. Source: tcp(7), MSG_TRUNC.
pub(super) fn discard(socket: impl AsFd, buf: &mut [u8], len: u64) -> io::Result<Option<usize>> {
    let len = buf.len().min(usize::try_from(len).unwrap_or(usize::MAX));
    match recv(socket, &mut buf[..len], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
        Ok((_, n)) => Ok(Some(n)),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sends; `None` when the socket is full.
pub(super) fn transmit(socket: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(n) => Ok(Some(n)),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sends a message that is far smaller than an idle socket's buffer.
pub(super) fn transmit_small(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    match transmit(socket, bytes)? {
        Some(n) if n == bytes.len() => Ok(()),
        _ => Err(io::Error::other(format!("a message of {} bytes did not fit an idle socket", bytes.len()))),
    }
}
