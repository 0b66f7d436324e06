//! A connection through a relay for every message: connect, say it, take it back, close.

use super::order::Order;
use super::poller::{Poller, connect, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use rustix::fd::OwnedFd;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Connections that live for one message, so many at the same time. The client closes them; the backend
/// behind the relay sends messages back.
pub struct Brief {
    poller: Poller,
    relay: SocketAddr,
    clients: Vec<Option<Client>>,
    size: usize,
    /// The order to the backend, and the message.
    bytes: Vec<u8>,
    buf: Vec<u8>,
}

struct Client {
    socket: OwnedFd,
    /// Which message it is.
    offset: u64,
    /// Bytes of it that have come back.
    back: usize,
}

impl Brief {
    /// Connects not yet.
    ///
    /// # Errors
    /// There is no epoll to be had.
    pub fn open(relay: SocketAddr, size: usize, connections: usize) -> io::Result<Brief> {
        let clients = (0..connections).map(|_| None).collect();
        let mut bytes = Order::Echo.encode();
        bytes.extend(pattern::bytes(size));
        Ok(Brief { poller: Poller::new()?, relay, clients, size, bytes, buf: vec![0; 64 << 10] })
    }

    /// With `verify` each message has other bytes, so that one on the wrong connection shows.
    fn begin(&mut self, token: usize, message: u64, verify: bool) -> io::Result<()> {
        let offset = if verify { message << 20 } else { 0 };
        if verify {
            let message = self.bytes.len() - self.size;
            pattern::fill(&mut self.bytes[message..], offset);
        }
        let socket = connect(self.relay)?;
        transmit_small(&socket, &self.bytes)?;
        self.poller.add(&socket, token as u64)?;
        // What was there before is closed, and its socket leaves the poller by that.
        self.clients[token] = Some(Client { socket, offset, back: 0 });
        Ok(())
    }

    fn pass(&mut self, messages: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let (mut sent, mut done) = (0, 0);
        for token in 0..messages.min(self.clients.len() as u64) as usize {
            self.begin(token, sent, verify)?;
            sent += 1;
        }
        while done < messages {
            for token in self.poller.wait()? {
                let token = token as usize;
                let Some(client) = &mut self.clients[token] else { continue };
                let Some(n) = receive(&client.socket, &mut self.buf)? else { continue };
                if n == 0 || client.back + n > self.size {
                    return Err(wrong(format!("{n} bytes came after {} of {}", client.back, self.size)));
                }
                if verify {
                    let right = pattern::check(&self.buf[..n], client.offset + client.back as u64);
                    right.map_err(|_| wrong("what came back is not what was sent"))?;
                }
                client.back += n;
                if client.back == self.size {
                    done += 1;
                    self.clients[token] = None;
                    if sent < messages {
                        self.begin(token, sent, verify)?;
                        sent += 1;
                    }
                }
            }
        }
        let bytes = messages * self.size as u64;
        Ok(Outcome { requests: messages, bytes, wall: begun.elapsed(), ..Outcome::default() })
    }
}

impl Session for Brief {
    fn verify(&mut self) -> io::Result<()> {
        self.pass(2 * self.clients.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
