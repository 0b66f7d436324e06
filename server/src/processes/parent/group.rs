//! The members that live, their orders and their end.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use annulus::numa::thread::InheritedPolicy;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::End;
use super::process::Process;
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::processes::ProcessShare;
use crate::processes::member::{END, REOPEN, SHOW};
use crate::signals::{Signal, Signals};

/// The members that live, and how far they have come.
#[derive(Debug, Default)]
pub(super) struct ProcessGroup {
    members: Vec<Process>,
    /// The memory policy that the program came with, where it is another than theirs.
    policy: Option<InheritedPolicy>,
    /// The line with the address has been printed.
    listening: bool,
    /// How often they have been asked to end.
    asked: u32,
    failure: Option<Failure>,
    /// Those of all members.
    cores: usize,
}

impl ProcessGroup {
    /// None yet, for so many cores and a program that came with `policy`.
    pub(super) fn new(policy: Option<InheritedPolicy>, cores: usize) -> Self {
        Self { policy, cores, ..Self::default() }
    }

    /// Starts the members with the `words` of the command line, says when all listen, and waits for their end.
    pub(super) fn serve<'a>(
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
                        self.members.push(Process::start(share, sockets, self.cores, words, is_first)?);
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
    pub(super) fn leave(&mut self, signals: &Signals, served: Result<(), End>) -> Result<(), End> {
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
                Some(Signal::Reopen | Signal::Reload) => self.tell(REOPEN),
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
        lifecycle::reach(Stage::Draining);
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

fn watched(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;
    use crate::exit::Kind;
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
            .args(["--ignored", "--exact", "processes::parent::group::tests::as_a_deaf_member"])
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
}
