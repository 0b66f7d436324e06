//! Messages that come back, one under way on each connection.

use super::poller::{Poller, connect, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use rustix::fd::OwnedFd;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Connections to an echo server.
pub struct Echo {
    poller: Poller,
    clients: Vec<Client>,
    size: usize,
    message: Vec<u8>,
    buf: Vec<u8>,
}

struct Client {
    socket: OwnedFd,
    /// Bytes of the message under way that have come back.
    back: usize,
}

impl Echo {
    /// Connects `connections` times.
    ///
    /// # Errors
    /// The server cannot be reached, or `size` is not 1 to 16,384.
    pub fn open(server: SocketAddr, size: usize, connections: usize) -> io::Result<Echo> {
        if !(1..=16 << 10).contains(&size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message has 1 to 16384 bytes"));
        }
        let poller = Poller::new()?;
        let mut clients = Vec::new();
        for token in 0..connections as u64 {
            let socket = connect(server)?;
            poller.add(&socket, token)?;
            clients.push(Client { socket, back: 0 });
        }
        let message = pattern::bytes(size);
        Ok(Echo { poller, clients, size, message, buf: vec![0; 64 << 10] })
    }

    fn pass(&mut self, messages: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut sent = messages.min(self.clients.len() as u64);
        let mut done = 0;
        for client in &self.clients[..sent as usize] {
            transmit_small(&client.socket, &self.message)?;
        }
        while done < messages {
            for token in self.poller.wait()? {
                let client = &mut self.clients[token as usize];
                let Some(n) = receive(&client.socket, &mut self.buf)? else { continue };
                if n == 0 {
                    return Err(wrong("the connection ended where a message was due"));
                }
                let due = self.message.get(client.back..client.back + n);
                if due.is_none() || (verify && due != Some(&self.buf[..n])) {
                    return Err(wrong("what came back is not what was sent"));
                }
                client.back += n;
                if client.back == self.size {
                    client.back = 0;
                    done += 1;
                    if sent < messages {
                        sent += 1;
                        transmit_small(&client.socket, &self.message)?;
                    }
                }
            }
        }
        Ok(Outcome {
            requests: messages,
            bytes: messages * self.size as u64,
            wall: begun.elapsed(),
            ..Outcome::default()
        })
    }
}

impl Session for Echo {
    fn verify(&mut self) -> io::Result<()> {
        // Connections carry different bytes, so that an answer on the wrong one shows.
        for round in 0..3 {
            for token in 0..self.clients.len() as u64 {
                pattern::fill(&mut self.message, (round << 40) + (token << 20));
                self.one(token as usize)?;
            }
        }
        self.pass(3 * self.clients.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}

impl Echo {
    /// Sends the message on one connection and waits for it, checked.
    fn one(&mut self, which: usize) -> io::Result<()> {
        transmit_small(&self.clients[which].socket, &self.message)?;
        let mut back = 0;
        while back < self.size {
            for token in self.poller.wait()? {
                if token as usize != which {
                    return Err(wrong("a message came back on another connection"));
                } else if let Some(n) = receive(&self.clients[which].socket, &mut self.buf)? {
                    if n == 0 || self.message.get(back..back + n) != Some(&self.buf[..n]) {
                        return Err(wrong("what came back is not what was sent"));
                    }
                    back += n;
                }
            }
        }
        Ok(())
    }
}
