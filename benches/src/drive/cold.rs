//! A file that is never in memory when it is asked for.

use super::{Http, Outcome, Session};
use crate::cold::{drop_pages, open};
use crate::histogram::Histogram;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// One connection, one request at a time, and before each of them the file is dropped from the page cache.
pub struct Cold {
    http: Http,
    file: File,
}

impl Cold {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or `file` cannot be opened for writing.
    pub fn open(server: SocketAddr, path: &str, body: u64, file: &Path, copy: bool) -> io::Result<Cold> {
        Ok(Cold { http: Http::open(server, path, body, 1, copy)?, file: open(file)? })
    }

    fn pass(&mut self, requests: u64, verify: bool) -> io::Result<Outcome> {
        let mut sum = Outcome { latency: Some(Histogram::default()), ..Outcome::default() };
        for _ in 0..requests {
            drop_pages(&self.file)?;
            let one = self.http.pass(1, verify)?;
            // Dropping is our time, not the server's.
            sum.wall += one.wall;
            sum.bytes += one.bytes;
            sum.requests += 1;
            if let Some(latency) = &mut sum.latency {
                latency.record(u64::try_from(one.wall.as_nanos()).unwrap_or(u64::MAX));
            }
        }
        sum.wall = sum.wall.max(Duration::from_nanos(1));
        Ok(sum)
    }
}

impl Session for Cold {
    fn verify(&mut self) -> io::Result<()> {
        self.pass(2, true).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.pass(work, false)
    }
}
