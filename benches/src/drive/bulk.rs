//! Bulk bytes through a relay: the driver is both ends.

use super::backend::{ACK, Backend, Manner, Order, Served};
use super::poller::{Poller, connect, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use rustix::fd::OwnedFd;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Instant;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the backend to the client.
    Down,
    /// From the client to the backend.
    Up,
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Direction, String> {
        match text {
            "down" => Ok(Direction::Down),
            "up" => Ok(Direction::Up),
            _ => Err(format!("`{text}` is no direction: down or up")),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Down => "down",
            Direction::Up => "up",
        })
    }
}

/// Sockets of the backend are numbered from here.
const BACKEND: u64 = 1 << 32;

/// Connections through a relay to the driver's own backend.
pub struct Bulk {
    poller: Poller,
    clients: Vec<Client>,
    served: Vec<Served>,
    direction: Direction,
    copy: bool,
    filler: Vec<u8>,
    buf: Vec<u8>,
}

struct Client {
    socket: OwnedFd,
    total: u64,
    moved: u64,
    /// Bytes of the backend's word that all has come.
    acked: usize,
}

impl Bulk {
    /// Connects `connections` times, and waits until the relay has connected as often to the backend.
    ///
    /// # Errors
    /// The relay cannot be reached, or does not reach the backend.
    pub fn open(
        relay: SocketAddr,
        backend: &Backend,
        direction: Direction,
        connections: usize,
        copy: bool,
    ) -> io::Result<Bulk> {
        let poller = Poller::new()?;
        let mut clients = Vec::with_capacity(connections);
        let mut served = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let socket = connect(relay)?;
            poller.add(&socket, token, false)?;
            let behind = backend.accept_for(&socket)?;
            clients.push(Client { socket, total: 0, moved: 0, acked: 0 });
            poller.add(&behind, BACKEND + token, false)?;
            served.push(Served::new(behind, BACKEND + token));
        }
        let filler = pattern::bytes(256 << 10);
        Ok(Bulk { poller, clients, served, direction, copy, filler, buf: vec![0; 256 << 10] })
    }

    fn pass(&mut self, bytes: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let each = (bytes / self.clients.len() as u64).max(1);
        let order = match self.direction {
            Direction::Down => Order::Send(each),
            Direction::Up => Order::Receive(each),
        };
        for (token, client) in self.clients.iter_mut().enumerate() {
            (client.total, client.moved, client.acked) = (each, 0, 0);
            transmit_small(&client.socket, &order.encode())?;
            if self.direction == Direction::Up {
                self.poller.change(&client.socket, token as u64, true)?;
            }
        }
        let mut manner = Manner { filler: &self.filler, buf: &mut self.buf, verify, copy: self.copy };
        let mut done = 0;
        while done < self.clients.len() {
            for ready in self.poller.wait()? {
                if ready.token >= BACKEND {
                    self.served[(ready.token - BACKEND) as usize].go_on(&self.poller, &mut manner)?;
                    continue;
                }
                let client = &mut self.clients[ready.token as usize];
                let finished = match self.direction {
                    Direction::Down => client.take(&mut manner)?,
                    Direction::Up => {
                        if ready.writable && client.put(&mut manner)? {
                            self.poller.change(&client.socket, ready.token, false)?;
                        }
                        ready.readable && client.take_ack()?
                    }
                };
                done += usize::from(finished);
            }
        }
        let requests = self.clients.len() as u64;
        Ok(Outcome { requests, bytes: each * requests, wall: begun.elapsed() })
    }
}

impl Client {
    /// Takes what has come; `true` when it was the last.
    fn take(&mut self, manner: &mut Manner<'_>) -> io::Result<bool> {
        while self.moved < self.total {
            let Some(n) = manner.receive(&self.socket, self.moved, self.total - self.moved)? else {
                return Ok(false);
            };
            self.moved += n as u64;
        }
        Ok(true)
    }

    /// Sends what fits; `true` when it was the last.
    fn put(&mut self, manner: &mut Manner<'_>) -> io::Result<bool> {
        while self.moved < self.total {
            let Some(n) = manner.send(&self.socket, self.moved, self.total - self.moved)? else {
                return Ok(false);
            };
            self.moved += n as u64;
        }
        Ok(true)
    }

    /// Reads the backend's word that all has come; `true` when it is complete.
    fn take_ack(&mut self) -> io::Result<bool> {
        let mut word = [0; ACK.len()];
        let rest = &mut word[self.acked..];
        match receive(&self.socket, rest)? {
            None => Ok(false),
            Some(0) => Err(wrong("the relay closed a connection before the backend had all")),
            Some(n) if rest[..n] == ACK[self.acked..self.acked + n] && self.moved == self.total => {
                self.acked += n;
                Ok(self.acked == ACK.len())
            }
            Some(_) => Err(wrong("bytes came that nobody sent")),
        }
    }
}

impl Session for Bulk {
    fn verify(&mut self) -> io::Result<()> {
        // More than the sockets and the pipe on the way can hold, and no multiple of any step.
        let bytes = (12 << 20) / self.clients.len() as u64 + 4_099;
        self.pass(bytes * self.clients.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
