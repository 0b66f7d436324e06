//! The process of one node: what its parent has given it, what the parent orders, and what it answers.

mod change;
mod image;
mod lookups;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::PlacementPolicy;
use annulus::numa::{CpuSet, NodeId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

pub(crate) use self::change::OfMember;
pub(crate) use self::image::Image;
use self::lookups::Lookups;
use super::ProcessShare;
use super::line::{Frame, Heard, Line};
use super::orders::{Down, Up, ask_for_name, understood};
use crate::exit::{Failure, Kind, speak_as};
use crate::limits;
use crate::proxy::names::{Answer, Asked};
use crate::service::generation::Generation;
use crate::signals::Signal;

/// The command that makes a process a member; what it says is [`MemberArgs`].
pub(crate) const COMMAND: &str = "member";

/// What a member is told when it starts: its node, its cores, and how many cores all processes have
/// together, such as `1:2-3:4`. All else comes by the line to the parent, which is its
/// standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberArgs {
    node: NodeId,
    cores: CpuSet,
    cores_of_all: usize,
}

impl MemberArgs {
    /// For the process that gets the cores of `share`, of this many in all.
    pub(crate) fn new(share: &ProcessShare, cores_of_all: usize) -> Self {
        MemberArgs { node: share.node, cores: share.cores.iter().copied().collect(), cores_of_all }
    }
}

impl fmt::Display for MemberArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.node, self.cores, self.cores_of_all)
    }
}

impl FromStr for MemberArgs {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let [node, cores, cores_of_all] = text.split(':').collect::<Vec<_>>()[..] else { return None };
            let (node, cores) = (NodeId(node.parse().ok()?), cores.parse::<CpuSet>().ok()?);
            let cores_of_all = cores_of_all.parse().ok()?;
            let some = !cores.is_empty() && cores.len() <= cores_of_all;
            some.then_some(MemberArgs { node, cores, cores_of_all })
        };
        parse().ok_or("only annulus itself says this, to the processes that it starts")
    }
}

/// The member that this process is.
#[derive(Debug)]
pub(crate) struct Member {
    node: NodeId,
    cores: CpuSet,
    cores_of_all: usize,
    line: Mutex<Line>,
    /// The same, to poll for what comes.
    socket: UnixStream,
    lookups: Lookups,
}

/// What the parent wants.
#[derive(Debug)]
pub(crate) enum Order {
    /// What a signal asks for.
    Signal(Signal),
    /// New clients are not welcome any more.
    Leave,
    /// Another program accepts in place of this one.
    HandOver,
    /// What [`OfMember`] does.
    Change(Change),
}

/// A change of the member, or a question to it.
#[derive(Debug)]
pub(crate) enum Change {
    /// Make ready for what the frame says.
    Prepare(Frame),
    /// Go over to it.
    Commit,
    /// Forget it.
    Abandon,
    /// Answer a question.
    Ask(Vec<u8>),
}

impl Member {
    /// Takes the parent's end of the line. Call it once.
    ///
    /// # Errors
    /// [`Kind::Input`] when standard input is no such line: somebody else than `annulus` has said so.
    pub(crate) fn take(given: MemberArgs) -> Result<Self, Failure> {
        let failed = |error| Failure::failed("cannot take what the starting process has given", error);
        let domain = socket_domain(io::stdin());
        if domain != Ok(AddressFamily::UNIX) {
            let what = format!("annulus {COMMAND} is what annulus says to itself; leave it to annulus");
            return Err(Failure::input(what));
        }
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        let line = Line::new(socket.try_clone().map_err(failed)?).map_err(failed)?;
        speak_as(format!("node {}", given.node));
        // Started as /proc/self/exe, it would be called `exe`.
        let started_as = std::env::args_os().next().map(PathBuf::from);
        let name = started_as.as_deref().and_then(Path::file_name).map(|name| CString::new(name.as_bytes()));
        if let Some(Ok(name)) = name
            && let Err(errno) = rustix::thread::set_name(&name)
        {
            tracing::debug!(%errno, "the process keeps its name");
        }
        let MemberArgs { node, cores, cores_of_all } = given;
        let (line, lookups) = (Mutex::new(line), Lookups::default());
        Ok(Member { node, cores, cores_of_all, line, socket, lookups })
    }

    /// Waits for what to begin with, and how much the log says.
    ///
    /// # Errors
    /// The parent has gone, or what it says cannot be had here.
    pub(crate) fn beginning(&self) -> Result<(Generation, u8), Failure> {
        let failed = |error| Failure::failed("cannot hear the starting process", error);
        loop {
            match self.line().hear().map_err(failed)? {
                Heard::Frame(frame) if Down::of(frame.kind) == Some(Down::Prepare) => {
                    return understood(frame).map_err(Failure::input);
                }
                Heard::Frame(frame) if Down::of(frame.kind) == Some(Down::End) => {
                    return Err(Failure::told(Kind::Failed, "asked to end before it began"));
                }
                Heard::Frame(frame) if Down::of(frame.kind) == Some(Down::Limits) => {
                    for memory in &frame.sockets {
                        limits::count_in(memory.as_fd()).map_err(failed)?;
                    }
                }
                Heard::Frame(_) => {}
                Heard::Nothing => self.wait(PollFlags::IN).map_err(failed)?,
                Heard::Gone => return Err(Failure::told(Kind::Failed, "the starting process has gone")),
            }
        }
    }

    /// How many cores the processes of all nodes have together.
    pub(crate) fn cores_of_all(&self) -> usize {
        self.cores_of_all
    }

    /// The CPUs of its cores.
    pub(crate) fn cores(&self) -> &CpuSet {
        &self.cores
    }

    /// Brings the program's own image to the node. Call it before the first thread.
    ///
    /// # Errors
    /// As for [`Image`]: [`Kind::Platform`] when placement is required and not all is there.
    pub(crate) fn settle(&self, placement: PlacementPolicy) -> Result<Image, Failure> {
        Image::settle(self.node, placement)
    }

    /// Tells the parent that every core listens.
    pub(crate) fn is_ready(&self) {
        if let Err(error) = self.line().send(Up::Ready as u8, &[], Vec::new()) {
            // An error means that the parent has gone. The main thread sees that too.
            tracing::debug!(%error, "nobody waits for this process");
        }
    }

    /// What a name stands for, as the parent finds it: by its rights, which this process may not have. Waits
    /// for the resolver; not on the main thread, and on no core.
    ///
    /// # Errors
    /// What the resolver says.
    pub(crate) fn look_up(&self, asked: &Asked) -> Answer {
        self.lookups.ask(|number| self.answer(Up::Resolve, &ask_for_name(number, asked)))
    }

    /// Says something to the parent, which takes it soon. Not on the main thread, and on no core.
    fn answer(&self, up: Up, payload: &[u8]) {
        let mut sent = self.line().send(up as u8, payload, Vec::new());
        while sent.is_ok() && self.line().waits() {
            sent = self.wait(PollFlags::OUT).and_then(|()| self.line().flush());
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "the starting process takes no answer");
        }
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.socket, flags)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the parent wants next; `None` if nothing just now. Does not block.
    ///
    /// # Errors
    /// What `recvmsg(2)` says, other than "nothing there".
    pub(crate) fn next(&self) -> io::Result<Option<Order>> {
        let frame = loop {
            let heard = self.line().hear()?;
            match heard {
                Heard::Frame(frame) if Down::of(frame.kind) == Some(Down::Found) => {
                    self.lookups.answered(&frame.payload);
                }
                Heard::Frame(frame) => break frame,
                Heard::Nothing => return Ok(None),
                // When the parent ends, the member ends at once, as all cores of one process would.
                Heard::Gone => return Ok(Some(Order::Signal(Signal::Gone))),
            }
        };
        Ok(Down::of(frame.kind).and_then(|down| match down {
            Down::End => Some(Order::Signal(Signal::End)),
            Down::Leave => Some(Order::Leave),
            Down::HandOver => Some(Order::HandOver),
            Down::Show => Some(Order::Signal(Signal::Show)),
            Down::Reopen => Some(Order::Signal(Signal::Reopen)),
            Down::Prepare => Some(Order::Change(Change::Prepare(frame))),
            Down::Commit => Some(Order::Change(Change::Commit)),
            Down::Abandon => Some(Order::Change(Change::Abandon)),
            Down::Ask => Some(Order::Change(Change::Ask(frame.payload))),
            // Said before it began, and taken above.
            Down::Limits | Down::Found => None,
        }))
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_understood() {
        for text in ["1:2-3:4", "0:7:1"] {
            assert_eq!(text.parse::<MemberArgs>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:2", "1::1", "x:2:1", "1:x:1", "1:2:x", "1:2-3:1", "1:2:3:4"] {
            assert!(text.parse::<MemberArgs>().is_err(), "{text:?}");
        }
    }
}
