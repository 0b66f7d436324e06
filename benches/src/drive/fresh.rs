//! A connection for every request: connect, ask, take the answer, close.

use super::asks::Asks;
use super::http::Conn;
use super::poller::{Poller, connect};
use super::{Outcome, Session};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Connections that live for one request, so many at the same time. The client closes them.
pub struct Fresh {
    poller: Poller,
    server: SocketAddr,
    conns: Vec<Option<Conn>>,
    asks: Asks,
    body: u64,
    buf: Vec<u8>,
}

impl Fresh {
    /// Connects not yet.
    ///
    /// # Errors
    /// There is no epoll to be had.
    pub fn open(server: SocketAddr, path: &str, body: u64, connections: usize) -> io::Result<Fresh> {
        let conns = (0..connections).map(|_| None).collect();
        let asks = Asks::file(server, path, body);
        Ok(Fresh { poller: Poller::new()?, server, conns, asks, body, buf: vec![0; 256 << 10] })
    }

    fn begin(&mut self, token: usize) -> io::Result<()> {
        let mut conn = Conn::new(connect(self.server)?);
        conn.ask(&mut self.asks)?;
        self.poller.add(&conn.socket, token as u64)?;
        // What was there before is closed, and its socket leaves the poller by that.
        self.conns[token] = Some(conn);
        Ok(())
    }

    fn pass(&mut self, requests: u64, verify: bool) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut asked = requests.min(self.conns.len() as u64);
        let mut done = 0;
        for token in 0..asked as usize {
            self.begin(token)?;
        }
        while done < requests {
            for token in self.poller.wait()? {
                let token = token as usize;
                let Some(conn) = &mut self.conns[token] else { continue };
                while conn.take(&mut self.buf, verify, true)? {
                    if conn.left == Some(0) {
                        done += 1;
                        self.conns[token] = None;
                        if asked < requests {
                            asked += 1;
                            self.begin(token)?;
                        }
                        break;
                    }
                }
            }
        }
        let bytes = requests * self.body;
        Ok(Outcome { requests, bytes, wall: begun.elapsed(), ..Outcome::default() })
    }
}

impl Session for Fresh {
    fn verify(&mut self) -> io::Result<()> {
        self.pass(2 * self.conns.len() as u64, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
