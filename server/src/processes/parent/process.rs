//! A member as its parent sees it: started, heard, killed, reaped.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use annulus::numa::NodeId;
use annulus::numa::thread::starting_at;
use rustix::io::{FdFlags, fcntl_setfd};

use super::End;
use crate::exit::{Failure, Kind};
use crate::processes::ProcessShare;
use crate::processes::member::{FLAG, MemberArgs};

/// A member, from outside.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: NodeId,
    pub(super) process: Child,
    /// Not waited for: one that takes no orders must not hold up the others.
    pub(super) line: UnixStream,
    pub(super) ready: bool,
    pub(super) killed: bool,
}

impl Process {
    /// Starts the program once more, with these words, on the share's node and with the sockets, as one of several that have
    /// `cores_of_all` together.
    pub(super) fn start(
        share: &ProcessShare,
        sockets: Vec<OwnedFd>,
        cores_of_all: usize,
        words: &[OsString],
        is_first: bool,
    ) -> Result<Self, End> {
        let what = format!("cannot start the process of node {}", share.node);
        let failed = |error| Failure::failed(&what, error);
        let (line, theirs) = UnixStream::pair().map_err(failed)?;
        line.set_nonblocking(true).map_err(failed)?;
        for socket in &sockets {
            fcntl_setfd(socket, FdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        }
        let mut words = words.iter().cloned();
        // The same program, also when its file has been replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(words.next().unwrap_or_else(|| "annulus".into()))
            .arg(FLAG)
            .arg(MemberArgs::new(share, &sockets, cores_of_all).to_string())
            .args(words)
            .stdin(OwnedFd::from(theirs));
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

    /// It ends as soon as the kernel can.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        if let Err(error) = self.process.kill() {
            tracing::warn!(%error, node = %self.node, "a process cannot be killed");
        }
    }

    /// Hears what it says. False: it has ended.
    pub(super) fn listen(&mut self) -> Result<bool, Failure> {
        match (&self.line).read(&mut [0]) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.ready = true;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(Failure::failed("cannot hear of a process", error)),
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
