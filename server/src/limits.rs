//! How many connections there may be: in all, on a core, of a client address.
//!
//! Past the first two the next connections wait in the backlog of the kernel: the core does not accept. Past
//! the third a connection is refused. Without a limit nothing is counted here, and nothing costs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use clap::Args;
use futures_util::future::select;

/// How often a core that waits for room looks whether another core has made some.
const LOOKS: Duration = Duration::from_millis(10);
/// Parts of the count by address, each with a lock of its own.
const SHARDS: usize = 16;

/// The limits of one listener. Each field is a flag, and a key of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct LimitArgs {
    /// Connections that the listener has at most; the rest wait in the backlog [default: as many as there are
    /// descriptors for]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) max_connections: Option<usize>,

    /// Connections that the listener has at most on each core; the rest wait in the backlog
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) max_connections_per_core: Option<usize>,

    /// Connections that each client address has at most; what it opens beyond that is refused: 503 where
    /// files are served, a reset where connections are relayed
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) max_connections_per_client: Option<usize>,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write a number from 1 on".to_owned())
}

/// What is counted for a listener over all cores of the process.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    all: AtomicUsize,
    clients: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

impl Totals {
    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        use std::hash::BuildHasher;
        static KEYS: std::sync::OnceLock<std::hash::RandomState> = std::sync::OnceLock::new();
        let hash = KEYS.get_or_init(std::hash::RandomState::new).hash_one(client);
        &self.clients[hash as usize % SHARDS]
    }

    /// One more of `client`, if that is no more than `most`.
    fn enter(&self, client: IpAddr, most: usize) -> bool {
        let mut clients = self.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        let present = clients.entry(client).or_default();
        if *present >= most {
            return false;
        }
        *present += 1;
        true
    }

    fn leave(&self, client: IpAddr) {
        let mut clients = self.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = clients.get_mut(&client) {
            *present -= 1;
            if *present == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// The limits of a listener on one core.
#[derive(Debug)]
pub(crate) struct Limits {
    args: Cell<LimitArgs>,
    totals: Arc<Totals>,
    here: Cell<usize>,
    /// The task that accepts, while it waits.
    waiting: RefCell<Option<Waker>>,
}

/// The place of a connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Rc<Limits>,
    /// In the count over all cores.
    is_counted: bool,
    client: Option<IpAddr>,
}

impl Limits {
    pub(crate) fn new(args: LimitArgs, totals: Arc<Totals>) -> Rc<Self> {
        Rc::new(Self { args: Cell::new(args), totals, here: Cell::new(0), waiting: RefCell::default() })
    }

    /// Other limits hold from now on. Connections that are there already are in the total only if there was
    /// one before.
    pub(crate) fn set(&self, args: LimitArgs) {
        self.args.set(args);
    }

    /// Whether connections may have to wait: then they are to be accepted one by one.
    pub(crate) fn make_wait(&self) -> bool {
        self.args.get().max_connections.is_some() || self.args.get().max_connections_per_core.is_some()
    }

    /// Whether it matters from whom a connection comes.
    pub(crate) fn ask_for_client(&self) -> bool {
        self.args.get().max_connections_per_client.is_some()
    }

    /// A place for one connection, once there is one. It is to be [claimed](Self::claim) for the client.
    pub(crate) async fn place(self: &Rc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_place() {
                return place;
            }
            // Who leaves on this core wakes this; who leaves on another is found by looking.
            let mut is_first = true;
            let left = poll_fn(|cx| {
                if !std::mem::take(&mut is_first) {
                    return Poll::Ready(());
                }
                drop(self.waiting.replace(Some(cx.waker().clone())));
                Poll::Pending
            });
            select(left, pin!(annulus::time::sleep(LOOKS))).await;
        }
    }

    fn try_place(self: &Rc<Self>) -> Option<Place> {
        if self.args.get().max_connections_per_core.is_some_and(|most| self.here.get() >= most) {
            return None;
        }
        let most = self.args.get().max_connections;
        if let Some(most) = most {
            let one_more = |all| (all < most).then_some(all + 1);
            self.totals.all.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        }
        self.here.set(self.here.get() + 1);
        Some(Place { limits: Rc::clone(self), is_counted: most.is_some(), client: None })
    }
}

impl Place {
    /// Counts it as one of `client`. False if that one has as many as it may have.
    pub(crate) fn claim(&mut self, client: IpAddr) -> bool {
        let Some(most) = self.limits.args.get().max_connections_per_client else { return true };
        let may = self.limits.totals.enter(client, most);
        if may {
            self.client = Some(client);
        }
        may
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let limits = &self.limits;
        limits.here.set(limits.here.get() - 1);
        if self.is_counted {
            limits.totals.all.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(client) = self.client {
            limits.totals.leave(client);
        }
        let waiting = limits.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: Option<usize>, core: Option<usize>, client: Option<usize>) -> [Rc<Limits>; 2] {
        let args = LimitArgs {
            max_connections: all,
            max_connections_per_core: core,
            max_connections_per_client: client,
        };
        let totals = Arc::new(Totals::default());
        [Limits::new(args, Arc::clone(&totals)), Limits::new(args, totals)]
    }

    #[test]
    fn the_total_holds_over_cores_and_the_other_on_each() {
        let [a, b] = limits(Some(3), Some(2), None);
        let places = [a.try_place().unwrap(), a.try_place().unwrap()];
        assert!(a.try_place().is_none(), "the core is full");
        let last = b.try_place().unwrap();
        assert!(b.try_place().is_none(), "all are");
        drop(places);
        assert!(b.try_place().is_some() && a.try_place().is_some());
        drop(last);
        assert_eq!(a.totals.all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn each_client_has_its_own() {
        let [a, b] = limits(None, None, Some(2));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let claim = |limits: &Rc<Limits>, client| {
            let mut place = limits.try_place().unwrap();
            place.claim(client).then_some(place)
        };
        let held = [claim(&a, one).unwrap(), claim(&b, one).unwrap()];
        assert!(claim(&a, one).is_none() && claim(&b, one).is_none());
        let others = claim(&b, other).unwrap();
        drop(held);
        let again = claim(&a, one).unwrap();
        drop((again, others));
        assert!(a.totals.clients.iter().all(|shard| shard.lock().unwrap().is_empty()), "nothing is kept");
    }
}
