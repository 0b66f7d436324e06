//! A large file that is not in memory, streamed while small requests are measured on the same server.

use super::asks::request;
use super::cold::ColdFile;
use super::wire::Wire;
use super::{asks, wrong};
use crate::cold::{drop_pages, open};
use annulus::{JoinHandle, spawn, spawn_blocking};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What is streamed, again for each run.
pub(super) struct ColdStream(Rc<Source>);

struct Source {
    server: SocketAddr,
    moved: Arc<AtomicU64>,
    request: Vec<u8>,
    file: Arc<File>,
    body: u64,
}

/// A stream under way.
pub(super) struct Streaming {
    task: JoinHandle<io::Result<()>>,
}

impl ColdStream {
    /// # Errors
    /// The file cannot be opened for writing.
    pub(super) fn new(server: SocketAddr, cold: &ColdFile, moved: &Arc<AtomicU64>) -> io::Result<ColdStream> {
        let (request, file) = (request(server, &cold.path, ""), Arc::new(open(&cold.file)?));
        let moved = Arc::clone(moved);
        Ok(ColdStream(Rc::new(Source { server, moved, request, file, body: cold.body })))
    }

    /// Drops the file from memory, asks for it, and returns when its first bytes are here. When the whole
    /// file has come, it is dropped and asked for again: a disk may be faster than a run is long.
    ///
    /// # Errors
    /// The file does not leave memory, or the server does not send it.
    pub(super) async fn begin(&self) -> io::Result<Streaming> {
        let source = Rc::clone(&self.0);
        let (mut wire, mut left) = source.ask().await?;
        let task = spawn(async move {
            loop {
                wire.discard(left).await?;
                (wire, left) = source.ask().await?;
            }
        });
        Ok(Streaming { task })
    }
}

impl Source {
    /// A connection, and how many bytes of the body are still to come on it.
    async fn ask(&self) -> io::Result<(Wire, u64)> {
        let file = Arc::clone(&self.file);
        let dropped = spawn_blocking(move || drop_pages(&file)).await;
        dropped.map_err(|e| io::Error::other(e.to_string()))??;
        let mut wire = Wire::connect(self.server, &self.moved).await?;
        wire.send(self.request.clone()).await?;
        let head = wire.some(u64::MAX).await?.ok_or_else(|| wrong("no cold file came"))?;
        let (length, end) = asks::parse_head(&head, 200)?.ok_or_else(|| wrong("half a head came"))?;
        if length != self.body {
            return Err(wrong(format!("a cold file of {length} bytes came")));
        }
        let left = length - (head.len() - end) as u64;
        drop(head);
        Ok((wire, left))
    }
}

impl Streaming {
    /// Cuts it.
    ///
    /// # Errors
    /// It had broken off already, so that the last requests had the server for themselves.
    pub(super) async fn end(self) -> io::Result<()> {
        if self.task.is_finished() {
            let ended = self.task.await.map_err(|e| io::Error::other(e.to_string()))?;
            return ended.and_then(|()| Err(wrong("the cold file broke off")));
        }
        self.task.abort();
        Ok(())
    }
}
