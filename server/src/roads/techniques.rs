//! The ways from a file to a socket.

use std::fs::File;
use std::net::TcpStream;

use annulus::transfer::Road;
use rustix::pipe::{PipeFlags, pipe_with};

use super::figures::Figures;
use super::receiver::Target;
use super::{plain, runtime, zero_copy};
use crate::exit::Failure;

/// A way to bring a file to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Technique {
    Copy,
    Sendfile,
    SpliceInline,
    SpliceRing,
    RoadInline,
    SendZc,
}

impl Technique {
    pub(super) const ALL: [Technique; 6] = [
        Technique::Copy,
        Technique::Sendfile,
        Technique::SpliceInline,
        Technique::SpliceRing,
        Technique::RoadInline,
        Technique::SendZc,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Technique::Copy => "read + write",
            Technique::Sendfile => "sendfile",
            Technique::SpliceInline => "splice inline",
            Technique::SpliceRing => "splice in the ring",
            Technique::RoadInline => "serve --road inline",
            Technique::SendZc => "read + SEND_ZC",
        }
    }

    /// The factor over plain copying that is said of it.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Technique::Copy => "1x",
            // For what is in memory the road is sendfile.
            Technique::Sendfile | Technique::RoadInline => "5-10x",
            Technique::SpliceInline | Technique::SpliceRing => "3-5x",
            Technique::SendZc => "1.2-1.5x above 10 KB",
        }
    }

    /// Sends the first `size` bytes of `file` so many times over one connection.
    ///
    /// # Errors
    /// A socket, a pipe, a core or a ring cannot be had, or the connection failed.
    pub(super) fn measure(
        self,
        file: &File,
        target: Target,
        size: u64,
        times: u64,
    ) -> Result<Figures, Failure> {
        let receiver = target.receiver().map_err(|error| self.failed(error))?;
        let measured = match self {
            Technique::Copy => {
                plain::measure(receiver, size, times, |stream| plain::copy(file, stream, size))
            }
            Technique::Sendfile => {
                plain::measure(receiver, size, times, |stream| plain::sendfile(file, stream, size))
            }
            Technique::SpliceInline => {
                let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| self.failed(error.into()))?;
                let through = |stream: &TcpStream| plain::through(file, (&to, &from), stream, size);
                plain::measure(receiver, size, times, through)
            }
            Technique::RoadInline => return runtime::measure(Road::Inline, file, receiver, size, times),
            Technique::SpliceRing => return runtime::measure(Road::Ring, file, receiver, size, times),
            Technique::SendZc => zero_copy::measure(file, receiver, size, times),
        };
        measured.map_err(|error| self.failed(error))
    }

    fn failed(self, error: std::io::Error) -> Failure {
        Failure::failed(self.name(), error)
    }
}
