//! The ways of plain system calls.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::pipe::{SpliceFlags, splice};

use super::figures::{Clock, Figures};
use super::receiver::{Receiver, finish};

/// What plain copying copies at a time, in bytes.
pub(super) const COPIED: usize = 64 << 10;
/// What a pipe takes at a time, in bytes.
const PIPED: usize = 60 << 10;

/// Measures `send_once`, done so many times over one connection.
pub(super) fn measure(
    receiver: Receiver,
    size: u64,
    times: u64,
    mut send_once: impl FnMut(&TcpStream) -> std::io::Result<()>,
) -> std::io::Result<Figures> {
    let stream = TcpStream::connect(receiver.address)?;
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    for _ in 0..times {
        send_once(&stream)?;
    }
    finish(&stream)?;
    Ok(clock.stop(size * times, receiver.used()))
}

/// `read(2)` and `write(2)`.
pub(super) fn copy(file: &File, mut stream: &TcpStream, size: u64) -> std::io::Result<()> {
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

/// `sendfile(2)`.
pub(super) fn sendfile(file: &File, stream: &TcpStream, size: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < size {
        let left = (size - at).min(1 << 30) as usize;
        if rustix::fs::sendfile(stream, file, Some(&mut at), left)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// `splice(2)` into a pipe and out of it.
pub(super) fn through(
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
