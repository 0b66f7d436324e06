//! epoll with numbers for sockets, and sockets that never block.

use super::{STALL, wrong};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::io;
use std::net::{SocketAddr, TcpStream};

/// Which sockets can be read from or written to.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// One socket that is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

fn interest(write: bool) -> epoll::EventFlags {
    // A socket that is written to is watched for reading too, so that its end is seen.
    if write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    pub(super) fn add(&self, socket: impl AsFd, token: u64, write: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), interest(write))?)
    }

    pub(super) fn change(&self, socket: impl AsFd, token: u64, write: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token), interest(write))?)
    }

    /// Waits for sockets; nothing for [`STALL`] is an error.
    pub(super) fn wait(&mut self) -> io::Result<Vec<Ready>> {
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
        let end = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        let ready = self.events.iter().map(|event| {
            // The kernel's struct is packed: fields are copied out before they are looked at.
            let (data, flags) = (event.data, event.flags);
            Ready {
                token: data.u64(),
                readable: flags.intersects(epoll::EventFlags::IN | end),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        });
        Ok(ready.collect())
    }
}

/// A connected socket, non-blocking, without Nagle's delay.
pub(super) fn connect(server: SocketAddr) -> io::Result<OwnedFd> {
    let stream = TcpStream::connect_timeout(&server, STALL)
        .map_err(|e| io::Error::new(e.kind(), format!("connect to {server}: {e}")))?;
    prepare(stream.into())
}

/// The same for a socket that was accepted.
pub(super) fn prepare(socket: OwnedFd) -> io::Result<OwnedFd> {
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
