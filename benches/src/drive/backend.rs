//! The server behind a relay, played by the driver itself.
//!
//! A client's first 16 bytes say what the backend is to do with the connection: a word, and a number of bytes, both
//! little-endian.

use super::poller::{Poller, discard, prepare, receive, transmit, transmit_small};
use super::{STALL, wrong};
use crate::pattern;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where relays connect to.
pub struct Backend {
    listener: TcpListener,
    address: SocketAddr,
}

impl Backend {
    /// Listens on `address`, or with port 0 on a port of the kernel's choice.
    ///
    /// # Errors
    /// It cannot.
    pub fn new(address: SocketAddr) -> io::Result<Backend> {
        let listener = TcpListener::bind(address)
            .map_err(|e| io::Error::new(e.kind(), format!("backend on {address}: {e}")))?;
        let address = listener.local_addr()?;
        Ok(Backend { listener, address })
    }

    /// Its address, which the relay is told.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection that the relay makes for `client`. The client says a word that no other has said, and
    /// connections that do not begin with it are dropped: a relay may still bring some of an earlier session.
    pub(super) fn accept_for(&self, client: &OwnedFd) -> io::Result<OwnedFd> {
        static SAID: AtomicU64 = AtomicU64::new(1);
        let word = SAID.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        transmit_small(client, &word)?;
        loop {
            wait_readable(&self.listener, "the relay did not connect to its backend")?;
            let socket = prepare(self.listener.accept()?.0.into())?;
            let (mut heard, mut have) = ([0; 8], 0);
            while have < heard.len() {
                wait_readable(&socket, "the relay does not pass on what a client said")?;
                match receive(&socket, &mut heard[have..]) {
                    Ok(Some(0)) | Err(_) => break,
                    Ok(n) => have += n.unwrap_or(0),
                }
            }
            if heard == word {
                return Ok(socket);
            }
        }
    }
}

fn wait_readable(socket: impl AsFd, or: &str) -> io::Result<()> {
    let limit = Timespec { tv_sec: STALL.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&limit))? {
        0 => Err(wrong(or)),
        _ => Ok(()),
    }
}

/// What the backend does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Send so many bytes.
    Send(u64),
    /// Receive so many bytes and then say [`ACK`].
    Receive(u64),
    /// Send back what comes.
    Echo,
}

/// Said when all bytes of [`Order::Receive`] have come.
pub(super) const ACK: &[u8; 4] = b"all\n";

impl Order {
    /// As it travels.
    pub(super) fn encode(self) -> [u8; 16] {
        let (word, number) = match self {
            Order::Send(n) => (1_u64, n),
            Order::Receive(n) => (2, n),
            Order::Echo => (3, 0),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; 16]) -> io::Result<Order> {
        let (word, number) = bytes.split_at(8);
        let read = |part: &[u8]| part.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        match (read(word), read(number)) {
            (1, n) => Ok(Order::Send(n)),
            (2, n) => Ok(Order::Receive(n)),
            (3, 0) => Ok(Order::Echo),
            _ => Err(wrong("the relay changed the bytes of an order")),
        }
    }
}

/// One connection of the backend. An order may follow once the one before is carried out.
pub(super) struct Served {
    pub(super) socket: OwnedFd,
    token: u64,
    head: ([u8; 16], usize),
    order: Option<Order>,
    /// Bytes of the order that have been sent or received.
    moved: u64,
}

/// How one pass treats bytes.
pub(super) struct Manner<'a> {
    /// Sent over and over where nobody checks.
    pub(super) filler: &'a [u8],
    /// For receiving.
    pub(super) buf: &'a mut [u8],
    pub(super) verify: bool,
    pub(super) copy: bool,
}

impl Manner<'_> {
    /// Sends bytes of the pattern at `offset`, at most `left`.
    pub(super) fn send(&mut self, socket: &OwnedFd, offset: u64, left: u64) -> io::Result<Option<usize>> {
        let len = self.filler.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if !self.verify {
            return transmit(socket, &self.filler[..len]);
        }
        let len = len.min(self.buf.len());
        pattern::fill(&mut self.buf[..len], offset);
        transmit(socket, &self.buf[..len])
    }

    /// Receives bytes of the pattern at `offset`, at most `left`; the end of the stream is an error.
    pub(super) fn receive(&mut self, socket: &OwnedFd, offset: u64, left: u64) -> io::Result<Option<usize>> {
        let got = if self.verify || self.copy {
            let len = self.buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            receive(socket, &mut self.buf[..len])?
        } else {
            discard(socket, self.buf, left)?
        };
        match got {
            Some(0) => Err(wrong(format!("the connection ended {left} bytes too early"))),
            Some(n) if self.verify => {
                let right = pattern::check(&self.buf[..n], offset);
                right.map_err(|at| wrong(format!("byte {at} of the stream is wrong")))?;
                Ok(Some(n))
            }
            got => Ok(got),
        }
    }
}

impl Served {
    pub(super) fn new(socket: OwnedFd, token: u64) -> Served {
        Served { socket, token, head: ([0; 16], 0), order: None, moved: 0 }
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, poller: &Poller, manner: &mut Manner<'_>) -> io::Result<()> {
        loop {
            let went_on = match self.order {
                None => self.take_order(poller)?,
                Some(Order::Echo) => return self.echo(manner),
                Some(Order::Send(total)) => {
                    let sent = manner.send(&self.socket, self.moved, total - self.moved)?;
                    self.count(sent, total, poller)?
                }
                Some(Order::Receive(total)) => {
                    let came = manner.receive(&self.socket, self.moved, total - self.moved)?;
                    let went_on = self.count(came, total, poller)?;
                    if self.order.is_none() {
                        transmit_small(&self.socket, ACK)?;
                    }
                    went_on
                }
            };
            if !went_on {
                return Ok(());
            }
        }
    }

    fn count(&mut self, n: Option<usize>, total: u64, poller: &Poller) -> io::Result<bool> {
        let Some(n) = n else { return Ok(false) };
        self.moved += n as u64;
        if self.moved == total {
            if let Some(Order::Send(_)) = self.order {
                poller.change(&self.socket, self.token, false)?;
            }
            self.order = None;
        }
        Ok(true)
    }

    fn take_order(&mut self, poller: &Poller) -> io::Result<bool> {
        let (bytes, have) = &mut self.head;
        let Some(n) = receive(&self.socket, &mut bytes[*have..])? else { return Ok(false) };
        if n == 0 {
            return Err(wrong("the relay closed a connection to its backend"));
        }
        *have += n;
        if *have == bytes.len() {
            let order = Order::decode(*bytes)?;
            self.head.1 = 0;
            self.moved = 0;
            self.order = Some(order);
            if let Order::Send(_) = order {
                poller.change(&self.socket, self.token, true)?;
            }
        }
        Ok(true)
    }

    fn echo(&mut self, manner: &mut Manner<'_>) -> io::Result<()> {
        // One message of at most 16 KiB is under way, so what came fits the way back.
        match receive(&self.socket, manner.buf)? {
            Some(0) => Err(wrong("the relay closed a connection to its backend")),
            Some(n) => transmit_small(&self.socket, &manner.buf[..n]),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for order in [Order::Send(1), Order::Receive(u64::MAX), Order::Echo] {
            assert_eq!(Order::decode(order.encode()).unwrap(), order);
        }
        assert!(Order::decode([0; 16]).is_err());
    }
}
