//! Questions of other threads, on their way to the members and back.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;
use std::time::Instant;

use annulus::numa::NodeId;

use super::process::Process;
use crate::processes::figures::Asked;
use crate::processes::orders::Down;

/// A question that was passed on.
struct UnderWay {
    answers: Sender<(NodeId, Vec<u8>)>,
    until: Instant,
    /// The processes that have not answered, by their numbers.
    waiting: Vec<u32>,
}

/// What other threads ask, and what of it is under way.
pub(super) struct Questions {
    asked: Asked,
    /// Questions that were passed on, by their number.
    under_way: HashMap<u64, UnderWay>,
    /// Processes that owe an answer for which nobody waits any more. They are asked nothing else meanwhile.
    late: HashSet<u32>,
    next: u64,
}

impl Questions {
    /// Questions that come by `asked`.
    pub(super) fn new(asked: Asked) -> Self {
        Questions { asked, under_way: HashMap::new(), late: HashSet::new(), next: 0 }
    }

    /// Says that the main thread is awake.
    pub(super) fn awake(&self) {
        self.asked.awake();
    }

    /// Passes on what was asked. A question without `members` to answer it is dropped, which its asker sees.
    pub(super) fn pass_on(&mut self, members: &mut [Process]) {
        while let Ok(question) = self.asked.questions.try_recv() {
            self.give_up(Instant::now());
            let id = self.next;
            self.next += 1;
            let text = [&id.to_le_bytes()[..], &question.text].concat();
            let mut waiting = Vec::new();
            for member in members.iter_mut() {
                let pid = member.process.id();
                if question.is_order || !self.late.contains(&pid) {
                    member.tell(Down::Ask, &text, Vec::new());
                    waiting.push(pid);
                }
            }
            if !waiting.is_empty() {
                let (answers, until) = (question.answers, question.until);
                self.under_way.insert(id, UnderWay { answers, until, waiting });
            }
        }
    }

    /// Forgets the questions whose askers have stopped waiting.
    fn give_up(&mut self, now: Instant) {
        let late = &mut self.late;
        self.under_way.retain(|_, question| {
            let is_waited_for = question.until > now;
            if !is_waited_for {
                late.extend(question.waiting.drain(..));
            }
            is_waited_for
        });
    }

    /// A member has answered: the number of the question, and what it says.
    pub(super) fn answered(&mut self, (node, pid): (NodeId, u32), payload: &[u8]) {
        self.late.remove(&pid);
        let Some((id, answer)) = payload.split_first_chunk::<8>() else { return };
        let id = u64::from_le_bytes(*id);
        let Some(question) = self.under_way.get_mut(&id) else { return };
        question.waiting.retain(|waiting| *waiting != pid);
        // The asker may have stopped waiting. Then those who have not answered are late.
        if question.answers.send((node, answer.to_vec())).is_err() {
            self.late.extend(question.waiting.drain(..));
        }
        if question.waiting.is_empty() {
            self.under_way.remove(&id);
        }
    }
}

impl AsFd for Questions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::processes::figures::way;
    use crate::processes::line::{Heard, Line};

    /// A member that takes no part, and the other end of its line.
    fn member() -> (Process, Line) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // It has its number until it is waited for.
        let process = Command::new("true").spawn().unwrap();
        let line = Line::new(ours).unwrap();
        (Process { node: NodeId(0), process, line, ready: true, killed: false }, Line::new(theirs).unwrap())
    }

    /// The number of each question that has come.
    fn came(line: &mut Line) -> Vec<u64> {
        let mut came = Vec::new();
        while let Heard::Frame(frame) = line.hear().unwrap() {
            came.push(u64::from_le_bytes(*frame.payload.first_chunk().unwrap()));
        }
        came
    }

    /// Seen to fail: with each question to all members, with a member that is late for good, and with orders
    /// that one that is late does not get.
    #[test]
    fn who_owes_an_answer_is_asked_nothing_else_and_gets_every_order() {
        let (asker, asked) = way().unwrap();
        let mut questions = Questions::new(asked);
        let (mut members, mut lines): (Vec<_>, Vec<_>) = [member(), member()].into_iter().unzip();
        let pids = [0, 1].map(|index: usize| members[index].process.id());
        let mut passed_on = |questions: &mut Questions| {
            questions.pass_on(&mut members);
            [0, 1].map(|index: usize| came(&mut lines[index]))
        };
        let no_time = Duration::ZERO;
        asker.ask(b"a", no_time);
        assert_eq!(passed_on(&mut questions), [vec![0], vec![0]]);
        questions.answered((NodeId(0), pids[0]), &0u64.to_le_bytes());
        asker.ask(b"b", no_time);
        assert_eq!(passed_on(&mut questions), [vec![1], vec![]]);
        questions.answered((NodeId(0), pids[0]), &1u64.to_le_bytes());
        asker.order(b"c", no_time);
        assert_eq!(passed_on(&mut questions), [vec![2], vec![2]]);
        questions.answered((NodeId(0), pids[0]), &2u64.to_le_bytes());
        questions.answered((NodeId(0), pids[1]), &0u64.to_le_bytes());
        asker.ask(b"d", no_time);
        assert_eq!(passed_on(&mut questions), [vec![3], vec![3]]);
        members.iter_mut().for_each(|member| drop(member.process.wait()));
    }
}
