//! Questions of other threads, on their way to the members and back.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;

use annulus::numa::NodeId;

use super::process::Process;
use crate::processes::figures::Asked;
use crate::processes::orders::Down;

/// Where answers go, and from how many they still come.
type UnderWay = (Sender<(NodeId, Vec<u8>)>, usize);

/// What other threads ask, and what of it is under way.
pub(super) struct Questions {
    asked: Asked,
    /// Questions that were passed on, by their number.
    under_way: HashMap<u64, UnderWay>,
    next: u64,
}

impl Questions {
    /// Questions that come by `asked`.
    pub(super) fn new(asked: Asked) -> Self {
        Questions { asked, under_way: HashMap::new(), next: 0 }
    }

    /// Says that the main thread is awake.
    pub(super) fn awake(&self) {
        self.asked.awake();
    }

    /// Passes on what was asked. A question without `members` to answer it is dropped, which its asker sees.
    pub(super) fn pass_on(&mut self, members: &mut [Process]) {
        while let Ok(question) = self.asked.questions.try_recv() {
            if members.is_empty() {
                continue;
            }
            let id = self.next;
            self.next += 1;
            let text = [&id.to_le_bytes()[..], &question.text].concat();
            self.under_way.insert(id, (question.answers, members.len()));
            members.iter_mut().for_each(|member| member.tell(Down::Ask, &text, Vec::new()));
        }
    }

    /// A member has answered: the number of the question, and what it says.
    pub(super) fn answered(&mut self, node: NodeId, payload: &[u8]) {
        let Some((id, answer)) = payload.split_first_chunk::<8>() else { return };
        let id = u64::from_le_bytes(*id);
        let Some((answers, left)) = self.under_way.get_mut(&id) else { return };
        // The asker may have stopped waiting.
        let is_heard = answers.send((node, answer.to_vec())).is_ok();
        *left -= 1;
        if *left == 0 || !is_heard {
            self.under_way.remove(&id);
        }
    }
}

impl AsFd for Questions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }
}
