//! Many datagrams at once, by calls on the core.
//!
//! A receive into the core's buffers ([`UdpSocket::recv`]) costs a completion for each datagram and holds
//! about 8,100 bytes of it. Here one call brings a batch (`recvmmsg(2)`) of datagrams of any length.
//! Datagrams of one peer that the network has put together come as one (`UDP_GRO`, Linux 5.0), and can be
//! sent so (`UDP_SEGMENT`, Linux 4.18).

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::UdpSocket;
use super::sys_datagrams::{self as sys, Got, SEGMENTS};
use crate::core::Core;
use crate::core::ask::ask;
use crate::net::SocketFd;
use crate::op::poll::{PollOnce, Ready};
use crate::{Error, Result};

/// Space for a datagram of any length, or for datagrams that the network has put together.
const SPACE: usize = 65_536;
/// The most bytes that leave by one call: the longest payload of UDP over IPv4 (RFC 768).
const LONGEST: usize = 65_507;

/// Space for datagrams that are received together. They stay in it until the next receive.
pub struct Datagrams {
    bytes: Box<[u8]>,
    got: Vec<Got>,
}

/// The outcome of datagrams that were sent together.
#[derive(Debug)]
#[must_use = "datagrams may have been lost"]
#[non_exhaustive]
pub struct SentDatagrams {
    /// Bytes that have left.
    pub bytes: u64,
    /// Datagrams that have left.
    pub count: usize,
    /// The first error, if there was one. Datagrams after it were sent nevertheless, except after two errors:
    /// `EAGAIN`, the socket's buffer is full; `ECONNREFUSED`, nobody listens where an earlier one went.
    pub error: Option<io::Error>,
}

impl Datagrams {
    /// Space for `count` receives of 64 KiB each, 1 to 32. Only what is written to takes memory.
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, sys::AT_ONCE);
        Self { bytes: vec![0; count * SPACE].into_boxed_slice(), got: Vec::with_capacity(count) }
    }

    /// The received datagrams, in order: for each run of datagrams from one peer, the peer and the datagrams.
    pub fn by_source(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, impl Iterator<Item = &[u8]> + Clone + use<'_>)> {
        let bytes = &self.bytes;
        self.got.chunk_by(|a, b| a.source == b.source).filter_map(move |run| {
            let datagrams = run.iter().flat_map(move |got| {
                let whole = &bytes[got.place * SPACE..][..got.len];
                // A datagram of no bytes counts too.
                let empty = whole.is_empty().then_some(whole);
                empty.into_iter().chain(whole.chunks(got.segment))
            });
            Some((run.first()?.source, datagrams))
        })
    }
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("got", &self.got).finish_non_exhaustive()
    }
}

impl UdpSocket {
    /// Whether the kernel may hand datagrams of one peer over together, where
    /// [`recv_many_now`](Self::recv_many_now) receives (`UDP_GRO`, `udp(7)`; Linux 5.0). It separates them
    /// again. [`recv`](Self::recv) would take several for one, so do not use it while this is on.
    ///
    /// # Errors
    /// What `setsockopt(2)` says: the kernel does not know the option.
    pub fn set_coalescing(&self, on: bool) -> Result<()> {
        let set = super::sys::set_flag(self.as_fd(), libc::SOL_UDP, libc::UDP_GRO, on);
        set.map_err(|e| Error::io("cannot set UDP_GRO", e))
    }

    /// Waits until a receive would find something: a datagram, or an error. `poll(2)`, by the ring.
    ///
    /// # Errors
    /// What the ring says.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn readable(&self) -> Result<()> {
        let polled = ask(PollOnce { fd: SocketFd(self.socket().clone()), ready: Ready::Read }).await;
        polled.map_err(|e| Error::io("cannot wait for datagrams", e))
    }

    /// Receives all datagrams that have come, as many as fit, by one call that does not wait (`recvmmsg(2)`).
    /// Returns the number of receives; 0 if nothing has come. The former content of `into` is lost.
    ///
    /// # Errors
    /// As [`recv`](Self::recv): an error is reported once.
    pub fn recv_many_now(&self, into: &mut Datagrams) -> Result<usize> {
        into.got.clear();
        match sys::receive(self.as_fd(), &mut into.bytes, SPACE, &mut into.got) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(Error::io("receive failed", e)),
        }
        let bytes: usize = into.got.iter().map(|got| got.len).sum();
        Core::try_with(|core| core.shared.counters.recv_bytes.add(bytes as u64));
        Ok(into.got.len())
    }

    /// Sends datagrams in their order, to `to` or to where the socket is [connected](Self::connect), by calls
    /// that do not wait. Consecutive datagrams of one length are sent by one call (`UDP_SEGMENT`, `udp(7)`;
    /// Linux 4.18), and one by one where the kernel or the device refuses that.
    pub fn send_many_now<'a>(
        &self,
        to: Option<SocketAddr>,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> SentDatagrams {
        let mut sent = SentDatagrams { bytes: 0, count: 0, error: None };
        let mut group = Group::new();
        for datagram in datagrams {
            if !group.takes(datagram) && self.send_group(&mut group, to, &mut sent).is_break() {
                return sent;
            }
            group.push(datagram);
        }
        let _ = self.send_group(&mut group, to, &mut sent);
        sent
    }

    /// Sends a group, and empties it. `Break`: nothing more must be sent.
    fn send_group(
        &self,
        group: &mut Group<'_>,
        to: Option<SocketAddr>,
        sent: &mut SentDatagrams,
    ) -> std::ops::ControlFlow<()> {
        let parts = &group.parts[..group.len];
        let left = match parts {
            [] => return std::ops::ControlFlow::Continue(()),
            [one] => sys::send(self.as_fd(), &[*one], None, to),
            [first, ..] => sys::send(self.as_fd(), parts, Some(first.len()), to),
        };
        let is_refused = |e: &io::Error| {
            let errno = e.raw_os_error().unwrap_or(0);
            [libc::EINVAL, libc::EIO, libc::EMSGSIZE, libc::EOPNOTSUPP, libc::ENOPROTOOPT].contains(&errno)
        };
        let flow = match left {
            Err(e) if parts.len() > 1 && is_refused(&e) => {
                parts.iter().try_for_each(|part| sent.note(1, sys::send(self.as_fd(), &[*part], None, to)))
            }
            left => sent.note(parts.len(), left),
        };
        group.len = 0;
        flow
    }
}

impl SentDatagrams {
    fn note(&mut self, count: usize, left: io::Result<usize>) -> std::ops::ControlFlow<()> {
        match left {
            Ok(bytes) => {
                self.bytes += bytes as u64;
                self.count += count;
                Core::try_with(|core| core.shared.counters.send_bytes.add(bytes as u64));
                std::ops::ControlFlow::Continue(())
            }
            Err(e) => {
                let ends = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused].contains(&e.kind());
                self.error.get_or_insert(e);
                if ends { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
            }
        }
    }
}

/// Datagrams that are sent by one call: all have one length, except the last, which may be shorter.
struct Group<'a> {
    parts: [IoSlice<'a>; SEGMENTS],
    len: usize,
    bytes: usize,
}

impl<'a> Group<'a> {
    fn new() -> Self {
        Self { parts: [IoSlice::new(&[]); SEGMENTS], len: 0, bytes: 0 }
    }

    fn takes(&self, datagram: &[u8]) -> bool {
        let [first, .., last] = &self.parts[..self.len] else {
            return self.len == 0 || self.is_next(&self.parts[0], &self.parts[0], datagram);
        };
        self.is_next(first, last, datagram)
    }

    fn is_next(&self, first: &[u8], last: &[u8], datagram: &[u8]) -> bool {
        !first.is_empty()
            && last.len() == first.len()
            && !datagram.is_empty()
            && datagram.len() <= first.len()
            && self.len < SEGMENTS
            && self.bytes + datagram.len() <= LONGEST
    }

    fn push(&mut self, datagram: &'a [u8]) {
        if self.len == 0 {
            self.bytes = 0;
        }
        self.parts[self.len] = IoSlice::new(datagram);
        self.len += 1;
        self.bytes += datagram.len();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn groups(lengths: &[usize]) -> Vec<usize> {
        let all = vec![0; LONGEST];
        let (mut group, mut sizes) = (Group::new(), Vec::new());
        for &len in lengths {
            let datagram = &all[..len];
            if !group.takes(datagram) {
                sizes.push(std::mem::take(&mut group.len));
            }
            group.push(datagram);
        }
        sizes.push(group.len);
        sizes
    }

    #[test]
    fn those_of_one_length_leave_together_and_a_shorter_one_is_the_last() {
        assert_eq!(groups(&[100, 100, 100]), [3]);
        assert_eq!(groups(&[100, 100, 40, 40, 100]), [3, 1, 1]);
        assert_eq!(groups(&[40, 100]), [1, 1]);
        assert_eq!(groups(&[0, 0, 5, 0]), [1, 1, 1, 1], "one of no bytes is none of several");
        assert_eq!(groups(&[1; 130]), [SEGMENTS, SEGMENTS, 130 - 2 * SEGMENTS]);
        assert_eq!(groups(&[30_000; 3]), [2, 1]);
        assert_eq!(groups(&[LONGEST, 1]), [1, 1]);
    }
}
