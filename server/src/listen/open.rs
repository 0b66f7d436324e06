//! What is listened on: kept by the process that was started, which opens and closes for all cores.
//!
//! A change of the configuration keeps the endpoints that are in both, with their sockets and what waits in
//! them; opens what is new before anything changes; and closes what has gone.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use annulus::net::UnixSocket;
use annulus::numa::CpuId;

use super::endpoint::{Carries, Endpoint, EndpointId, EndpointKey, Opened};
use super::passed::Passed;
use crate::exit::Failure;

/// All endpoints that are open.
#[derive(Debug, Default)]
pub(crate) struct OpenEndpoints {
    /// What was passed, for as long as the program runs: a listener that has gone may come again.
    passed: Arc<Passed>,
    open: Vec<Held>,
    /// The id of the next one.
    next: u64,
}

/// One that is open.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    id: EndpointId,
    key: EndpointKey,
    shown: String,
    /// Dropped, it takes the file of a Unix socket away.
    file: Option<Arc<UnixSocket>>,
}

/// What is to be listened on next. Dropped, nothing has changed and what was opened for it is closed.
#[derive(Debug)]
pub(crate) struct NextEndpoints {
    /// Of each listener, the endpoints in the order given.
    pub(crate) ids: Vec<Vec<EndpointId>>,
    /// The sockets of those that were opened for it, one for each core, and whether all of them are one
    /// open socket.
    pub(crate) sockets: Vec<(EndpointId, bool, Vec<OwnedFd>)>,
    /// Of each listener, where it listens.
    pub(crate) shown: Vec<Vec<String>>,
    /// Which of them are new, by listener and place.
    pub(crate) new: Vec<(usize, String)>,
    /// All of them.
    pub(crate) all: Vec<Held>,
    /// The id of the next one.
    pub(crate) next: u64,
}

impl OpenEndpoints {
    /// None yet, with sockets that were passed.
    pub(crate) fn new(passed: Arc<Passed>) -> Self {
        OpenEndpoints { passed, ..OpenEndpoints::default() }
    }

    /// The sockets that were passed.
    pub(crate) fn passed(&self) -> &Passed {
        &self.passed
    }

    /// Keeps what is in `keys`, of each listener, and opens the rest for the cores on `cpus`.
    ///
    /// # Errors
    /// Why an address cannot be listened on: nothing has changed.
    pub(crate) fn plan(&self, keys: &[Vec<EndpointKey>], cpus: &[CpuId]) -> Result<NextEndpoints, Failure> {
        let mut left: Vec<&Held> = self.open.iter().collect();
        let (mut ids, mut sockets, mut shown, mut new, mut all) = (vec![], vec![], vec![], vec![], vec![]);
        let mut next = self.next;
        for (listener, keys) in keys.iter().enumerate() {
            let (mut of_listener, mut shown_of_listener) = (Vec::new(), Vec::new());
            for key in keys {
                let kept = left.iter().position(|held| held.key.is_at(key)).map(|at| left.swap_remove(at));
                let held = match kept {
                    Some(kept) => Held { key: key.clone(), ..kept.clone() },
                    None => {
                        let before = shown_of_listener.last().and_then(|shown: &String| shown.parse().ok());
                        let Some(opened) = key.open(cpus, &self.passed, before)? else { continue };
                        let Opened { shown, sockets: opened, is_shared, file } = opened;
                        let id = EndpointId(next);
                        next += 1;
                        sockets.push((id, is_shared, opened));
                        if key.carries != Carries::DatagramsBeside {
                            new.push((listener, shown.clone()));
                        }
                        Held { id, key: key.clone(), shown, file: file.map(Arc::new) }
                    }
                };
                of_listener.push(held.id);
                shown_of_listener.push(held.shown.clone());
                all.push(held);
            }
            ids.push(of_listener);
            shown.push(shown_of_listener);
        }
        Ok(NextEndpoints { ids, sockets, shown, new, all, next })
    }

    /// Goes over to what was planned. Returns where it does not listen any more.
    pub(crate) fn commit(&mut self, planned: NextEndpoints) -> Vec<String> {
        self.go_over(planned.all, planned.next)
    }

    /// The same, to its parts.
    pub(crate) fn go_over(&mut self, all: Vec<Held>, next: u64) -> Vec<String> {
        let gone = |held: &&Held| all.iter().all(|other| other.id != held.id);
        let closed = self.open.iter().filter(gone).map(|held| held.shown.clone()).collect();
        for held in &all {
            held.key.set_mode();
        }
        (self.open, self.next) = (all, next);
        closed
    }

    /// Removes the files of Unix sockets: a client that comes later is refused, and does not wait in a
    /// backlog that nobody accepts from.
    pub(crate) fn remove_files(&mut self) {
        self.open.iter_mut().for_each(|held| held.file = None);
    }
}

impl NextEndpoints {
    /// What the cores of this process take of the new sockets: all of them.
    pub(crate) fn take(&mut self) -> HashMap<EndpointId, Arc<Endpoint>> {
        let of = |(id, is_shared, sockets)| (id, Arc::new(Endpoint::new(sockets, is_shared)));
        std::mem::take(&mut self.sockets).into_iter().map(of).collect()
    }
}
