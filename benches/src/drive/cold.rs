//! A file that is never in memory when it is asked for.

use super::{Http, Outcome, Session};
use crate::cold::{drop_pages, open};
use crate::histogram::Histogram;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A file that is dropped from the page cache before it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ColdFile {
    /// Beginning with a slash.
    pub path: String,
    /// Bytes of the body.
    pub body: u64,
    /// What the server serves as `path`.
    pub file: PathBuf,
}

/// One connection, one request at a time, and before each of them the file is dropped from the page cache.
pub struct Cold {
    http: Http,
    file: File,
}

impl Cold {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or the file cannot be opened for writing.
    pub fn open(server: SocketAddr, cold: &ColdFile, copy: bool) -> io::Result<Cold> {
        let http = Http::open(server, &cold.path, cold.body, 1, copy)?;
        Ok(Cold { http, file: open(&cold.file)? })
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
