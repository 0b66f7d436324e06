//! The process that starts the members, hands signals on to them, and ends with them.
//!
//! They are started one after the other, so that what the platform refuses is told once. A member's end of its line closes when it ends,
//! however it ends, and so does ours: nobody outlives the other. When one fails, the others are cut, as the cores of one process are.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use annulus::net::{ListenOptions, listening_sockets};
use annulus::numa::thread::{InheritedPolicy, inherited_policy, starting_at};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::member::{END, FLAG, MemberArgs, SHOW};
use super::{Address, ProcessShare};
use crate::descriptors;
use crate::exit::{Failure, Kind, say};
use crate::signals::{Signal, Signals};

/// How it ended other than well.
#[derive(Debug)]
pub(crate) enum End {
    /// The platform lets this program start no process, and nothing has been done. One process may still serve.
    CannotStart(Failure),
    /// Whatever else: every process that was started has ended.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// Serves `address` with a process for each of the shares, until all have ended. `reasons` say why the cores are fewer than the CPUs.
///
/// # Errors
/// Why it could not start; else the first failure of a member, which ends the others.
pub(crate) fn run(shares: &[ProcessShare], reasons: &[String], address: &Address) -> Result<(), End> {
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    descriptors::raise_limit();
    let options = ListenOptions::new().steer_by_cpu(address.steer_by_cpu);
    let cpus: Vec<_> = shares.iter().flat_map(|share| share.cores.iter().copied()).collect();
    let mut sockets = listening_sockets(address.listen, &options, &cpus)?;
    let bound = bound(&sockets)?;
    let waiting = shares.iter().map(|share| {
        let later = sockets.split_off(share.cores.len());
        (share, std::mem::replace(&mut sockets, later))
    });
    let words = words(std::env::args_os(), address);
    let policy = Some(inherited_policy()).filter(InheritedPolicy::is_overridden);
    let mut group = ProcessGroup { policy, ..ProcessGroup::default() };
    let served = group.serve(&signals, waiting, &words, || {
        // Not before: where none can be started, the process for all cores says it.
        reasons.iter().for_each(|reason| tracing::warn!("core plan: {reason}"));
        say(&format!("listening on {}{bound}{}", address.before, address.after));
    });
    group.leave(&signals, served)
}

/// The command line for the members: with addresses in place of names, so that all have the same and none waits for a resolver.
fn words(mut given: impl Iterator<Item = OsString>, address: &Address) -> Vec<OsString> {
    let listen = address.listen.to_string();
    let resolved = [("--listen", Some(&listen)), ("--to", address.upstream.as_ref())];
    let mut words = Vec::new();
    let mut value = None;
    for word in given.by_ref() {
        if value.is_none() && word == "--" {
            words.push(word);
            break;
        }
        let of = |flag: &str| word.to_str().and_then(|word| word.strip_prefix(flag));
        let flag = resolved.iter().find_map(|&(flag, value)| Some((flag, of(flag)?, value?)));
        words.push(match (value.take(), flag) {
            (Some(value), _) => value,
            (None, Some((_, "", address))) => {
                value = Some(OsString::from(address));
                word
            }
            (None, Some((flag, rest, address))) if rest.starts_with('=') => {
                format!("{flag}={address}").into()
            }
            (None, _) => word,
        });
    }
    // After `--` nothing is a flag.
    words.extend(given);
    words
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
struct ProcessGroup {
    members: Vec<Process>,
    /// The memory policy that the program came with, where it is another than theirs.
    policy: Option<InheritedPolicy>,
    /// The line with the address has been printed.
    listening: bool,
    /// How often they have been asked to end.
    asked: u32,
    failure: Option<Failure>,
}

impl ProcessGroup {
    /// Starts the members with the `words` of the command line, says when all listen, and waits for their end.
    fn serve<'a>(
        &mut self,
        signals: &Signals,
        mut waiting: impl Iterator<Item = (&'a ProcessShare, Vec<OwnedFd>)>,
        words: &[OsString],
        all_listen: impl Fn(),
    ) -> Result<(), End> {
        loop {
            if self.members.iter().all(|member| member.ready) && self.asked == 0 && self.failure.is_none() {
                match waiting.next() {
                    Some((share, sockets)) => {
                        let is_first = self.members.is_empty();
                        self.members.push(Process::start(share, sockets, words, is_first)?);
                    }
                    None if !self.listening => {
                        self.listening = true;
                        all_listen();
                    }
                    None => {}
                }
            }
            if self.members.is_empty() {
                return Ok(());
            }
            self.wait(signals)?;
        }
    }

    /// Ends those that live when something failed here, and waits until all have ended: signals still hurry them. `served` is how it went
    /// until now; what failed first is the cause.
    fn leave(&mut self, signals: &Signals, served: Result<(), End>) -> Result<(), End> {
        let outcome = self.failure.take().map_or(served, |failure| Err(End::Failed(failure)));
        self.cut();
        while !self.members.is_empty() {
            if let Err(failure) = self.wait(signals) {
                tracing::debug!(%failure, "nobody hears signals any more: the processes are killed");
                self.members.iter_mut().for_each(Process::kill);
                self.members.drain(..).for_each(|member| drop(member.reap(true)));
            }
        }
        outcome
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
                Some(Signal::Show) => {
                    // What they came with is what they were started with.
                    if let Some(policy) = &self.policy {
                        say(&format!(
                            "the processes of the nodes override the policy that the program came with ({policy})"
                        ));
                    }
                    self.tell(SHOW);
                }
                Some(Signal::End | Signal::Gone) => self.end(),
                None => {}
            }
        }
        let mut failure = None;
        for (mut member, heard) in std::mem::take(&mut self.members).into_iter().zip(&heard[1..]) {
            let lives = if *heard { member.listen() } else { Ok(true) };
            if let Ok(true) = lives {
                self.members.push(member);
                continue;
            }
            if lives.is_err() {
                member.kill();
            }
            failure = failure.or(lives.err()).or(member.reap(self.asked > 0));
        }
        if failure.is_some() && self.failure.is_none() {
            self.failure = failure;
            self.cut();
        }
        Ok(())
    }

    /// One step further towards the end: the first asks them to end, the second cuts what still runs, the third kills. One that does not
    /// listen yet is killed at once: it has nothing to finish, and may wait for something that never comes.
    fn end(&mut self) {
        self.asked += 1;
        let third = self.asked > 2;
        self.members.iter_mut().filter(|member| third || !member.ready).for_each(Process::kill);
        self.tell(END);
    }

    /// Ends them now: no more orders come. One that does not listen yet may not look for any.
    fn cut(&mut self) {
        for member in &mut self.members {
            if !member.ready {
                member.kill();
            } else if let Err(error) = member.line.shutdown(Shutdown::Write) {
                tracing::debug!(%error, node = %member.node, "a process has gone already");
            }
        }
    }

    fn tell(&self, order: &[u8; 1]) {
        for member in &self.members {
            match (&member.line).write_all(order) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tracing::warn!(node = %member.node, pid = member.process.id(), "a process does not take orders");
                }
                // Its end is the next that is heard of it.
                Err(error) => {
                    tracing::debug!(%error, node = %member.node, "a process does not listen any more")
                }
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
    /// Not waited for: one that takes no orders must not hold up the others.
    line: UnixStream,
    ready: bool,
    killed: bool,
}

impl Process {
    /// Starts the program once more, with these words, on the share's node and with the sockets.
    fn start(
        share: &ProcessShare,
        sockets: Vec<OwnedFd>,
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
            .arg(MemberArgs::new(share, &sockets).to_string())
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
    fn kill(&mut self) {
        self.killed = true;
        if let Err(error) = self.process.kill() {
            tracing::warn!(%error, node = %self.node, "a process cannot be killed");
        }
    }

    /// Hears what it says. False: it has ended.
    fn listen(&mut self) -> Result<bool, Failure> {
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
    fn reap(mut self, asked_to_end: bool) -> Option<Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::tests::raise;

    /// Not a test: what the processes of the tests below run. It takes no orders and does not end.
    #[test]
    #[ignore = "a process of other tests"]
    fn as_a_deaf_member() {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
        loop {
            std::thread::park();
        }
    }

    /// With one member, and the other end of its line.
    fn group(ready: bool) -> (ProcessGroup, UnixStream) {
        let (line, theirs) = UnixStream::pair().unwrap();
        line.set_nonblocking(true).unwrap();
        let process = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "processes::parent::tests::as_a_deaf_member"])
            .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let member = Process { node: annulus::numa::NodeId(0), process, line, ready, killed: false };
        (ProcessGroup { members: vec![member], ..ProcessGroup::default() }, theirs)
    }

    fn reap(mut group: ProcessGroup) -> Option<Failure> {
        group.members.remove(0).reap(group.asked > 0)
    }

    /// Seen to fail, by waiting for ever: with nothing but the order to end.
    #[test]
    fn one_that_does_not_come_up_is_killed_at_the_first_signal() {
        let (mut group, _theirs) = group(false);
        group.end();
        assert!(reap(group).is_none(), "as asked");
    }

    #[test]
    fn one_that_does_not_end_is_killed_at_the_third_signal() {
        let (mut group, _theirs) = group(true);
        group.end();
        group.end();
        assert!(!group.members[0].killed && group.members[0].process.try_wait().unwrap().is_none());
        group.end();
        assert!(reap(group).expect("a failure").to_string().contains("did not end when it was asked to"));
    }

    /// Seen to fail, by waiting for ever: with a line that is waited for.
    #[test]
    fn one_that_takes_no_orders_holds_nobody_up() {
        let (mut group, _theirs) = group(true);
        (0..10_000).for_each(|_| group.tell(SHOW));
        assert!(group.members[0].listen().unwrap(), "it has said nothing");
        group.members[0].kill();
        assert!(reap(group).is_some());
    }

    /// One that fails here leaves nobody behind, and those that listen hear of it by the end of their line.
    #[test]
    fn a_cut_ends_every_line() {
        let (mut group, theirs) = group(true);
        group.cut();
        assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
        assert!(!group.members[0].killed);
        group.members[0].ready = false;
        group.cut();
        assert!(group.members[0].killed);
        drop(reap(group));
    }

    /// Seen to fail, by waiting for ever: with a wait for the process alone, while the signals are blocked.
    #[test]
    fn one_that_does_not_end_after_a_failure_is_killed_at_the_third_signal() {
        let signals = Signals::block().unwrap();
        let (mut group, theirs) = group(true);
        // The process has the only other end then, as a member has.
        drop(theirs);
        group.asked = 1;
        // Two different ones: a signal that is pending already is not counted again.
        raise(libc::SIGINT);
        raise(libc::SIGTERM);
        let served = Err(End::Failed(Failure::new(Kind::Failed, "the second cannot start".to_owned())));
        let ended = group.leave(&signals, served);
        assert!(
            matches!(&ended, Err(End::Failed(cause)) if cause.to_string().contains("the second")),
            "{ended:?}"
        );
        assert!(group.members.is_empty());
        assert_eq!(group.asked, 3);
    }

    #[test]
    fn members_get_addresses_in_place_of_names() {
        let address = |upstream: Option<&str>| Address {
            listen: "127.0.0.1:80".parse().unwrap(),
            before: "",
            after: String::new(),
            upstream: upstream.map(str::to_owned),
            steer_by_cpu: false,
        };
        let words = |line: &str, upstream| {
            let words = words(line.split(' ').map(OsString::from), &address(upstream));
            words.join(" ".as_ref()).into_string().unwrap()
        };
        let two = Some("10.0.0.1:1,[::1]:1");
        assert_eq!(words("a proxy --to name:1 -v", two), "a proxy --to 10.0.0.1:1,[::1]:1 -v");
        assert_eq!(
            words("a proxy --listen=localhost:80 --to=name:1", two),
            "a proxy --listen=127.0.0.1:80 --to=10.0.0.1:1,[::1]:1"
        );
        assert_eq!(
            words("a serve --to --listen localhost:80 -- --", None),
            "a serve --to --listen 127.0.0.1:80 -- --"
        );
        assert_eq!(words("a serve --listening", None), "a serve --listening");
        assert_eq!(
            words("a serve --listen localhost:80 -- --listen localhost:80", two),
            "a serve --listen 127.0.0.1:80 -- --listen localhost:80"
        );
    }
}
