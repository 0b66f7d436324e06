//! A connection of the part of the driver that is an Annulus program.

use super::wrong;
use crate::pattern;
use annulus::buf::{IoBuf, Lease};
use annulus::fd::{AsyncFd, Interest};
use annulus::net::TcpStream;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are thrown away by one call.
const DISCARDED: usize = 128 << 10;

/// What is sent over and over where nobody checks.
fn filler() -> &'static [u8] {
    static FILLER: OnceLock<Vec<u8>> = OnceLock::new();
    FILLER.get_or_init(|| pattern::bytes(256 << 10))
}

/// A stream, and the received bytes of it that were not read yet.
pub(super) struct Wire {
    stream: TcpStream,
    rest: Option<Lease>,
    /// Bytes that this side has moved, of all connections: when it stands still, somebody is stuck.
    moved: Arc<AtomicU64>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, moved: Arc<AtomicU64>) -> Wire {
        Wire { stream, rest: None, moved }
    }

    pub(super) async fn connect(server: SocketAddr, moved: &Arc<AtomicU64>) -> io::Result<Wire> {
        Ok(Wire::new(TcpStream::connect(server).await.map_err(told)?, Arc::clone(moved)))
    }

    /// The next bytes, at most `most`; `None` at the end of the stream.
    pub(super) async fn some(&mut self, most: u64) -> io::Result<Option<Lease>> {
        let mut piece = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let Some(piece) = self.stream.recv().await.map_err(told)? else { return Ok(None) };
                self.moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
                piece
            }
        };
        if piece.len() as u64 <= most {
            return Ok(Some(piece));
        }
        let wanted = piece.split_to(most as usize);
        self.rest = Some(piece);
        Ok(Some(wanted))
    }

    /// Exactly `N` bytes; `None` when the stream ends before the first.
    pub(super) async fn exactly<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let (mut bytes, mut have) = ([0; N], 0);
        while have < N {
            let Some(piece) = self.some((N - have) as u64).await? else {
                return if have == 0 { Ok(None) } else { Err(cut((N - have) as u64)) };
            };
            bytes[have..have + piece.len()].copy_from_slice(&piece);
            have += piece.len();
        }
        Ok(Some(bytes))
    }

    /// Takes `bytes` bytes, which if `verify` are those of the pattern from `offset` on.
    pub(super) async fn take(&mut self, bytes: u64, verify: bool, offset: u64) -> io::Result<()> {
        let mut moved = 0;
        while moved < bytes {
            let Some(piece) = self.some(bytes - moved).await? else { return Err(cut(bytes - moved)) };
            if verify {
                let right = pattern::check(&piece, offset + moved);
                right.map_err(|at| wrong(format!("byte {at} of the stream is wrong")))?;
            }
            moved += piece.len() as u64;
        }
        Ok(())
    }

    /// Sends the first `bytes` bytes of the pattern, or if they are not looked at, as many others.
    pub(super) async fn put(&mut self, bytes: u64, verify: bool) -> io::Result<()> {
        let mut moved = 0;
        let mut made = Vec::new();
        while moved < bytes {
            let n = (bytes - moved).min(filler().len() as u64) as usize;
            if verify {
                made.resize(n, 0);
                pattern::fill(&mut made, moved);
                made = self.send(made).await?;
            } else {
                self.send(&filler()[..n]).await?;
            }
            moved += n as u64;
            self.moved.fetch_add(n as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends all of `buf` and gives it back.
    pub(super) async fn send<B: IoBuf>(&mut self, buf: B) -> io::Result<B> {
        self.stream.send_all(buf).await.map_err(|e| told(e.into()))
    }

    /// Takes `bytes` bytes and throws them away in the kernel (`MSG_TRUNC`, tcp(7)): a copy of a fast stream
    /// would take the driver's CPU from what it measures.
    pub(super) async fn discard(self, bytes: u64) -> io::Result<()> {
        let had = self.rest.as_ref().map_or(0, |rest| rest.len());
        let (fd, chunks) = self.stream.into_owned_fd().await.map_err(told)?;
        let had = had + chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        drop(chunks);
        let (mut left, fd) = (bytes.saturating_sub(had as u64), AsyncFd::new(fd));
        let mut spare = vec![0; DISCARDED];
        while left > 0 {
            let most = left.min(DISCARDED as u64) as usize;
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            let taken = fd
                .io(Interest::READABLE, |fd| Ok(recv(fd, &mut spare[..most], flags)?.1))
                .await
                .map_err(told)?;
            if taken == 0 {
                return Err(cut(left));
            }
            left -= taken as u64;
            self.moved.fetch_add(taken as u64, Ordering::Relaxed);
            // Others have their turn, however much has come.
            annulus::yield_now().await;
        }
        Ok(())
    }

    /// Whether something came that nobody waited for.
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }
}

fn cut(left: u64) -> io::Error {
    wrong(format!("the connection ended {left} bytes too early"))
}

/// An error of the runtime, for the harness.
pub(super) fn told(e: annulus::Error) -> io::Error {
    io::Error::other(e.to_string())
}
