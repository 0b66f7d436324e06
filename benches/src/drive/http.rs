//! GET over keep-alive connections, each with one request under way.

use super::asks::{Asks, Due, HEAD_MOST, Told, parse_head};
use super::files::Choice;
use super::poller::{Poller, connect, discard, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use rustix::fd::OwnedFd;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Keep-alive connections to one server.
pub struct Http {
    poller: Poller,
    conns: Vec<Conn>,
    asks: Asks,
    copy: bool,
    buf: Vec<u8>,
}

/// One connection, and how far its answer is.
pub(super) struct Conn {
    pub(super) socket: OwnedFd,
    due: Due,
    /// The beginning of an answer's head, when it came in pieces.
    head: Vec<u8>,
    /// Bytes of the body that are still to come, or `None` while the head is.
    pub(super) left: Option<u64>,
}

impl Http {
    /// Connects `connections` times, to ask for the file `path` of `body` bytes of the pattern.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(
        server: SocketAddr,
        path: &str,
        body: u64,
        connections: usize,
        copy: bool,
    ) -> io::Result<Http> {
        Self::asking(Asks::file(server, path, body), server, connections, copy)
    }

    /// The same, to be told something.
    ///
    /// # Errors
    /// The server cannot be reached, or says neither tag nor time of a file that is to be asked for again.
    pub fn told(
        server: SocketAddr,
        path: &str,
        told: Told,
        connections: usize,
        copy: bool,
    ) -> io::Result<Http> {
        Self::asking(Asks::told(server, path, told)?, server, connections, copy)
    }

    /// The same, for one of many files.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn many(server: SocketAddr, choice: Choice, connections: usize, copy: bool) -> io::Result<Http> {
        Self::asking(Asks::many(server, choice), server, connections, copy)
    }

    fn asking(asks: Asks, server: SocketAddr, connections: usize, copy: bool) -> io::Result<Http> {
        let poller = Poller::new()?;
        let mut conns = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let socket = connect(server)?;
            poller.add(&socket, token)?;
            conns.push(Conn::new(socket));
        }
        Ok(Http { poller, conns, asks, copy, buf: vec![0; 256 << 10] })
    }

    pub(super) fn pass(&mut self, requests: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut asked = requests.min(self.conns.len() as u64);
        let (mut done, mut bytes) = (0, 0);
        for conn in &mut self.conns[..asked as usize] {
            conn.ask(&mut self.asks)?;
        }
        while done < requests {
            for token in self.poller.wait()? {
                let conn = &mut self.conns[token as usize];
                while conn.take(&mut self.buf, verify, self.copy)? {
                    if conn.left == Some(0) {
                        conn.left = None;
                        done += 1;
                        bytes += conn.due.len.unwrap_or(0);
                        if asked < requests {
                            asked += 1;
                            conn.ask(&mut self.asks)?;
                        }
                        break;
                    }
                }
            }
        }
        Ok(Outcome { requests, bytes, wall: begun.elapsed(), ..Outcome::default() })
    }
}

impl Conn {
    pub(super) fn new(socket: OwnedFd) -> Conn {
        Conn { socket, due: Due::file(0), head: Vec::new(), left: None }
    }

    /// Sends the next request.
    pub(super) fn ask(&mut self, asks: &mut Asks) -> io::Result<()> {
        let (request, due) = asks.next();
        self.due = due;
        transmit_small(&self.socket, request)
    }

    /// Takes what has come of the answer; `false` when nothing has.
    pub(super) fn take(&mut self, buf: &mut [u8], verify: bool, copy: bool) -> io::Result<bool> {
        let Some(left) = self.left else { return self.take_head(buf, verify) };
        let got = if copy || verify {
            let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            receive(&self.socket, &mut buf[..len])?
        } else {
            discard(&self.socket, buf, left)?
        };
        let Some(n) = got else { return Ok(false) };
        if n == 0 {
            return Err(wrong(format!("the connection ended {left} bytes before the body did")));
        }
        if verify && let Some(len) = self.due.len {
            check(&buf[..n], self.due.offset, len - left)?;
        }
        self.left = Some(left - n as u64);
        Ok(true)
    }

    fn take_head(&mut self, buf: &mut [u8], verify: bool) -> io::Result<bool> {
        // A large body behind a head is left to the next call, which may drop it uncopied.
        let is_large = self.due.len.is_some_and(|len| len > HEAD_MOST as u64);
        let most = buf.len().min(if is_large { 512 } else { usize::MAX });
        let Some(n) = receive(&self.socket, &mut buf[..most])? else { return Ok(false) };
        if n == 0 {
            return Err(wrong("the connection ended where an answer was due"));
        }
        let joined;
        let bytes = if self.head.is_empty() {
            &buf[..n]
        } else {
            self.head.extend_from_slice(&buf[..n]);
            joined = std::mem::take(&mut self.head);
            &joined[..]
        };
        let Some((length, head)) = parse_head(bytes, self.due.status)? else {
            self.head = bytes.to_vec();
            return Ok(true);
        };
        if let Some(due) = self.due.len.filter(|due| *due != length) {
            return Err(wrong(format!("a body of {length} bytes where {due} were due")));
        }
        let begun = &bytes[head..];
        if begun.len() as u64 > length {
            return Err(wrong("bytes after the end of the body"));
        }
        if verify && self.due.len.is_some() {
            check(begun, self.due.offset, 0)?;
        }
        self.left = Some(length - begun.len() as u64);
        Ok(true)
    }
}

/// Checks bytes that stand at `at` in a body which begins at `offset` in the pattern.
fn check(bytes: &[u8], offset: u64, at: u64) -> io::Result<()> {
    pattern::check(bytes, offset + at)
        .map_err(|wrong_at| wrong(format!("byte {} of the body is wrong", wrong_at - offset)))
}

impl Session for Http {
    fn verify(&mut self) -> io::Result<()> {
        // Twice per connection, so that the second answer must begin exactly where the first has ended.
        self.pass(2 * self.conns.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
