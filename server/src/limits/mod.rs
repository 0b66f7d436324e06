//! How many connections there may be: in all, on each core, and from each client address.
//!
//! Beyond the first two limits the next connections wait in the kernel's backlog: the core does not accept.
//! Beyond the third a connection is refused. Without a limit nothing is counted, which costs nothing.
//!
//! The limits apply to the whole program, however many processes it has: they count in one table ([`table`])
//! that all of them map. The alternative is a share for each process, handed out and moved by the first one.
//! It would refuse clients while another process could take them, and it cannot tell which process an
//! address's next connection comes to. A count costs its accept some loads and two compare-and-swaps, and no
//! lock.

mod memory;
mod table;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use clap::Args;
use futures_util::future::select;

use self::table::Table;
pub(crate) use self::table::{Counted, Key};

/// How often a core that waits for a place checks whether another core has freed one.
const CHECK_EVERY: Duration = Duration::from_millis(10);

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

/// The table that the program counts in.
static TABLE: OnceLock<Table> = OnceLock::new();
static ARE_SHARED: AtomicBool = AtomicBool::new(false);

/// Makes the table: what [`count_in`] was given, or else one of this process alone. Call it before the first
/// core.
///
/// # Errors
/// What `mmap(2)` says.
pub(crate) fn begin() -> io::Result<()> {
    if TABLE.get().is_none() {
        TABLE.get_or_init({
            let own = Table::own()?;
            || own
        });
    }
    Ok(())
}

fn table() -> &'static Table {
    // Where nobody has called `begin`, in tests of this crate, it is mapped on first use.
    TABLE.get_or_init(|| Table::own().expect("mapping memory for the limits"))
}

/// Memory that the processes of the program count in together.
///
/// # Errors
/// What `memfd_create(2)` says.
pub(crate) fn share() -> io::Result<OwnedFd> {
    memory::create(Table::counters())
}

/// Makes this process count in what [`share`] has made. Call it before [`begin`].
///
/// # Errors
/// What `mmap(2)` says.
pub(crate) fn count_in(shared: BorrowedFd<'_>) -> io::Result<()> {
    let shared = Table::shared(shared)?;
    TABLE.set(shared).map_err(|_| io::Error::other("this process counts already"))?;
    ARE_SHARED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether other processes count in the same memory. They notify nobody of what they give back.
pub(crate) fn are_shared() -> bool {
    ARE_SHARED.load(Ordering::Relaxed)
}

/// The key that `what` is counted under, in all processes.
pub(crate) fn key(what: impl Hash) -> Key {
    table().key(what)
}

/// The count under `key`, over all processes.
pub(crate) fn count(key: Key) -> usize {
    table().count(key)
}

/// Counts one more under `key`, if the count is then at most `most`.
pub(crate) fn enter(key: Key, most: usize) -> Option<Counted> {
    table().enter(key, most)
}

/// The limits of a listener on one core.
#[derive(Debug)]
pub(crate) struct Limits {
    args: Cell<LimitArgs>,
    /// The listener's number in all processes, and the key that its connections are counted under.
    listener: Cell<(u64, Key)>,
    here: Cell<usize>,
    /// The task that accepts, while it waits.
    waiting: RefCell<Option<Waker>>,
}

/// A connection's place within the limits, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Rc<Limits>,
    /// Its count in the total over all cores.
    counted: Option<Counted>,
    /// Its count in that of its client.
    of_client: Option<Counted>,
}

impl Limits {
    /// The limits of the listener with this number, which is the same in all processes.
    pub(crate) fn new(args: LimitArgs, listener: u64) -> Rc<Self> {
        let listener = Cell::new((listener, key(listener)));
        Rc::new(Self { args: Cell::new(args), listener, here: Cell::new(0), waiting: RefCell::default() })
    }

    /// The number of the listener.
    pub(crate) fn listener(&self) -> u64 {
        self.listener.get().0
    }

    /// Changes the limits and the number. Existing connections are in the total only if there was one before.
    pub(crate) fn set(&self, args: LimitArgs, listener: u64) {
        self.args.set(args);
        self.listener.set((listener, key(listener)));
    }

    /// Whether connections may have to wait; they are then accepted one by one.
    pub(crate) fn make_wait(&self) -> bool {
        self.args.get().max_connections.is_some() || self.args.get().max_connections_per_core.is_some()
    }

    /// Whether a limit depends on the client's address.
    pub(crate) fn ask_for_client(&self) -> bool {
        self.args.get().max_connections_per_client.is_some()
    }

    /// Waits for a place for one connection. It is then [claimed](Self::claim) for the client.
    pub(crate) async fn place(self: &Rc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_place() {
                return place;
            }
            // A connection that ends on this core wakes the task. The timer finds one that ends on another
            // core.
            let mut is_first = true;
            let left = poll_fn(|cx| {
                if !std::mem::take(&mut is_first) {
                    return Poll::Ready(());
                }
                drop(self.waiting.replace(Some(cx.waker().clone())));
                Poll::Pending
            });
            select(left, pin!(annulus::time::sleep(CHECK_EVERY))).await;
        }
    }

    fn try_place(self: &Rc<Self>) -> Option<Place> {
        if self.args.get().max_connections_per_core.is_some_and(|most| self.here.get() >= most) {
            return None;
        }
        let counted = match self.args.get().max_connections {
            Some(most) => Some(enter(self.listener.get().1, most)?),
            None => None,
        };
        self.here.set(self.here.get() + 1);
        Some(Place { limits: Rc::clone(self), counted, of_client: None })
    }
}

impl Place {
    /// Counts the connection as one of `client`. `false` if that client has as many as it may have.
    pub(crate) fn claim(&mut self, client: IpAddr) -> bool {
        let Some(most) = self.limits.args.get().max_connections_per_client else { return true };
        self.of_client = enter(key((self.limits.listener(), client)), most);
        self.of_client.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let limits = &self.limits;
        limits.here.set(limits.here.get() - 1);
        // The counts are given back before the waiting task is woken.
        (self.counted, self.of_client) = (None, None);
        let waiting = limits.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(all: Option<usize>, core: Option<usize>, client: Option<usize>) -> [Rc<Limits>; 2] {
        let args = LimitArgs {
            max_connections: all,
            max_connections_per_core: core,
            max_connections_per_client: client,
        };
        // Tests run at the same time, and count in one table.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        let listener = NEXT.fetch_add(1, Ordering::Relaxed);
        [Limits::new(args, listener), Limits::new(args, listener)]
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
        assert_eq!(count(a.listener.get().1), 0);
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
        assert_eq!([one, other].map(|client| count(key((a.listener(), client)))), [0, 0], "nothing is kept");
    }
}
