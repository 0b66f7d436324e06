//! The members that live, what is said to them, and their end.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use annulus::numa::NodeId;
use annulus::numa::thread::InheritedPolicy;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::change::Changes;
use super::end::End;
use super::lookups::Lookups;
use super::process::Process;
use super::questions::Questions;
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::log;
use crate::processes::ProcessShare;
use crate::processes::figures::Asked;
use crate::processes::line::Frame;
use crate::processes::orders::{Down, Up};
use crate::service::times::Times;
use crate::service_manager::message::Message;
use crate::service_manager::notify;
use crate::signals::{Signal, Signals};
use crate::upgrade::giving::{self, Giver};

/// What each member gets, and what all count in.
type Parts<'a> = (&'a [ProcessShare], &'a OwnedFd);

/// The members that live, and how far they have come.
pub(super) struct ProcessGroup<'a> {
    members: Vec<Process>,
    /// The memory policy that the program came with, where it is another than theirs.
    policy: Option<InheritedPolicy>,
    /// The lines with the addresses have been printed.
    listening: bool,
    /// New clients are not welcome, and served until then.
    leaving: Option<Instant>,
    /// How often they have been asked to end.
    asked: u32,
    failure: Option<Failure>,
    signals: &'a Signals,
    times: &'a Times,
    /// Going over to another configuration.
    changes: Changes,
    questions: Questions,
    lookups: Lookups,
    /// What it needs to have another program take its place.
    pub(super) giver: Option<Arc<Giver>>,
}

impl<'a> ProcessGroup<'a> {
    /// None yet, for a program that came with `policy`.
    pub(super) fn new(
        policy: Option<InheritedPolicy>,
        signals: &'a Signals,
        times: &'a Times,
        changes: Changes,
        questions: Asked,
    ) -> Self {
        let lookups = Lookups::new(changes.wake());
        Self {
            members: Vec::new(),
            policy,
            listening: false,
            leaving: None,
            asked: 0,
            failure: None,
            signals,
            times,
            changes,
            questions: Questions::new(questions),
            lookups,
            giver: None,
        }
    }

    /// Starts a member for each share, says when all listen, and waits for their end.
    pub(super) fn serve(&mut self, parts: Parts<'_>, all_listen: impl Fn()) -> Result<(), End> {
        let (shares, limits) = parts;
        let cores = shares.iter().map(|share| share.cores.len()).sum();
        let mut waiting: VecDeque<(usize, &ProcessShare)> = shares.iter().enumerate().collect();
        loop {
            let is_asked = self.asked > 0 || self.leaving.is_some() || self.failure.is_some();
            if self.members.iter().all(|member| member.ready) && !is_asked {
                match waiting.pop_front() {
                    Some((index, share)) => {
                        let mut member = Process::start(share, cores, self.members.is_empty())?;
                        member.begin(limits, self.changes.first_for(index))?;
                        self.members.push(member);
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
            self.wait()?;
        }
    }

    /// Ends those that live when something failed here, and waits until all have ended: signals still hurry
    /// them. `served` is how it went until now; what failed first is the cause.
    pub(super) fn leave(&mut self, served: Result<(), End>) -> Result<(), End> {
        let outcome = self.failure.take().map_or(served, |failure| Err(End::Failed(failure)));
        self.cut();
        while !self.members.is_empty() {
            if let Err(failure) = self.wait() {
                tracing::debug!(%failure, "nobody hears signals any more: the processes are killed");
                self.members.iter_mut().for_each(Process::kill);
                self.members.drain(..).for_each(|member| drop(member.reap(true)));
            }
        }
        outcome
    }

    /// Waits for a signal, for word of a member or of another thread, or for the end of the time for
    /// leaving, and does what it asks for.
    fn wait(&mut self) -> Result<(), Failure> {
        let heard = self.poll()?;
        if heard[0] {
            match self.signals.next().map_err(|error| Failure::failed("cannot read a signal", error))? {
                Some(Signal::Show) => self.show(),
                Some(Signal::Reopen) => self.reopen(),
                Some(Signal::Reload) => {
                    self.reopen();
                    if self.listening {
                        self.changes.request();
                    }
                }
                Some(Signal::Upgrade) => match &self.giver {
                    Some(giver) => giver.start(),
                    None => tracing::debug!("asked to upgrade before anything is served"),
                },
                Some(Signal::HandedOver) if giving::has_given() => self.hand_over(),
                Some(Signal::HandedOver) => {}
                Some(Signal::End | Signal::Gone) => self.asked_to_end(),
                None => {}
            }
        }
        if heard[1] {
            self.questions.awake();
            // Before all listen nobody asks.
            if self.listening {
                self.questions.pass_on(&mut self.members);
            }
            self.changes.read(&mut self.members);
            self.lookups.pass_on(&mut self.members);
        }
        if self.leaving.is_some_and(|until| Instant::now() >= until) {
            self.end();
        }
        self.hear(&heard[2..]);
        Ok(())
    }

    /// Which of signals, other threads and members have something to be read.
    fn poll(&self) -> Result<Vec<bool>, Failure> {
        let lines = self.members.iter().map(|member| {
            let flags = if member.line.waits() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(member.line.as_fd(), flags)
        });
        let watched = |fd: BorrowedFd<'a>| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let questions = PollFd::from_borrowed_fd(self.questions.as_fd(), PollFlags::IN);
        let mut fds: Vec<_> = [watched(self.signals.as_fd()), questions].into_iter().chain(lines).collect();
        let left = self.leaving.map(|until| until.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::failed("cannot wait for signals and processes", errno)),
        }
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    /// Hears the members of whom something came.
    fn hear(&mut self, heard: &[bool]) {
        let mut failure = None;
        for (mut member, heard) in std::mem::take(&mut self.members).into_iter().zip(heard) {
            let said = if *heard { member.hear() } else { Ok(Some(Vec::new())) };
            match said {
                Ok(Some(frames)) => {
                    let (node, pid) = (member.node, member.process.id());
                    frames.into_iter().for_each(|frame| self.answered((node, pid), frame));
                    self.members.push(member);
                }
                Ok(None) => failure = failure.or(member.reap(self.asked > 0)),
                Err(error) => {
                    member.kill();
                    failure = failure.or(Some(error)).or(member.reap(self.asked > 0));
                }
            }
        }
        self.changes.go_on(&mut self.members);
        if failure.is_some() && self.failure.is_none() {
            self.failure = failure;
            self.cut();
        }
    }

    /// A member has answered, or asks.
    fn answered(&mut self, (node, pid): (NodeId, u32), frame: Frame) {
        match Up::of(frame.kind) {
            Some(Up::Resolve) => self.lookups.begin(pid, &frame.payload),
            Some(Up::Answer) => self.questions.answered((node, pid), &frame.payload),
            Some(up) => self.changes.answered(node, up, &frame.payload),
            None => tracing::debug!(%node, kind = frame.kind, "a process says what nobody understands"),
        }
    }

    fn show(&mut self) {
        // Their policy is the one that they were started with.
        if let Some(policy) = &self.policy {
            say(&format!(
                "the processes of the nodes override the policy that the program came with ({policy})"
            ));
        }
        self.tell(Down::Show);
    }

    fn reopen(&mut self) {
        log::reopen();
        self.tell(Down::Reopen);
    }

    /// Another program accepts in place of this one: what is open here finishes.
    fn hand_over(&mut self) {
        self.asked += 1;
        lifecycle::reach(Stage::Draining);
        self.changes.close();
        self.tell(Down::HandOver);
    }

    /// A signal asks to end.
    fn asked_to_end(&mut self) {
        let wait = self.times.drain_wait();
        if self.leaving.is_some() {
            // A second one: it does not wait, and cuts.
            self.end();
            self.end();
        } else if self.asked == 0 && !wait.is_zero() && self.listening {
            tracing::info!(?wait, "ending: new clients are not welcome, and still served");
            lifecycle::reach(Stage::Leaving);
            notify::tell(Message::leaving(wait, self.times.grace()));
            self.tell(Down::Leave);
            self.leaving = Some(Instant::now() + wait);
        } else {
            self.end();
        }
    }

    /// The next step of the end: the first asks members to end, the second cuts connections, the third kills.
    /// A member that does not listen yet is killed at once: it has nothing to finish, and may wait for
    /// something that never comes.
    fn end(&mut self) {
        self.asked += 1;
        self.leaving = None;
        lifecycle::reach(Stage::Draining);
        notify::tell(Message::draining(self.times.grace()));
        self.changes.close();
        let third = self.asked > 2;
        self.members.iter_mut().filter(|member| third || !member.ready).for_each(Process::kill);
        self.tell(Down::End);
    }

    /// Ends them now: no more orders come. One that does not listen yet may not look for any.
    fn cut(&mut self) {
        for member in &mut self.members {
            if !member.ready {
                member.kill();
            } else if let Err(error) = member.line.socket().shutdown(Shutdown::Write) {
                tracing::debug!(%error, node = %member.node, "a process has gone already");
            }
        }
    }

    fn tell(&mut self, down: Down) {
        self.members.iter_mut().for_each(|member| member.tell(down, &[], Vec::new()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::sync::LazyLock;

    use super::*;
    use crate::exit::Kind;
    use crate::processes::figures::way;
    use crate::processes::line::Line;
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

    static TIMES: LazyLock<Times> = LazyLock::new(|| Times::of(0, 3600));

    /// With one member, and the other end of its line.
    fn group(ready: bool) -> (ProcessGroup<'static>, UnixStream) {
        let (line, theirs) = UnixStream::pair().unwrap();
        let process = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "processes::parent::group::tests::as_a_deaf_member"])
            .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let line = Line::new(line).unwrap();
        // One for all tests: signals go to the thread that they are raised on, and each reads its own.
        let signals: &'static Signals = Box::leak(Box::new(Signals::block().unwrap()));
        let (members, questions) = way().unwrap();
        let changes = Changes::none(members);
        let mut group = ProcessGroup::new(None, signals, &TIMES, changes, questions);
        group.members.push(Process { node: NodeId(0), process, line, ready, killed: false });
        (group, theirs)
    }

    fn reap(mut group: ProcessGroup<'_>) -> Option<Failure> {
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
        (0..100_000).for_each(|_| group.tell(Down::Show));
        assert!(group.members[0].hear().unwrap().is_some(), "it has said nothing");
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
        let (mut group, theirs) = group(true);
        // The process has the only other end then, as a member has.
        drop(theirs);
        group.asked = 1;
        // Two different ones: a signal that is pending already is not counted again.
        raise(libc::SIGINT);
        raise(libc::SIGTERM);
        let served = Err(End::Failed(Failure::new(Kind::Failed, "the second cannot start".to_owned())));
        let ended = group.leave(served);
        assert!(
            matches!(&ended, Err(End::Failed(cause)) if cause.to_string().contains("the second")),
            "{ended:?}"
        );
        assert!(group.members.is_empty());
        assert_eq!(group.asked, 3);
    }
}
