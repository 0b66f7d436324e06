//! Pipes as the middle of a splice, kept for the next transfer when they are empty.

use super::ring::named;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::io;

/// A pipe and what it can hold.
pub struct Pipe {
    /// The end that is read from.
    pub read: OwnedFd,
    /// The end that is written to.
    pub write: OwnedFd,
    /// Bytes it holds at most, when each of its pages is full.
    pub capacity: usize,
}

/// Empty pipes of one size.
pub struct PipePool {
    size: usize,
    empty: Vec<Pipe>,
}

impl PipePool {
    /// Pipes of `size` bytes, at least 64 KiB, made when they are first needed.
    pub fn new(size: usize) -> PipePool {
        PipePool { size: size.max(64 << 10), empty: Vec::new() }
    }

    /// An empty pipe.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel does not grant the size: for an unprivileged user above
    /// `/proc/sys/fs/pipe-max-size`, or past `pipe-user-pages-soft` over all pipes. A smaller pipe would
    /// measure another road than the one that was asked for, so it is refused.
    pub fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.empty.pop() {
            return Ok(pipe);
        }
        let (read, write) =
            pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).map_err(|e| named("pipe2", e.into()))?;
        let capacity = fcntl_setpipe_size(&write, self.size).map_err(|e| {
            named(&format!("F_SETPIPE_SZ {} (run as root, or raise the limit)", self.size), e.into())
        })?;
        Ok(Pipe { read, write, capacity })
    }

    /// Takes back a pipe that nothing is left in. One that still holds bytes is to be dropped instead.
    pub fn give(&mut self, pipe: Pipe) {
        self.empty.push(pipe);
    }
}
