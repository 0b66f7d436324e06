//! Sockets of datagrams: what comes for them, and what leaves.
//!
//! Each datagram follows from the socket's stream and its place in it, so whoever receives one knows what it
//! has to be.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::network::inode;
use super::ops::{F_MORE, Goes, Op};
use super::random::{Random, byte, differs};
use super::state::State;
use crate::net::sockaddr::{self, SockAddr};

/// `struct io_uring_recvmsg_out` of linux/io_uring.h: four lengths of 32 bits.
const HEAD: usize = 16;
/// The bytes at the beginning of a datagram that leaves which say which one it is.
pub(super) const NUMBER: usize = 4;

/// A socket of datagrams, as the kernel has it.
pub(super) struct PlayedUdp {
    inode: u64,
    /// Which stream comes, and how many datagrams of it are still to come.
    comes: u32,
    to_come: u32,
    next: u32,
    waiting: VecDeque<u32>,
    /// Datagrams that a receive was told of.
    pub(super) told: u32,
    /// Which stream leaves, and which of it have left.
    leaves: u32,
    pub(super) left: BTreeSet<u32>,
    /// An error that was not told yet: a datagram that was sent has found nobody.
    error: bool,
}

/// The `number`th datagram of a stream: its length, and who it is from or for.
pub(super) fn datagram_of(stream: u32, number: u32) -> (u64, SocketAddr) {
    let random = Random::new(u64::from(stream) << 32 | u64::from(number));
    let most = random.pick(&[0, 1, 100, 1_400, 8_148, 9_000]);
    let host = [192, 0, 2, random.between(1, 3) as u8];
    (random.between(most / 2, most), (host, random.between(1, 60_000) as u16).into())
}

/// The byte of the `number`th datagram at a place.
pub(super) fn datagram_byte(stream: u32, number: u32, at: u64) -> u8 {
    byte(stream, u64::from(number) << 20 | at)
}

impl PlayedUdp {
    pub(super) fn new(fd: i32, comes: u32, to_come: u32, leaves: u32) -> Self {
        Self {
            inode: inode(fd).expect("it is open"),
            comes,
            to_come,
            next: 0,
            waiting: VecDeque::new(),
            told: 0,
            leaves,
            left: BTreeSet::new(),
            error: false,
        }
    }

    /// Whether a datagram is still to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.to_come > 0 && self.waiting.len() < 40
    }

    /// Some come.
    pub(super) fn arrive(&mut self, random: &Random) {
        let some = random.between(1, u64::from(self.to_come).min(12)) as u32;
        self.to_come -= some;
        self.waiting.extend(self.next..self.next + some);
        self.next += some;
    }

    /// What poll(2) tells.
    pub(super) fn events(&self) -> u32 {
        let comes = if self.waiting.is_empty() { 0 } else { libc::POLLIN };
        (comes | libc::POLLOUT | if self.error { libc::POLLERR } else { 0 }) as u32
    }

    /// One leaves.
    ///
    /// # Errors
    /// It is not what it has to be.
    fn send(&mut self, bytes: &[u8], to: Option<SocketAddr>) -> Result<(), String> {
        let number = bytes.first_chunk::<NUMBER>().map(|number| u32::from_le_bytes(*number));
        let Some(number) = number else { return Err(format!("a datagram of {} bytes left", bytes.len())) };
        let (len, address) = datagram_of(self.leaves, number);
        let wrong = if to != Some(address) {
            format!("was sent to {to:?}, not {address}")
        } else if bytes.len() as u64 != len + NUMBER as u64 {
            format!("was sent with {} bytes, not {len} and {NUMBER}", bytes.len())
        } else if let Some(at) = differs(self.leaves, u64::from(number) << 20, &bytes[NUMBER..]) {
            format!("was sent with a wrong byte at {}", at & 0xF_FFFF)
        } else if !self.left.insert(number) {
            "was sent twice".to_owned()
        } else {
            return Ok(());
        };
        Err(format!("datagram {number} {wrong}"))
    }
}

impl State {
    /// The UDP socket that a descriptor stands for.
    pub(super) fn udp_at(&self, fd: i32) -> Option<usize> {
        if self.udp.is_empty() {
            return None;
        }
        let inode = inode(fd)?;
        self.udp.iter().position(|udp| udp.inode == inode)
    }

    /// Whether a receive of datagrams finds something.
    pub(super) fn has_datagram(&self, op: &Op) -> bool {
        op.udp.is_none_or(|at| !self.udp[at].waiting.is_empty() || self.udp[at].error)
    }

    pub(super) fn receive_datagram(&mut self, op: &mut Op) -> Goes {
        let Some(at) = op.udp else { return self.end(op, -libc::EBADF, 0) };
        let there_is_some = !self.udp[at].waiting.is_empty();
        if let Some(errno) = self.refuses(op, there_is_some) {
            return self.end(op, -errno, 0);
        }
        let udp = &mut self.udp[at];
        if std::mem::take(&mut udp.error) {
            return self.end(op, -libc::ECONNREFUSED, 0);
        }
        let Some(number) = udp.waiting.pop_front() else { return Goes::On };
        udp.told += 1;
        let (stream, (len, from)) = (udp.comes, datagram_of(udp.comes, number));
        let before = before(len, from);
        let before_len = before.len() as u64;
        let bytes = |at| match before.get(at as usize) {
            Some(byte) => *byte,
            None => datagram_byte(stream, number, at - before_len),
        };
        let brought = self.buffers.pick(before_len + len, bytes).expect("there are buffers");
        // Nothing in a datagram ends the receive, as the end of a stream does (`io_recv_finish()`).
        let is_last = len == 0 || self.random.once_in(24);
        self.post_brought(op.sqe.user_data, brought, if is_last { 0 } else { F_MORE });
        if is_last { Goes::Over } else { Goes::On }
    }

    pub(super) fn send_datagram(&mut self, op: &Op) -> Goes {
        let at = op.udp.expect("a send of a datagram");
        if op.cancelled && self.random.once_in(2) {
            return self.end(op, -libc::ECANCELED, 0);
        }
        if self.random.once_in(60) {
            let errno = self.random.pick(&[libc::EINTR, libc::ENOBUFS]);
            return self.end(op, -errno, 0);
        }
        if self.udp[at].error && self.random.once_in(2) {
            self.udp[at].error = false;
            return self.end(op, -libc::ECONNREFUSED, 0);
        }
        self.udp[at].error |= self.random.once_in(20);
        let bytes = op.bytes(0, op.len());
        if let Err(wrong) = self.udp[at].send(&bytes, recipient(op.sqe.addr)) {
            self.fail(wrong);
        }
        self.end(op, bytes.len() as i32, 0)
    }
}

/// What the kernel writes before a datagram of this many bytes: lengths, and the sender's address, padded to
/// the longest.
fn before(len: u64, from: SocketAddr) -> Vec<u8> {
    let address = SockAddr::from(from);
    let mut before = Vec::with_capacity(HEAD + sockaddr::MAX);
    for field in [address.len(), 0, len as u32, 0] {
        before.extend_from_slice(&field.to_ne_bytes());
    }
    // SAFETY: an address has as many bytes as it says.
    let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize) };
    before.extend_from_slice(bytes);
    before.resize(HEAD + sockaddr::MAX, 0);
    before
}

/// The address in a `msghdr`.
fn recipient(message: u64) -> Option<SocketAddr> {
    // SAFETY: a sendmsg points to a message and that to its address, which stay until the last CQE.
    let address = unsafe {
        let message = &*(message as *const libc::msghdr);
        std::slice::from_raw_parts(message.msg_name.cast::<u8>(), message.msg_namelen as usize)
    };
    sockaddr::parse(address)
}
