//! The ways: three of plain system calls, three of the ring.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use annulus::buf::Block;
use annulus::transfer::{Road, send_file};
use annulus::{Runtime, numa};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::figures::{Clock, Cpu, Figures};
use crate::exit::Failure;

/// What plain copying copies at a time, in bytes.
const COPIED: usize = 64 << 10;
/// What a pipe takes at a time, in bytes.
const PIPED: usize = 60 << 10;

/// A way to bring a file to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Technique {
    Copy,
    Sendfile,
    Splice,
    SpliceInline,
    SpliceRing,
    SendZc,
}

impl Technique {
    pub(super) const ALL: [Technique; 6] = [
        Technique::Copy,
        Technique::Sendfile,
        Technique::Splice,
        Technique::SpliceInline,
        Technique::SpliceRing,
        Technique::SendZc,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Technique::Copy => "read + write",
            Technique::Sendfile => "sendfile",
            Technique::Splice => "splice",
            Technique::SpliceInline => "ring, splice inline",
            Technique::SpliceRing => "ring, splice in it",
            Technique::SendZc => "ring, read + SEND_ZC",
        }
    }

    /// The factor over plain copying that is said of it.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Technique::Copy => "1x",
            Technique::Sendfile => "5-10x",
            Technique::Splice | Technique::SpliceInline | Technique::SpliceRing => "3-5x",
            Technique::SendZc => "1.2-1.5x above 10 KB",
        }
    }

    /// Sends the first `size` bytes of `file` so many times over one connection.
    ///
    /// # Errors
    /// A socket, a pipe or a ring cannot be had.
    pub(super) fn measure(self, file: &File, size: u64, times: u64) -> Result<Figures, Failure> {
        let failed = |error: std::io::Error| Failure::failed(&format!("{} failed", self.name()), error);
        let (address, receiver) = receiver().map_err(failed)?;
        let figures = match self {
            Technique::Copy => plain(address, receiver, size, times, |stream| copy(file, stream, size)),
            Technique::Sendfile => {
                plain(address, receiver, size, times, |stream| sendfile(file, stream, size))
            }
            Technique::Splice => {
                let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
                plain(address, receiver, size, times, |stream| through(file, (&to, &from), stream, size))
            }
            Technique::SpliceInline | Technique::SpliceRing | Technique::SendZc => {
                return self.by_ring(file, (address, receiver), size, times);
            }
        };
        figures.map_err(failed)
    }

    /// The same on one core of a runtime. What it takes to start is not counted.
    fn by_ring(
        self,
        file: &File,
        (address, receiver): (SocketAddr, JoinHandle<Cpu>),
        size: u64,
        times: u64,
    ) -> Result<Figures, Failure> {
        let allowed = numa::thread::affinity_of_current()?;
        let cpu =
            allowed.first().ok_or_else(|| Failure::failed("cannot choose a core", "no CPU is allowed"))?;
        let cores =
            cpu.to_string().parse().map_err(|error| Failure::failed("cannot choose a core", error))?;
        let runtime = Runtime::builder().cores(cores).pool_bytes(4 << 20).build()?;
        let file = file.try_clone().map_err(|error| Failure::failed("cannot share a file", error))?;
        let shared = Arc::new(Mutex::new(Some((OwnedFd::from(file), receiver))));
        let figures = Arc::new(Mutex::new(None));
        let out = Arc::clone(&figures);
        runtime.run(move || {
            let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
            let out = Arc::clone(&out);
            async move {
                let Some((file, receiver)) = taken else { return Ok(()) };
                let file = annulus::fs::File::from_fd(file);
                let stream = annulus::net::TcpStream::connect(address).await?;
                let clock = Clock::start();
                for _ in 0..times {
                    self.send_once(&stream, &file, size).await?;
                }
                drop(stream);
                let used = annulus::spawn_blocking(move || receiver.join().unwrap_or_default()).await?;
                let figures = clock.stop(size * times, used);
                *out.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
                Ok(())
            }
        })?;
        let figures = figures.lock().unwrap_or_else(PoisonError::into_inner).take();
        figures.ok_or_else(|| Failure::failed("cannot measure", "the core ended before"))
    }

    async fn send_once(
        self,
        stream: &annulus::net::TcpStream,
        file: &annulus::fs::File,
        size: u64,
    ) -> annulus::Result<()> {
        match self {
            Technique::SpliceInline => send_file(stream, file, 0..size, Road::Inline).await?,
            Technique::SpliceRing => send_file(stream, file, 0..size, Road::Ring).await?,
            _ => return read_and_send(stream, file, size).await,
        };
        Ok(())
    }
}

/// By blocks of the core's pool, which the kernel need not copy where the network lets go of them later.
async fn read_and_send(
    stream: &annulus::net::TcpStream,
    file: &annulus::fs::File,
    size: u64,
) -> annulus::Result<()> {
    let mut at = 0;
    while at < size {
        let Some(block) = Block::take() else {
            annulus::yield_now().await;
            continue;
        };
        let len = (size - at).min(block.capacity() as u64) as usize;
        let block = file.read_exact_at(block, len, at).await.map_err(|failed| failed.error)?;
        stream.send_zc(block).await?;
        at += len as u64;
    }
    Ok(())
}

/// Takes everything that comes, and says at the end what that took of the CPU.
fn receiver() -> std::io::Result<(SocketAddr, JoinHandle<Cpu>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return Cpu::default() };
        let mut buf = vec![0; 1 << 20];
        while !matches!(stream.read(&mut buf), Ok(0) | Err(_)) {}
        Cpu::of_thread()
    })?;
    Ok((address, thread))
}

/// Measures plain system calls on this thread.
fn plain(
    address: SocketAddr,
    receiver: JoinHandle<Cpu>,
    size: u64,
    times: u64,
    mut send_once: impl FnMut(&TcpStream) -> std::io::Result<()>,
) -> std::io::Result<Figures> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    for _ in 0..times {
        send_once(&stream)?;
    }
    drop(stream);
    let used = receiver.join().unwrap_or_default();
    Ok(clock.stop(size * times, used))
}

fn copy(file: &File, mut stream: &TcpStream, size: u64) -> std::io::Result<()> {
    let mut buf = [0; COPIED];
    let mut at = 0;
    while at < size {
        let now = (size - at).min(COPIED as u64) as usize;
        file.read_exact_at(&mut buf[..now], at)?;
        stream.write_all(&buf[..now])?;
        at += now as u64;
    }
    Ok(())
}

fn sendfile(file: &File, stream: &TcpStream, size: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < size {
        let left = (size - at).min(1 << 30) as usize;
        if rustix::fs::sendfile(stream, file, Some(&mut at), left)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn through(
    file: &File,
    (to, from): (&OwnedFd, &OwnedFd),
    stream: &TcpStream,
    size: u64,
) -> std::io::Result<()> {
    let mut at = 0;
    while at < size {
        let left = (size - at).min(PIPED as u64) as usize;
        let mut held = splice(file.as_fd(), Some(&mut at), to.as_fd(), None, left, SpliceFlags::MOVE)?;
        if held == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let more = if at < size { SpliceFlags::MORE } else { SpliceFlags::empty() };
        while held > 0 {
            held -= splice(from.as_fd(), None, stream.as_fd(), None, held, SpliceFlags::MOVE | more)?;
        }
    }
    Ok(())
}
