//! Datagrams that must come back, one under way for each client.

use super::poller::{Poller, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

/// Clients of a relay of datagrams, behind which the backend sends each back.
pub struct Datagrams {
    poller: Poller,
    clients: Vec<UdpSocket>,
    message: Vec<u8>,
    buf: Vec<u8>,
}

impl Datagrams {
    /// A socket for each client, each with a port of its own.
    ///
    /// # Errors
    /// A socket cannot be had, or `size` is not 1 to 1,472, what a segment of Ethernet holds.
    pub fn open(relay: SocketAddr, size: usize, clients: usize) -> io::Result<Datagrams> {
        if !(1..=1472).contains(&size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a datagram has 1 to 1472 bytes"));
        }
        let poller = Poller::new()?;
        let socket = |token: usize| {
            let socket = UdpSocket::bind((relay.ip(), 0))?;
            socket.connect(relay)?;
            socket.set_nonblocking(true)?;
            poller.add(&socket, token as u64)?;
            Ok::<_, io::Error>(socket)
        };
        let clients = (0..clients).map(socket).collect::<io::Result<Vec<UdpSocket>>>()?;
        Ok(Datagrams { poller, clients, message: pattern::bytes(size), buf: vec![0; 64 << 10] })
    }

    fn pass(&mut self, messages: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let (mut sent, mut done) = (0, 0);
        // With `verify` clients send other bytes, so that what comes to the wrong one shows.
        let offset = |token: usize| if verify { (token as u64) << 20 } else { 0 };
        for token in 0..messages.min(self.clients.len() as u64) as usize {
            pattern::fill(&mut self.message, offset(token));
            transmit_small(&self.clients[token], &self.message)?;
            sent += 1;
        }
        while done < messages {
            for token in self.poller.wait()? {
                let token = token as usize;
                let client = &self.clients[token];
                let Some(n) = receive(client, &mut self.buf)? else { continue };
                let is_right = !verify || pattern::check(&self.buf[..n], offset(token)).is_ok();
                if n != self.message.len() || !is_right {
                    return Err(wrong("what came back is not what was sent"));
                }
                done += 1;
                if sent < messages {
                    sent += 1;
                    if verify {
                        pattern::fill(&mut self.message, offset(token));
                    }
                    transmit_small(client, &self.message)?;
                }
            }
        }
        let bytes = messages * self.message.len() as u64;
        Ok(Outcome { requests: messages, bytes, wall: begun.elapsed(), ..Outcome::default() })
    }
}

impl Session for Datagrams {
    fn verify(&mut self) -> io::Result<()> {
        self.pass(3 * self.clients.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
