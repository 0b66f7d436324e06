//! The other cores, as a core sees them: where they are, and whom it has to wake.
//!
//! # When a core wakes another
//!
//! Work for another core is put in its place at once, but the doorbell is rung once a turn: until then the core keeps a
//! bit for every core that it has work for. So ten wakes of ten tasks on one core cost one look at its doorbell, and a
//! signal, if it sleeps, travels as an SQE of the enter that ends the turn anyway (`IORING_OP_MSG_RING`, Linux 5.18,
//! `io_uring_enter(2)`), without a system call of its own. Where the kernel refuses that, and from threads that are no
//! core's, the signal is a write to the core's eventfd.
//!
//! Nothing is claimed before the doorbell is rung. A core that has work for a sleeping one has not taken the sleeper's
//! `SLEEPY` away: others who bring work meanwhile ring for themselves and are not held up. The argument of the
//! [mailbox](super::mailbox) holds as it stands, since it asks only that the ring comes after the work, at some time.
//! That time comes: a core rings before it may sleep, when it ends, and after [`POLLS_PER_RING`] polls of tasks. What
//! bounds the delay is therefore so many polls; a task that computes for long keeps its wakes back as it keeps everything
//! else of its core back.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::Core;
use super::counters::CoreCounters;
use super::shared::CoreShared;
use crate::op::Tag;

/// Polls of tasks after which the doorbells are rung, although the turn is not over.
pub(crate) const POLLS_PER_RING: usize = 32;
/// What the CQE of a signal carries in another core's ring, beside its tag.
pub(crate) const BY_RING: u64 = 1;

/// A core of the same runtime.
struct Peer {
    shared: Arc<CoreShared>,
    /// Its ring, `None` once the kernel has refused to post there.
    ring_fd: Cell<Option<RawFd>>,
}

/// All cores of the runtime, by index, this one among them.
pub(crate) struct Peers {
    all: Box<[Peer]>,
    /// A bit for every core that has work and was not rung yet.
    to_ring: Box<[Cell<u64>]>,
    any: Cell<bool>,
}

impl Peers {
    pub(crate) fn new(members: Vec<Arc<CoreShared>>) -> Self {
        let words = members.len().div_ceil(64);
        let all = members.into_iter().map(|shared| Peer { shared, ring_fd: Cell::new(None) }).collect();
        Self { all, to_ring: vec![Cell::new(0); words].into_boxed_slice(), any: Cell::new(false) }
    }

    /// Every core is up: learns the descriptors of their rings.
    pub(crate) fn learn_rings(&self) {
        for peer in &self.all {
            peer.ring_fd.set(peer.shared.door.get().map(|door| door.ring_fd));
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

    /// Remembers to ring a core. False: it is no core of this runtime.
    pub(crate) fn ring_later(&self, core: &CoreShared) -> bool {
        let known = self.all.get(core.index).is_some_and(|peer| std::ptr::eq(&*peer.shared, core));
        if known {
            let word = &self.to_ring[core.index / 64];
            word.set(word.get() | 1 << (core.index % 64));
            self.any.set(true);
        }
        known
    }

    /// Whether doorbells are to be rung.
    pub(crate) fn must_ring(&self) -> bool {
        self.any.get()
    }

    /// Forgets and gives the cores that are to be rung.
    fn take(&self) -> impl Iterator<Item = &Peer> {
        self.any.set(false);
        self.to_ring.iter().enumerate().flat_map(move |(word, bits)| {
            let mut bits = bits.take();
            std::iter::from_fn(move || {
                let bit = bits.checked_ilog2()?;
                bits &= !(1 << bit);
                self.all.get(word * 64 + bit as usize)
            })
        })
    }

    /// The kernel would not post into a core's ring: from now on it is woken by its eventfd, this time too.
    pub(crate) fn ring_refused(&self, index: usize) {
        let Some(peer) = self.all.get(index) else { return };
        peer.ring_fd.set(None);
        peer.shared.signal();
    }

    /// Work is about to be sent to a core.
    pub(crate) fn count_submit(&self, counters: &CoreCounters, to: &CoreShared) {
        let _ = to;
        counters.submits.add(1);
    }
}

impl Core {
    /// Rings the doorbells of the cores that were given work. Signals to sleepers leave with the next enter, which the
    /// caller makes before it sleeps.
    pub(crate) fn ring_peers(&self) {
        if !self.peers.must_ring() {
            return;
        }
        let counters = &self.shared.counters;
        for peer in self.peers.take() {
            if !peer.shared.doorbell().ring() {
                continue;
            }
            let Some(fd) = peer.ring_fd.get() else {
                counters.signals_by_eventfd.add(1);
                peer.shared.signal();
                continue;
            };
            counters.signals_by_ring.add(1);
            // Only a refusal is told.
            let entry = opcode::MsgRingData::new(types::Fd(fd), 0, Tag::Doorbell.with(BY_RING), None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Tag::Signal.with(peer.shared.index as u64));
            // SAFETY: a message points to nothing. The descriptor is open: rings are closed only after every core has
            // come to its end, and this one has not.
            unsafe { self.ring.push(&entry) };
        }
    }

    /// As [`ring_peers`](Self::ring_peers), when no enter follows.
    pub(crate) fn ring_peers_now(&self) {
        for peer in self.peers.take() {
            if peer.shared.doorbell().ring() {
                self.shared.counters.signals_by_eventfd.add(1);
                peer.shared.signal();
            }
        }
    }
}
