//! The process that starts the members, hands signals on to them, and ends with them.
//!
//! They are started one after the other, so that what the platform refuses is told once. A member's end of its line closes when it ends,
//! however it ends, and so does ours: nobody outlives the other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use annulus::net::{ListenOptions, listening_sockets};
use annulus::numa::thread::{InheritedPolicy, inherited_policy, starting_at};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::member::{END, FLAG, Given, SHOW};
use super::{Address, Part};
use crate::descriptors;
use crate::exit::{Failure, Kind, say};
use crate::signals::{Signal, Signals};

/// Serves `address` with a process for each of the parts, until all have ended.
///
/// # Errors
/// Why it could not start; else the first failure of a member, which ends the others.
pub(crate) fn run(parts: &[Part], address: &Address) -> Result<(), Failure> {
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    descriptors::raise_limit();
    let policy = inherited_policy();
    if matches!(policy, InheritedPolicy::Preferred(_) | InheritedPolicy::Interleave(_)) {
        tracing::info!("the policy that the process came with ({policy}) is overridden");
    }
    let options = ListenOptions::new().steer_by_cpu(address.steer_by_cpu);
    let cpus: Vec<_> = parts.iter().flat_map(|part| part.cores.iter().copied()).collect();
    let mut sockets = listening_sockets(address.listen, &options, &cpus)?;
    let bound = bound(&sockets)?;
    let mut waiting = parts.iter().map(|part| {
        let later = sockets.split_off(part.cores.len());
        (part, std::mem::replace(&mut sockets, later))
    });
    let mut family = Family::default();
    loop {
        if family.all_ready() && !family.is_ending() {
            match waiting.next() {
                Some((part, sockets)) => family.members.push(Process::start(part, sockets)?),
                None if !family.listening => {
                    family.listening = true;
                    say(&format!("listening on {}{bound}{}", address.before, address.after));
                }
                None => {}
            }
        }
        if family.members.is_empty() {
            return family.failure.map_or(Ok(()), Err);
        }
        family.wait(&signals)?;
    }
}

/// The address with the real port.
fn bound(sockets: &[OwnedFd]) -> Result<SocketAddr, Failure> {
    let first =
        sockets.first().map(OwnedFd::try_clone).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
    first
        .and_then(|socket| TcpListener::from(socket).local_addr())
        .map_err(|error| Failure::failed("cannot read the address of a socket", error))
}

/// The members that live, and how far they have come.
#[derive(Debug, Default)]
struct Family {
    members: Vec<Process>,
    /// The line with the address has been printed.
    listening: bool,
    /// They have been asked to end.
    ending: bool,
    failure: Option<Failure>,
}

impl Family {
    fn all_ready(&self) -> bool {
        self.members.iter().all(|member| member.ready)
    }

    fn is_ending(&self) -> bool {
        self.ending
    }

    /// Waits for a signal, or for word of a member, and does what it asks for.
    fn wait(&mut self, signals: &Signals) -> Result<(), Failure> {
        let heard = {
            let lines = self.members.iter().map(|member| member.line.as_fd());
            let mut fds: Vec<_> = [signals.as_fd()].into_iter().chain(lines).map(watched).collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::failed("cannot wait for signals and processes", errno)),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>()
        };
        if heard[0] {
            match signals.next().map_err(|error| Failure::failed("cannot read a signal", error))? {
                Some(Signal::Show) => self.tell(SHOW),
                Some(Signal::End | Signal::Gone) => self.end(),
                None => {}
            }
        }
        let mut heard = heard[1..].iter();
        let (mut living, mut failure) = (Vec::new(), None);
        for mut member in self.members.drain(..) {
            if heard.next() == Some(&true) && !member.listen()? {
                let end = member.bury(self.ending)?;
                failure = failure.or(end);
            } else {
                living.push(member);
            }
        }
        self.members = living;
        if let Some(failure) = failure
            && self.failure.is_none()
        {
            self.failure = Some(failure);
            if !self.ending {
                self.end();
            }
        }
        Ok(())
    }

    /// One step further towards the end: the first asks them to end, the second cuts what still runs.
    fn end(&mut self) {
        self.ending = true;
        self.tell(END);
    }

    fn tell(&self, order: &[u8; 1]) {
        for member in &self.members {
            if let Err(error) = (&member.line).write_all(order) {
                // Its end is the next that is heard of it.
                tracing::debug!(%error, node = %member.node, "a process does not listen any more");
            }
        }
    }
}

fn watched(fd: std::os::fd::BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// A member, from outside.
#[derive(Debug)]
struct Process {
    node: annulus::numa::NodeId,
    process: Child,
    line: UnixStream,
    ready: bool,
}

impl Process {
    /// Starts the program once more, on the part's node and with the sockets.
    fn start(part: &Part, sockets: Vec<OwnedFd>) -> Result<Self, Failure> {
        let failed =
            |error| Failure::failed(&format!("cannot start the process of node {}", part.node), error);
        let (line, theirs) = UnixStream::pair().map_err(failed)?;
        for socket in &sockets {
            fcntl_setfd(socket, FdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        }
        let mut words = std::env::args_os();
        // The same program, also when its file has been replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(words.next().unwrap_or_else(|| "annulus".into()))
            .arg(FLAG)
            .arg(Given::new(part, &sockets).to_string())
            .args(words)
            .stdin(OwnedFd::from(theirs));
        let memory = part.some_without_memory.then_some(part.node);
        let process = starting_at(&part.cpus, memory, || command.spawn())?.map_err(failed)?;
        Ok(Process { node: part.node, process, line, ready: false })
    }

    /// Hears what it says. False: it has ended.
    fn listen(&mut self) -> Result<bool, Failure> {
        match (&self.line).read(&mut [0]) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.ready = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(Failure::failed("cannot hear of a process", error)),
        }
    }

    /// Learns how it ended, and says what of it is a failure.
    fn bury(mut self, asked_to_end: bool) -> Result<Option<Failure>, Failure> {
        let status = self
            .process
            .wait()
            .map_err(|error| Failure::failed("cannot learn how a process ended", error))?;
        if status.success() && asked_to_end {
            return Ok(None);
        }
        let what = format!("the process of node {} (pid {})", self.node, self.process.id());
        Ok(Some(match (status.code().and_then(Kind::of_code), status.signal()) {
            (Some(kind), _) => Failure::told(kind, format!("{what} failed")),
            (None, Some(signal)) => Failure::new(
                Kind::Failed,
                format!("{what} was killed by signal {signal}; the others end with it"),
            ),
            (None, None) => {
                Failure::new(Kind::Failed, format!("{what} ended with {status}; the others end with it"))
            }
        }))
    }
}
