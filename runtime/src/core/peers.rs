//! The other cores, as one core sees them: how near they are, and which have to be notified.
//!
//! # When a core wakes another
//!
//! Work for another core is put in its place at once, but the core is notified once a tick. Until then a bit
//! is kept for every core that there is work for. So ten wakes of ten tasks on one core cost one read of its
//! doorbell. If it sleeps, the signal is an SQE of the enter that ends the tick anyway (`IORING_OP_MSG_RING`,
//! Linux 5.18, `io_uring_enter(2)`), without a system call of its own. Where the kernel refuses that, and
//! from threads that are no core's, the signal is a write to the core's eventfd.
//!
//! The doorbell changes only when a core is notified. A core that has work for a sleeping one has not cleared
//! the sleeper's `SLEEPY` yet: others that bring work meanwhile notify it themselves and are not delayed. The
//! argument of the [mailbox](crate::sync::mailbox) still holds, because it requires only that the
//! notification comes at some time after the work. That time comes: a core notifies before it may sleep, when
//! it ends, and after [`POLLS_PER_NOTIFY`] polls of tasks. So the delay is at most that many polls. A task
//! that computes for long delays its wakes, as it delays everything else of its core.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::Core;
use super::shared::CoreShared;
use crate::numa::CpuId;
use crate::numa::plan::PlannedCore;
use crate::numa::topology::{Proximity, Topology};
use crate::ring::user_data::Tag;

/// Polls of tasks after which other cores are notified, although the tick is not over.
pub(crate) const POLLS_PER_NOTIFY: usize = 32;
/// What the CQE of a signal carries in another core's ring, beside its tag.
pub(crate) const BY_RING: u64 = 1;

/// A core of the same runtime.
struct PeerCore {
    shared: Arc<CoreShared>,
    proximity: Proximity,
    /// Its ring; `None` once the kernel has refused to post a message there.
    ring_fd: Cell<Option<RawFd>>,
}

/// All cores of the runtime, by index, this one among them.
pub(crate) struct PeerCores {
    all: Box<[PeerCore]>,
    /// A bit for every core that has work and has not been notified yet.
    to_notify: Box<[Cell<u64>]>,
    any: Cell<bool>,
    /// The other cores, nearest first.
    near: Rc<[Neighbour]>,
}

/// Another core, and how near it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbour {
    /// Its index.
    pub core: usize,
    /// The CPU that it is pinned to.
    pub cpu: CpuId,
    /// How near its CPU is to this core's.
    pub proximity: Proximity,
}

impl Neighbour {
    /// All cores of a plan except `own`, nearest first.
    pub(crate) fn of(own: &PlannedCore, plan: &[PlannedCore], topology: &Topology) -> Vec<Self> {
        let others = plan.iter().filter(|other| other.index != own.index);
        let mut near: Vec<_> = others
            .map(|other| {
                // Every core of the plan is in this topology. One that is not counts as far.
                let proximity = topology.proximity(own.cpu, other.cpu).unwrap_or(Proximity::Remote(u32::MAX));
                Self { core: other.index, cpu: other.cpu, proximity }
            })
            .collect();
        // Among equally near cores, the next one by index comes first, so that cores which all ask for help
        // do not all ask the same one.
        let cores = plan.len();
        near.sort_by_key(|other| (other.proximity, (other.core + cores - own.index) % cores));
        near
    }
}

/// The other cores of this runtime, nearest first: hardware threads of the same physical core, then cores
/// that share the last-level cache, then those of the same node, then other nodes by their distance. It helps
/// to choose whom to ask, or whom to [hand a connection over](crate::net::Connection::hand_over) to.
///
/// # Panics
/// On a thread that is no core's.
pub fn neighbours() -> Rc<[Neighbour]> {
    Core::with(|core| Rc::clone(&core.peers.near))
}

/// The nearest core that has less than half as much to do as this one. `None` when there is no such core, or
/// when this one is not busy. An acceptor that has more than its share uses it to hand *connections* over,
/// and keeps what belongs to them together.
///
/// The measure is the number of tasks that are ready when a tick of the core's loop begins, averaged over
/// about eight ticks ([`Counters::load`](crate::Counters::load)). A core that sleeps has nothing to do. The
/// value is an estimate and may be out of date when it is read.
///
/// # Panics
/// On a thread that is no core's.
pub fn least_loaded_neighbour() -> Option<usize> {
    Core::with(|core| {
        let own = core.shared.counters.load.get();
        let load = |other: &Neighbour| {
            let other = core.peers.get(other.core)?;
            Some(if other.doorbell().is_sleepy() { 0 } else { other.counters.load.get() })
        };
        // The one ready task is the caller.
        if own < 2 * LOAD_OF_ONE {
            return None;
        }
        core.peers
            .near
            .iter()
            .find(|other| load(other).is_some_and(|load| load < own / 2))
            .map(|other| other.core)
    })
}

/// The load of one task that is ready at each tick.
const LOAD_OF_ONE: u64 = 16;

/// The load after a tick that began with `ready` tasks.
pub(crate) fn smoothed(load: u64, ready: usize) -> u64 {
    load - load.div_ceil(8) + LOAD_OF_ONE / 8 * ready as u64
}

impl PeerCores {
    pub(crate) fn new(members: Vec<Arc<CoreShared>>, near: Vec<Neighbour>) -> Self {
        let words = members.len().div_ceil(64);
        let mut all: Box<[PeerCore]> = members
            .into_iter()
            .map(|shared| PeerCore { shared, proximity: Proximity::SameCore, ring_fd: Cell::new(None) })
            .collect();
        for other in &near {
            if let Some(peer) = all.get_mut(other.core) {
                peer.proximity = other.proximity;
            }
        }
        Self {
            all,
            to_notify: vec![Cell::new(0); words].into_boxed_slice(),
            any: Cell::new(false),
            near: near.into(),
        }
    }

    /// Every core is up: stores the descriptors of their rings.
    pub(crate) fn learn_rings(&self) {
        for peer in &self.all {
            peer.ring_fd.set(peer.shared.inbox.get().map(|inbox| inbox.ring_fd));
        }
    }

    /// How many cores there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<CoreShared>> {
        self.all.get(index).map(|peer| &peer.shared)
    }

    /// All cores, by index.
    pub(crate) fn members(&self) -> Arc<[Arc<CoreShared>]> {
        self.all.iter().map(|peer| Arc::clone(&peer.shared)).collect()
    }

    /// Remembers to notify a core. `false`: it is no core of this runtime.
    pub(crate) fn notify_later(&self, core: &CoreShared) -> bool {
        let known = self.all.get(core.index).is_some_and(|peer| std::ptr::eq(&*peer.shared, core));
        if known {
            let word = &self.to_notify[core.index / 64];
            word.set(word.get() | 1 << (core.index % 64));
            self.any.set(true);
        }
        known
    }

    /// Whether cores are to be notified.
    pub(crate) fn must_notify(&self) -> bool {
        self.any.get()
    }

    /// Takes the cores that are to be notified.
    fn take(&self) -> impl Iterator<Item = &PeerCore> {
        self.any.set(false);
        self.to_notify.iter().enumerate().flat_map(move |(word, bits)| {
            let mut bits = bits.take();
            std::iter::from_fn(move || {
                let bit = bits.checked_ilog2()?;
                bits &= !(1 << bit);
                self.all.get(word * 64 + bit as usize)
            })
        })
    }

    /// The kernel refused to post into a core's ring: that core is woken by its eventfd from now on, this
    /// time included.
    pub(crate) fn ring_refused(&self, index: usize) {
        let Some(peer) = self.all.get(index) else { return };
        peer.ring_fd.set(None);
        peer.shared.signal();
    }

    /// How near a core is, if it belongs to this runtime.
    pub(super) fn proximity(&self, to: &CoreShared) -> Option<Proximity> {
        self.all.get(to.index).filter(|peer| std::ptr::eq(&*peer.shared, to)).map(|peer| peer.proximity)
    }
}

impl Core {
    /// Notifies the cores that were given work. Signals to sleepers leave with the next enter,
    /// which the caller makes before it sleeps.
    #[inline(always)]
    pub(crate) fn notify_peers(&self) {
        if self.peers.must_notify() {
            self.notify_each();
        }
    }

    #[inline(never)]
    fn notify_each(&self) {
        let counters = &self.shared.counters;
        for peer in self.peers.take() {
            if !peer.shared.doorbell().notify() {
                continue;
            }
            let Some(fd) = peer.ring_fd.get() else {
                counters.signals_by_eventfd.add(1);
                peer.shared.signal();
                continue;
            };
            counters.signals_by_ring.add(1);
            // Only a refusal posts a CQE here.
            let entry = opcode::MsgRingData::new(types::Fd(fd), 0, Tag::Doorbell.with(BY_RING), None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Tag::Signal.with(peer.shared.index as u64));
            // SAFETY: a message points to nothing. The descriptor is open: rings are closed only after every
            // core has come to its end, and this one has not.
            unsafe { self.ring.push(&entry) };
        }
    }

    /// As [`notify_peers`](Self::notify_peers), when no enter follows.
    pub(crate) fn notify_peers_now(&self) {
        for peer in self.peers.take() {
            if peer.shared.doorbell().notify() {
                self.shared.counters.signals_by_eventfd.add(1);
                peer.shared.signal();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::numa::NodeId;
    use crate::numa::plan::{CorePlan, CoreSelection};
    use crate::numa::topology::{CpuFacts, Description, NodeFacts};

    /// Two nodes of two caches of two cores of two threads.
    #[test]
    fn neighbours_come_nearest_first_and_not_all_ask_the_same() {
        let cpu = |i: u32| CpuFacts {
            id: CpuId(i),
            node: NodeId(i / 8),
            package: i / 8,
            core: i / 2,
            cache: Some(i / 4),
        };
        let node = |i: u32| NodeFacts {
            id: NodeId(i),
            memory_total: 1 << 30,
            memory_free: 1 << 29,
            distances: vec![],
        };
        let topology = Topology::new(Description {
            numa: true,
            cpus: (0..16).map(cpu).collect(),
            nodes: vec![node(0), node(1)],
            allowed_cpus: "0-15".parse().unwrap(),
            allowed_memory: "0-1".parse().unwrap(),
        })
        .unwrap();
        let plan = CorePlan::new(&topology, &CoreSelection::List("0-15".parse().unwrap())).unwrap();
        let order = |own: usize| {
            let near = Neighbour::of(&plan.cores()[own], plan.cores(), &topology);
            near.iter().map(|other| other.core).collect::<Vec<_>>()
        };
        assert_eq!(order(0), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(order(6), [7, 4, 5, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(order(9)[..7], [8, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn load_follows_what_is_ready_and_comes_back_to_nothing() {
        let busy = (0..100).fold(0, |load, _| smoothed(load, 10));
        assert!((140..=160).contains(&busy), "{busy}");
        assert_eq!((0..100).fold(busy, |load, _| smoothed(load, 0)), 0);
    }

    /// Two cores that wait for their stop. `None`, with a printed line, where there is only one CPU.
    fn two_idle_cores() -> Option<crate::Running> {
        let allowed = crate::numa::thread::affinity_of_current().unwrap();
        if allowed.len() < 2 {
            println!("skipped: two cores need two CPUs, and this process has {allowed}");
            return None;
        }
        let cpus: crate::numa::CpuSet = allowed.iter().take(2).collect();
        let runtime = crate::Runtime::builder()
            .cores(CoreSelection::List(cpus))
            .pool_bytes(1 << 20)
            .ring_entries(64)
            .build()
            .unwrap();
        let idle = || async {
            crate::cores::stopping().await;
            crate::Ok(())
        };
        Some(runtime.start(idle).unwrap())
    }

    /// A core whose ring has failed may have cleared another's `SLEEPY` and never sent the signal.
    ///
    /// Seen to fail: with a stop that only rings the doorbell, the other core sleeps on.
    #[test]
    fn a_stop_reaches_a_core_whose_signal_was_lost() {
        let Some(running) = two_idle_cores() else { return };
        let lose = async || {
            while !Core::with(|core| core.peers.all[1].shared.doorbell().notify()) {
                crate::yield_now().await;
            }
        };
        running.handle().submit_to_blocking(0, lose).unwrap();
        running.stop();
        let mut ended =
            [rustix::event::PollFd::from_borrowed_fd(running.finished_fd(), rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        if rustix::event::poll(&mut ended, Some(&patience)).unwrap() == 0 {
            // Dropping it would wait.
            std::mem::forget(running);
            panic!("core 1 sleeps on");
        }
        running.wait().unwrap();
    }

    /// Where the kernel will not post into another ring, that core is woken by its eventfd, and nothing is
    /// lost.
    ///
    /// Seen to fail, by waiting for ever: without the signal in `ring_refused`.
    #[test]
    fn a_ring_that_takes_no_message_is_rung_by_its_eventfd() {
        const ROUNDS: usize = 50;
        let Some(running) = two_idle_cores() else { return };
        running
            .handle()
            .submit_to_blocking(0, async || {
                // An eventfd is no ring, so the kernel answers EBADFD.
                Core::with(|core| core.peers.all[1].ring_fd.set(Some(core.peers.all[1].shared.eventfd())));
                for round in 0..ROUNDS {
                    assert_eq!(crate::cores::submit_to(1, async move || round).await.unwrap(), round);
                }
                Core::with(|core| {
                    assert_eq!(core.peers.all[1].ring_fd.get(), None, "refused once, not asked again")
                });
            })
            .unwrap();
        let counters = running.counters();
        assert_eq!(counters[0].signals_by_ring, 1, "{}", counters[0]);
        running.stop();
        running.wait().unwrap();
    }
}
