//! GET over keep-alive connections, each with one request under way.

use super::poller::{Poller, connect, discard, receive, transmit_small};
use super::{Outcome, Session, wrong};
use crate::pattern;
use rustix::fd::OwnedFd;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// A head longer than this is no head of ours.
const HEAD_MOST: usize = 16 << 10;

/// Keep-alive connections to one server.
pub struct Http {
    poller: Poller,
    conns: Vec<Conn>,
    request: Vec<u8>,
    body: u64,
    copy: bool,
    buf: Vec<u8>,
}

/// One connection, and how far its answer is.
pub(super) struct Conn {
    pub(super) socket: OwnedFd,
    /// The beginning of an answer's head, when it came in pieces.
    head: Vec<u8>,
    /// Bytes of the body that are still to come, or `None` while the head is.
    pub(super) left: Option<u64>,
}

/// Reads a head that is 200 and says its length. Returns the bytes of the body, and of the head.
pub(super) fn parse_head(bytes: &[u8]) -> io::Result<Option<(u64, usize)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MOST { Err(wrong("an endless head")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or("");
    if !status.starts_with("HTTP/1.1 200") {
        return Err(wrong(format!("answered `{status}`")));
    }
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok()).flatten()
    });
    match length {
        Some(length) => Ok(Some((length, end + 4))),
        None => Err(wrong("an answer without Content-Length")),
    }
}

/// What is asked.
pub(super) fn request(server: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: drive\r\nAccept: */*\r\n\r\n")
}

impl Http {
    /// Connects `connections` times.
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
        let poller = Poller::new()?;
        let mut conns = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let socket = connect(server)?;
            poller.add(&socket, token)?;
            conns.push(Conn::new(socket));
        }
        Ok(Http {
            poller,
            conns,
            request: request(server, path).into_bytes(),
            body,
            copy,
            buf: vec![0; 256 << 10],
        })
    }

    pub(super) fn pass(&mut self, requests: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut asked = requests.min(self.conns.len() as u64);
        let mut done = 0;
        for conn in &self.conns[..asked as usize] {
            transmit_small(&conn.socket, &self.request)?;
        }
        while done < requests {
            for token in self.poller.wait()? {
                let conn = &mut self.conns[token as usize];
                while conn.take(&mut self.buf, self.body, verify, self.copy)? {
                    if conn.left == Some(0) {
                        conn.left = None;
                        done += 1;
                        if asked < requests {
                            asked += 1;
                            transmit_small(&conn.socket, &self.request)?;
                        }
                        break;
                    }
                }
            }
        }
        Ok(Outcome { requests, bytes: requests * self.body, wall: begun.elapsed(), latency: None })
    }
}

impl Conn {
    pub(super) fn new(socket: OwnedFd) -> Conn {
        Conn { socket, head: Vec::new(), left: None }
    }

    /// Takes what has come of the answer; `false` when nothing has.
    pub(super) fn take(&mut self, buf: &mut [u8], body: u64, verify: bool, copy: bool) -> io::Result<bool> {
        let Some(left) = self.left else { return self.take_head(buf, body, verify) };
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
        if verify {
            check(&buf[..n], body - left)?;
        }
        self.left = Some(left - n as u64);
        Ok(true)
    }

    fn take_head(&mut self, buf: &mut [u8], body: u64, verify: bool) -> io::Result<bool> {
        // A large body behind a head is left to the next call, which may drop it uncopied.
        let room = buf.len().min(if body > HEAD_MOST as u64 { 512 } else { usize::MAX });
        let Some(n) = receive(&self.socket, &mut buf[..room])? else { return Ok(false) };
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
        let Some((length, head)) = parse_head(bytes)? else {
            self.head = bytes.to_vec();
            return Ok(true);
        };
        if length != body {
            return Err(wrong(format!("a body of {length} bytes where {body} were due")));
        }
        let begun = &bytes[head..];
        if begun.len() as u64 > body {
            return Err(wrong("bytes after the end of the body"));
        }
        if verify {
            check(begun, 0)?;
        }
        self.left = Some(body - begun.len() as u64);
        Ok(true)
    }
}

fn check(bytes: &[u8], offset: u64) -> io::Result<()> {
    pattern::check(bytes, offset).map_err(|at| wrong(format!("byte {at} of the body is wrong")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_servers_write_them() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  12\r\n\r\nbody";
        assert_eq!(parse_head(head).unwrap(), Some((12, head.len() - 4)));
        for cut in 0..head.len() - 4 {
            assert_eq!(parse_head(&head[..cut]).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn other_answers_are_refused() {
        for head in [
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(parse_head(head).is_err());
        }
        assert!(parse_head(&[b'a'; HEAD_MOST + 1]).is_err());
    }
}
