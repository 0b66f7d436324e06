//! Questions that the first process asks the others: what they have counted, for the status of the whole
//! program.
//!
//! The first process asks by [`Members::ask`], from any thread but its main one; a member answers by what
//! was given to [`answer_by`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use annulus::numa::NodeId;
use rustix::event::{EventfdFlags, eventfd};

/// What answers questions in a member.
type Answerer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

static ANSWERER: OnceLock<Answerer> = OnceLock::new();

/// From now on questions are answered by `answerer`, on a thread that may wait a little. The first call
/// decides.
pub(crate) fn answer_by(answerer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
    ANSWERER.get_or_init(|| Box::new(answerer));
}

/// The answer of this process; empty where nobody answers.
pub(super) fn answer(question: &[u8]) -> Vec<u8> {
    ANSWERER.get().map_or_else(Vec::new, |answerer| answerer(question))
}

/// A question on its way.
pub(super) struct Question {
    pub(super) text: Vec<u8>,
    /// Where each member's answer goes.
    pub(super) answers: Sender<(NodeId, Vec<u8>)>,
    /// Until when answers are waited for.
    pub(super) until: Instant,
    /// Whether it also goes to a member that owes an answer.
    pub(super) is_order: bool,
}

/// Passes questions from any thread of the first process to its members.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    questions: Sender<Question>,
    wake: Arc<OwnedFd>,
}

/// The main thread's end of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) questions: Receiver<Question>,
    wake: Arc<OwnedFd>,
}

/// Both ends.
pub(super) fn way() -> io::Result<(Members, Asked)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, questions) = channel();
    Ok((Members { questions: sender, wake: Arc::clone(&wake) }, Asked { questions, wake }))
}

impl Members {
    /// The answers of all members that answer within `patience`, in no order. A member that has let an
    /// earlier question wait for longer than its patience is not asked until it has answered that one: so it
    /// holds up one question, and no more. Not on the main thread, which passes them on.
    pub(crate) fn ask(&self, question: &[u8], patience: Duration) -> Vec<(NodeId, Vec<u8>)> {
        self.answers(question, patience, false)
    }

    /// As [`ask`](Self::ask), and every member gets it: one that does not answer now obeys when it can.
    pub(crate) fn order(&self, order: &[u8], patience: Duration) -> Vec<(NodeId, Vec<u8>)> {
        self.answers(order, patience, true)
    }

    fn answers(&self, text: &[u8], patience: Duration, is_order: bool) -> Vec<(NodeId, Vec<u8>)> {
        let (answers, came) = channel();
        let until = Instant::now() + patience;
        if self.questions.send(Question { text: text.to_vec(), answers, until, is_order }).is_err() {
            return Vec::new();
        }
        self.wake();
        let next = || {
            let left = until.saturating_duration_since(Instant::now());
            // The end comes when every member that was asked has answered or gone.
            came.recv_timeout(left).ok()
        };
        std::iter::from_fn(next).collect()
    }

    /// Wakes the main thread.
    pub(super) fn wake(&self) {
        if let Err(errno) = rustix::io::write(&*self.wake, &1u64.to_ne_bytes()) {
            // The eventfd's count is at its limit, so the thread is awake.
            tracing::trace!(%errno, "the main thread was woken already");
        }
    }
}

impl Asked {
    /// The main thread is awake.
    pub(super) fn awake(&self) {
        let mut count = [0; 8];
        if let Err(errno) = rustix::io::read(&*self.wake, &mut count) {
            tracing::trace!(%errno, "nobody has woken the main thread");
        }
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
