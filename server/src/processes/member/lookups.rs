//! Names that the first process looks up for this one.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::processes::orders::name_answered;
use crate::proxy::names::{Answer, Missing};

/// How long an answer may take: more than a resolver does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Questions that are under way.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<Questions>);

#[derive(Debug, Default)]
struct Questions {
    /// How many questions there were. The next one has this number and one more.
    asked: u64,
    /// Where answers go, by the number of the question.
    waiting: HashMap<[u8; 8], Sender<Answer>>,
}

impl Lookups {
    /// Sends a question by `send`, which is given its number, and waits for the answer.
    pub(super) fn ask(&self, send: impl FnOnce([u8; 8])) -> Answer {
        let (tell, told) = channel();
        let number = {
            let mut questions = self.lock();
            questions.asked += 1;
            let number = questions.asked.to_le_bytes();
            questions.waiting.insert(number, tell);
            number
        };
        send(number);
        told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            self.lock().waiting.remove(&number);
            Err(Missing::NoAnswer("the first process has no answer".to_owned()))
        })
    }

    /// The first process has answered.
    pub(super) fn answered(&self, payload: &[u8]) {
        let Some((number, found)) = name_answered(payload) else {
            return tracing::warn!("the first process answers what nobody understands");
        };
        let asked = self.lock().waiting.remove(&number);
        // The wait may have ended after `PATIENCE`.
        drop(asked.map(|asked| asked.send(found)));
    }

    fn lock(&self) -> MutexGuard<'_, Questions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::orders::name_found;
    use crate::proxy::names::Found;

    #[test]
    fn each_question_has_its_answer() {
        let lookups = Lookups::default();
        let found = |last: u8| -> Answer {
            Ok(Found::of(vec![([192, 0, 2, last], 80).into()], Duration::from_secs(9)))
        };
        let first = lookups.ask(|first| {
            let second = lookups.ask(|second| {
                lookups.answered(&name_found(first, &found(1)));
                lookups.answered(&name_found(second, &found(2)));
            });
            assert_eq!(second, found(2));
        });
        assert_eq!(first, found(1));
        lookups.answered(&name_found([0; 8], &found(3)));
    }
}
