//! A member as its parent sees it: started, heard, killed, reaped.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use annulus::numa::NodeId;
use annulus::numa::thread::starting_at;

use super::end::End;
use crate::exit::{Failure, Kind};
use crate::processes::ProcessShare;
use crate::processes::line::{Frame, Heard, Line};
use crate::processes::member::{COMMAND, MemberArgs};
use crate::processes::orders::{Down, Up};
use crate::service_manager::notify;

/// A member, from outside.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: NodeId,
    pub(super) process: Child,
    /// Not waited for: one that takes no orders must not hold up the others.
    pub(super) line: Line,
    pub(super) ready: bool,
    pub(super) killed: bool,
}

impl Process {
    /// Starts the program once more, under the same name, on the share's node, as one of several that have
    /// so many cores together.
    pub(super) fn start(share: &ProcessShare, cores_of_all: usize, is_first: bool) -> Result<Self, End> {
        let what = format!("cannot start the process of node {}", share.node);
        let failed = |error| Failure::failed(&what, error);
        let (line, theirs) = UnixStream::pair().map_err(failed)?;
        let line = Line::new(line).map_err(failed)?;
        // The same program, also when its file has been replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(std::env::args_os().next().unwrap_or_else(|| "annulus".into()))
            .arg(COMMAND)
            .arg(MemberArgs::new(share, cores_of_all).to_string())
            .stdin(OwnedFd::from(theirs));
        notify::keep_from(&mut command);
        let memory = share.some_without_memory.then_some(share.node);
        let process = starting_at(&share.cpus, memory, || command.spawn())?.map_err(|error| {
            // No /proc, or a filter that lets no program start another.
            let refused = matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EACCES | libc::EPERM | libc::ENOSYS)
            );
            if !(refused && is_first) {
                return End::Failed(failed(error));
            }
            End::CannotStart(Failure::new(
                Kind::Platform,
                format!("{what}: {error}; mount /proc and allow execve, or serve with --processes one"),
            ))
        })?;
        Ok(Process { node: share.node, process, line, ready: false, killed: false })
    }

    /// Gives it what limits are counted in, and then what it begins with.
    pub(super) fn begin(
        &mut self,
        limits: &OwnedFd,
        (payload, sockets): (Vec<u8>, Vec<OwnedFd>),
    ) -> Result<(), Failure> {
        let limits = limits.try_clone();
        let limits = limits.map_err(|error| Failure::failed("cannot pass the limits on", error))?;
        self.tell(Down::Limits, &[], vec![limits]);
        self.tell(Down::Prepare, &payload, sockets);
        Ok(())
    }

    /// It ends as soon as the kernel can.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        if let Err(error) = self.process.kill() {
            tracing::warn!(%error, node = %self.node, "a process cannot be killed");
        }
    }

    /// Says something to it, without waiting.
    pub(super) fn tell(&mut self, down: Down, payload: &[u8], sockets: Vec<OwnedFd>) {
        match self.line.send(down as u8, payload, sockets) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!(node = %self.node, pid = self.process.id(), "a process does not take orders");
            }
            // An error means that it ends, which is noticed next.
            Err(error) => tracing::debug!(%error, node = %self.node, "a process does not listen any more"),
        }
    }

    /// Hears what it says, and sends what waited. `None`: it has ended.
    pub(super) fn hear(&mut self) -> Result<Option<Vec<Frame>>, Failure> {
        let failed = |error| Failure::failed("cannot hear of a process", error);
        if let Err(error) = self.line.flush() {
            // Its end is the next that is heard of it.
            tracing::debug!(%error, node = %self.node, "a process does not listen any more");
        }
        let mut frames = Vec::new();
        loop {
            match self.line.hear().map_err(failed)? {
                Heard::Frame(frame) if Up::of(frame.kind) == Some(Up::Ready) => self.ready = true,
                Heard::Frame(frame) => frames.push(frame),
                Heard::Nothing => return Ok(Some(frames)),
                Heard::Gone => return Ok(None),
            }
        }
    }

    /// Learns how it ended, and says what of it is a failure.
    pub(super) fn reap(mut self, asked_to_end: bool) -> Option<Failure> {
        let status = match self.process.wait() {
            Ok(status) => status,
            Err(error) => return Some(Failure::failed("cannot learn how a process ended", error)),
        };
        let what = format!("the process of node {} (pid {})", self.node, self.process.id());
        if asked_to_end && (status.success() || self.killed && !self.ready) {
            return None;
        }
        Some(match (status.code().and_then(Kind::of_code), status.signal()) {
            (Some(kind), _) => Failure::told(kind, format!("{what} failed")),
            (None, Some(_)) if self.killed => {
                Failure::new(Kind::Failed, format!("{what} did not end when it was asked to, and was killed"))
            }
            (None, Some(signal)) => Failure::new(
                Kind::Failed,
                format!("{what} was killed by signal {signal}; the others end with it"),
            ),
            (None, None) => {
                Failure::new(Kind::Failed, format!("{what} ended with {status}; the others end with it"))
            }
        })
    }
}
