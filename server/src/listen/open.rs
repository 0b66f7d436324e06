//! What is listened on: kept by the process that was started, which opens and closes for all cores.
//!
//! A change of the configuration keeps the endpoints that are in both, with their sockets and what waits in
//! them; opens what is new before anything changes; and closes what has gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use annulus::net::UnixSocket;
use annulus::numa::CpuId;

use super::endpoint::{Carries, Endpoint, EndpointId, EndpointKey, Opened};
use super::inherited::Inherited;
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
    /// Beside an earlier one of the same key: the program before had more cores.
    is_further: bool,
    shown: String,
    /// Its sockets, for a program that takes this one's place.
    copies: Arc<Vec<OwnedFd>>,
    /// Dropped, it takes the file of a Unix socket away.
    file: Option<Arc<UnixSocket>>,
}

/// The sockets of the cores, one each, and before them whether some are descriptors of one open socket.
type OfCores = (bool, Vec<OwnedFd>);

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
                let held = match take(&mut left, key) {
                    held if !held.is_empty() => held,
                    _ => {
                        let beside = shown_of_listener.last().and_then(|shown: &String| shown.parse().ok());
                        let opened = self.open_now(key, cpus, beside, &mut next)?;
                        if key.carries != Carries::DatagramsBeside {
                            new.extend(opened.first().map(|(held, _)| (listener, held.shown.clone())));
                        }
                        let split = |(held, (is_shared, of_cores)): (Held, OfCores)| {
                            sockets.push((held.id, is_shared, of_cores));
                            held
                        };
                        opened.into_iter().map(split).collect()
                    }
                };
                of_listener.extend(held.iter().map(|held| held.id));
                shown_of_listener.extend(held.first().map(|held| held.shown.clone()));
                all.extend(held);
            }
            ids.push(of_listener);
            shown.push(shown_of_listener);
        }
        Ok(NextEndpoints { ids, sockets, shown, new, all, next })
    }

    /// Opens an endpoint, or takes it over from the program before.
    fn open_now(
        &self,
        key: &EndpointKey,
        cpus: &[CpuId],
        beside: Option<SocketAddr>,
        next: &mut u64,
    ) -> Result<Vec<(Held, OfCores)>, Failure> {
        let inherited = match key.passed {
            None => self.passed.inherit(&key.name(), key.only_v6),
            Some(_) => None,
        };
        let opened = match inherited {
            Some(inherited) => key.take_over(inherited, cpus.len())?,
            None => key.open(cpus, &self.passed, beside)?.into_iter().collect(),
        };
        let failed = |error| Failure::failed("cannot duplicate a listening socket", error);
        let hold = |(part, Opened { shown, sockets, own, is_shared, file }): (usize, Opened)| {
            let copies = sockets[..own].iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
            let id = EndpointId(*next);
            *next += 1;
            let (copies, file) = (Arc::new(copies.map_err(failed)?), file.map(Arc::new));
            let held = Held { id, key: key.clone(), is_further: part > 0, shown, copies, file };
            Ok((held, (is_shared, sockets)))
        };
        opened.into_iter().enumerate().map(hold).collect()
    }

    /// A descriptor of each socket, for a program that takes this one's place.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn copies(&self) -> std::io::Result<Vec<Inherited>> {
        let mut all: Vec<Inherited> = Vec::new();
        for held in self.open.iter().filter(|held| held.key.passed.is_none()) {
            let copies = held.copies.iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>()?;
            match all.last_mut() {
                Some(last) if held.is_further => last.sockets.extend(copies),
                _ => {
                    let address = held.key.name();
                    all.push(Inherited { address, only_v6: held.key.only_v6, sockets: copies });
                }
            }
        }
        Ok(all)
    }

    /// The files of Unix sockets are another program's from now on.
    pub(crate) fn leave_files(&self) {
        self.open.iter().filter_map(|held| held.file.as_ref()).for_each(|file| file.leave_file());
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
        self.passed.close_others();
        closed
    }

    /// Removes the files of Unix sockets and closes what cores do not have: a client that comes later is
    /// refused, and does not wait in a backlog that nobody accepts from.
    pub(crate) fn remove_files(&mut self) {
        for held in &mut self.open {
            (held.file, held.copies) = (None, Arc::default());
        }
    }
}

/// Takes what is at `key` out of those that are `left`, under its new name: one, or those beside it too.
fn take(left: &mut Vec<&Held>, key: &EndpointKey) -> Vec<Held> {
    let Some(at) = left.iter().position(|held| !held.is_further && held.key.is_at(key)) else {
        return Vec::new();
    };
    let further = left[at + 1..].iter().take_while(|held| held.is_further).count();
    left.drain(at..=at + further).map(|held| Held { key: key.clone(), ..held.clone() }).collect()
}

impl NextEndpoints {
    /// What the cores of this process take of the new sockets: all of them.
    pub(crate) fn take(&mut self) -> HashMap<EndpointId, Arc<Endpoint>> {
        let of = |(id, is_shared, sockets)| (id, Arc::new(Endpoint::new(sockets, is_shared)));
        std::mem::take(&mut self.sockets).into_iter().map(of).collect()
    }
}
