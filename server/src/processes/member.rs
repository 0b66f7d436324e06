//! The process of one node: what the one that started it has given it, and what it hears from it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use annulus::PlacementPolicy;
use annulus::numa::image::{self, Kind as Of, Segment};
use annulus::numa::verify::where_pages_lie;
use annulus::numa::{CpuSet, NodeId};
use rustix::net::sockopt::socket_acceptconn;

use super::ProcessShare;
use crate::config::Configuration;
use crate::exit::{Failure, Kind, speak_as};
use crate::listen::endpoint::{Endpoint, EndpointId};
use crate::service::generation::Generation;
use crate::signals::Signal;

/// The flag that makes a process a member; what it says is [`MemberArgs`].
pub(crate) const FLAG: &str = "--member";

/// What a member is told when it starts: its node, its cores, and the descriptors of their listening sockets, one for each
/// core and then those of the next address, and how many cores all
/// processes have, such as `1:2-3:5,6:4`. Its standard input is the line to the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberArgs {
    node: NodeId,
    cores: CpuSet,
    sockets: Vec<RawFd>,
    cores_of_all: usize,
}

impl MemberArgs {
    /// For the process that gets the cores of `share`.
    pub(crate) fn new(share: &ProcessShare, sockets: &[OwnedFd], cores_of_all: usize) -> Self {
        MemberArgs {
            node: share.node,
            cores: share.cores.iter().copied().collect(),
            sockets: sockets.iter().map(AsRawFd::as_raw_fd).collect(),
            cores_of_all,
        }
    }
}

impl fmt::Display for MemberArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets: Vec<_> = self.sockets.iter().map(RawFd::to_string).collect();
        write!(f, "{}:{}:{}:{}", self.node, self.cores, sockets.join(","), self.cores_of_all)
    }
}

impl FromStr for MemberArgs {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(':');
            let node = NodeId(parts.next()?.parse().ok()?);
            let cores: CpuSet = parts.next()?.parse().ok()?;
            let sockets = parts.next()?.split(',').map(|fd| fd.parse().ok().filter(|&fd: &RawFd| fd > 2));
            let sockets: Vec<RawFd> = sockets.collect::<Option<_>>()?;
            let cores_of_all: usize = parts.next()?.parse().ok()?;
            let all_differ = sockets.iter().collect::<BTreeSet<_>>().len() == sockets.len();
            let as_many_for_each = !cores.is_empty() && sockets.len().is_multiple_of(cores.len());
            let understood =
                as_many_for_each && all_differ && cores_of_all >= cores.len() && parts.next().is_none();
            understood.then_some(MemberArgs { node, cores, sockets, cores_of_all })
        };
        parse().ok_or("only annulus itself says this, to the processes that it starts")
    }
}

/// The member that this process is.
#[derive(Debug)]
pub(crate) struct Member {
    node: NodeId,
    cores: CpuSet,
    /// Of each endpoint, one for each core.
    sockets: Mutex<Vec<OwnedFd>>,
    cores_of_all: usize,
    parent: UnixStream,
}

impl Member {
    /// Takes what was given, and with the parent's end of the line, its orders. Call it once.
    ///
    /// # Errors
    /// [`Kind::Input`] when a descriptor is no listening socket: somebody else than `annulus` has said so.
    pub(crate) fn take(given: MemberArgs) -> Result<Self, Failure> {
        let failed = |error| Failure::failed("cannot take what the starting process has given", error);
        let take = |&fd: &RawFd| {
            // SAFETY: looked at for the length of one system call, which fails if it is not open.
            let what = match socket_acceptconn(unsafe { BorrowedFd::borrow_raw(fd) }) {
                Ok(true) => None,
                Ok(false) => Some("it does not listen".to_owned()),
                Err(errno) => Some(errno.to_string()),
            };
            if let Some(what) = what {
                return Err(Failure::input(format!(
                    "{FLAG} names descriptor {fd}: {what}; leave it to annulus"
                )));
            }
            // SAFETY: a listening socket, named once, and nothing that runs before this opens one: the process that started us left
            // it open for us alone.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let sockets = given.sockets.iter().map(take).collect::<Result<_, Failure>>()?;
        let parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        parent.set_nonblocking(true).map_err(failed)?;
        speak_as(format!("node {}", given.node));
        // Started as /proc/self/exe, it would be called `exe`.
        let started_as = std::env::args_os().next().map(PathBuf::from);
        let name = started_as.as_deref().and_then(Path::file_name).map(|name| CString::new(name.as_bytes()));
        if let Some(Ok(name)) = name
            && let Err(errno) = rustix::thread::set_name(&name)
        {
            tracing::debug!(%errno, "the process keeps its name");
        }
        let (sockets, cores_of_all) = (Mutex::new(sockets), given.cores_of_all);
        Ok(Member { node: given.node, cores: given.cores, sockets, cores_of_all, parent })
    }

    /// How many cores the processes of all nodes have together.
    pub(crate) fn cores_of_all(&self) -> usize {
        self.cores_of_all
    }

    /// The CPUs of its cores.
    pub(crate) fn cores(&self) -> &CpuSet {
        &self.cores
    }

    /// What it serves at first, with the sockets that it was given: all of one endpoint after all of another.
    pub(crate) fn first_generation(&self, config: Configuration) -> Generation {
        let mut sockets = std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut ids, mut new) = (Vec::new(), HashMap::new());
        for keys in config.endpoints() {
            let of_key = |_| {
                let later = sockets.split_off(sockets.len().min(self.cores.len()));
                let own = std::mem::replace(&mut sockets, later);
                let id = EndpointId(new.len() as u64);
                new.insert(id, Arc::new(Endpoint::new(own, false)));
                id
            };
            ids.push(keys.into_iter().map(of_key).collect());
        }
        Generation { config, ids, new }
    }

    /// Tells the parent that every core listens.
    pub(crate) fn is_ready(&self) {
        if let Err(error) = (&self.parent).write_all(b"r") {
            // It has gone, and its end of the line with it, which the main thread sees as well.
            tracing::debug!(%error, "nobody waits for this process");
        }
    }

    /// What the parent wants next; `None` if nothing just now. Does not block.
    ///
    /// # Errors
    /// What read(2) says, other than "nothing there".
    pub(crate) fn next(&self) -> io::Result<Option<Signal>> {
        let mut order = [0];
        match (&self.parent).read(&mut order) {
            // With the parent everything ends at once, as when a process of all cores dies.
            Ok(0) => Ok(Some(Signal::Gone)),
            Ok(_) if order == *SHOW => Ok(Some(Signal::Show)),
            Ok(_) if order == *REOPEN => Ok(Some(Signal::Reopen)),
            Ok(_) => Ok(Some(Signal::End)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(Signal::Gone)),
            Err(error) => Err(error),
        }
    }

    /// Brings what the program reads and writes of its own image to the node. Call it before the first thread.
    ///
    /// # Errors
    /// [`Kind::Platform`] when placement is required and not all is there.
    pub(crate) fn settle(&self, placement: PlacementPolicy) -> Result<Image, Failure> {
        // SAFETY: no thread has been started yet, the program has no handler of a signal, loads no library and maps nothing there itself.
        let (segments, why) = match unsafe { image::bring_here() } {
            Ok(segments) => (segments, String::new()),
            Err(error) => {
                tracing::warn!(%error, "the program's image stays where its files are cached");
                (Vec::new(), format!(" ({error})"))
            }
        };
        let image = Image { node: self.node, segments };
        if placement == PlacementPolicy::Require && !image.is_home() {
            return Err(Failure::new(
                Kind::Platform,
                format!(
                    "the program's image is not known to be on node {}{why}; free memory there, or serve with --processes one",
                    self.node
                ),
            ));
        }
        Ok(image)
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }
}

/// The order to end.
pub(super) const END: &[u8; 1] = b"e";
/// The order to print the picture of SIGUSR1.
pub(super) const SHOW: &[u8; 1] = b"s";
/// An order: open the files of the logs anew.
pub(super) const REOPEN: &[u8; 1] = b"r";

/// The program's image, and the node where it belongs.
#[derive(Debug)]
pub(crate) struct Image {
    node: NodeId,
    segments: Vec<Segment>,
}

impl Image {
    fn is_home(&self) -> bool {
        let mut own = self.segments.iter().filter(|segment| segment.kind != Of::Code).peekable();
        own.peek().is_some()
            && own.all(|segment| {
                let range = &segment.addresses;
                where_pages_lie(std::ptr::without_provenance(range.start), range.len())
                    .is_ok_and(|pages| pages.off(self.node) == 0 && pages.unknown == 0)
            })
    }
}

/// A line for each mapping, as in the report of the runtime.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            let range = &segment.addresses;
            write!(f, "image: {segment} of {} bytes ", range.len())?;
            match segment.kind {
                Of::Code => write!(f, "stays where its file is cached: ")?,
                _ => write!(f, "belongs on node {}: ", self.node)?,
            }
            match where_pages_lie(std::ptr::without_provenance(range.start), range.len()) {
                Ok(pages) => writeln!(f, "{pages}")?,
                Err(error) => writeln!(f, "cannot be looked at: {error}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_understood() {
        for text in ["1:2-3:5,6:4", "0:7:3:1", "1:2-3:5,6,8,9:2"] {
            assert_eq!(text.parse::<MemberArgs>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "1:2-3",
            "1:2-3:5,6",
            "1:2-3:5:2",
            "1:2-3:5,5:2",
            "1:2-3:5,6:1",
            "1:2-3:5,6,7:2",
            "1:2:x:1",
            "x:2:5:1",
            "1:2:5:1:6",
            "1:2:5:x",
            "1:2:2:1",
            "1:2:-1:1",
        ] {
            assert!(text.parse::<MemberArgs>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_listen_is_not_taken() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let (given, refused) = (Kind::Input, "leave it to annulus");
        for fd in [socket.as_raw_fd(), file.as_raw_fd()] {
            let text = format!("0:0:{fd}:1");
            let failure = Member::take(text.parse().unwrap()).unwrap_err();
            assert_eq!(failure.kind(), given);
            assert!(failure.to_string().contains(refused), "{failure}");
        }
        // Both are still whose they were.
        assert!(socket.local_addr().is_ok() && file.metadata().is_ok());
    }
}
