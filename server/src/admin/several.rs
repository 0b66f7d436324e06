//! The program as a whole, where several processes serve: the first one answers operators, and asks the
//! others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use annulus::{Handle, Observer};

use super::source::Source;
use crate::metrics::gather::{Gatherer, without_cores};
use crate::metrics::status::Status;
use crate::metrics::upstreams::{self, UpstreamStatus, Upstreams};
use crate::processes::figures::{Members, answer_by};
use crate::service::alive;

/// How long a member may take to answer. A machine that is busy may hold it up for seconds, and counters
/// without its share would look as if they had begun anew. Prometheus waits for 10 s. A member that does not
/// answer in this time is left out, without a wait, until it has.
const PATIENCE: Duration = Duration::from_secs(8);

/// A question: the member's status.
const STATUS: &[u8] = b"status";
/// Orders: an upstream's address follows.
const IN: &[u8] = b"in ";
const OUT: &[u8] = b"out ";
/// A question: whether no core is stuck for this many milliseconds, which follow.
const ALIVE: &[u8] = b"alive ";
/// The answer to an order that could be followed.
const DONE: &[u8] = b"done";

/// What all members together do.
pub(crate) struct Several {
    members: Members,
    count: usize,
}

impl Several {
    /// Of these members, which are so many. Their upstreams are this process's from now on.
    pub(crate) fn new(members: &Members, count: usize) -> Self {
        upstreams::register(Box::new(OfMembers(Mutex::new(members.clone()))));
        Several { members: members.clone(), count }
    }
}

impl Source for Several {
    fn status(&mut self) -> Status {
        let mut status = without_cores();
        let mut answers = self.members.ask(STATUS, PATIENCE);
        answers.sort_by_key(|(node, _)| *node);
        status.members.asked = self.count;
        for (node, answer) in answers {
            match serde_json::from_slice(&answer) {
                Ok(member) => {
                    status.merge(member);
                    status.members.answered += 1;
                }
                Err(error) => tracing::warn!(%node, %error, "a process does not say how it is doing"),
            }
        }
        status.cores.sort_by_key(|core| core.cpu);
        status
    }
}

/// Whether all of this many members say that none of their cores is in one step of a task for `time`.
pub(crate) fn are_alive(members: &Members, count: usize, time: Duration) -> bool {
    let question = [ALIVE, time.as_millis().to_string().as_bytes()].concat();
    let answers = members.ask(&question, time + PATIENCE);
    answers.iter().filter(|(_, answer)| answer == DONE).count() == count
}

/// The upstreams of the members.
struct OfMembers(Mutex<Members>);

impl Upstreams for OfMembers {
    /// They come with each member's status.
    fn list(&self) -> Vec<UpstreamStatus> {
        Vec::new()
    }

    fn set_in_service(&self, address: &str, in_service: bool) -> bool {
        let order = [if in_service { IN } else { OUT }, address.as_bytes()].concat();
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        members.order(&order, PATIENCE).iter().any(|(_, answer)| answer == DONE)
    }
}

/// Answers the first process from now on: this one is a member of it.
pub(crate) fn answer_first(observer: Observer, cores: Handle) {
    let gatherer = Mutex::new(Gatherer::new(observer));
    answer_by(move |question| {
        let checks =
            question.strip_prefix(ALIVE).and_then(|time| std::str::from_utf8(time).ok()?.parse().ok());
        if let Some(time) = checks.map(Duration::from_millis) {
            return if alive::are_alive(&cores, time) { DONE.to_vec() } else { Vec::new() };
        }
        if question == STATUS {
            let status = gatherer.lock().unwrap_or_else(PoisonError::into_inner).gather();
            // Numbers, texts and maps with text keys: nothing of this can fail.
            return serde_json::to_vec(&status).unwrap_or_default();
        }
        let order = [(IN, true), (OUT, false)].into_iter().find_map(|(word, in_service)| {
            Some((std::str::from_utf8(question.strip_prefix(word)?).ok()?, in_service))
        });
        match order {
            Some((address, in_service)) if upstreams::set_in_service(address, in_service) => DONE.to_vec(),
            _ => Vec::new(),
        }
    });
}
