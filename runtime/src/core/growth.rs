//! How a core's pool grows: step by step, when receives or tasks wait for memory, up to a limit, on the node.
//!
//! A step is a region of its own, made as every region is ([`Region::new`]: prefer, populate, verify, move or
//! give back, bind, verify). So it takes no more than the node has free, and cannot end in an OOM kill. It
//! takes a millisecond or two for 4 MiB, most of it for zeroing, so the core does not do it. The core starts
//! a thread for one step, which ends with it. The thread is pinned to the core's own CPU, for three reasons.
//! Pages that it touches first are on the node even where mbind(2) is refused. The core that needs memory
//! pays for it, and no other. A core that has nothing else to do sleeps meanwhile. A busy core shares its CPU
//! with the thread for that time, as the kernel's scheduler decides.
//!
//! Nothing is given back: a core that needed the memory once is expected to need it again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Core;
use super::placement::PlacementPolicy;
use super::shared::CoreShared;
use crate::buf::Grown;
use crate::buf::blocks::BLOCK_SIZE;
use crate::buf::ring::BUFFER_SIZE;
use crate::clock;
use crate::contained::{bury, tell_panic};
use crate::numa::plan::PlannedCore;
use crate::numa::pool::Carved;
use crate::numa::region::{Backing, Region, Rung};
use crate::numa::thread::{spawn_pinned_briefly, spawn_unplaced};
use crate::{Error, ErrorKind, Result};

/// How long a core waits after a step that brought less than was asked for.
const REST: Duration = Duration::from_secs(1);
/// Bounds of a step, in bytes: from a few buffers of the smallest pool, to what takes some milliseconds.
const STEP: Range<usize> = 64 << 10..16 << 20;

/// What more memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Receiving,
    Blocks,
}

impl For {
    /// Bytes of one of them.
    fn unit(self) -> usize {
        match self {
            Self::Receiving => BUFFER_SIZE,
            Self::Blocks => BLOCK_SIZE,
        }
    }
}

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receiving => "receive buffers",
            Self::Blocks => "blocks",
        })
    }
}

/// What the report says of a core's growth.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) steps: Vec<Grown>,
    /// Why the last step brought nothing, or less than was asked for.
    pub(crate) short: Option<String>,
}

/// How large a pool may become, and in which steps.
#[derive(Debug, Clone)]
pub(crate) struct GrowthPolicy {
    /// The most bytes that the core's pool has, grown or not.
    pub(crate) limit: usize,
    /// The bytes that it was to begin with.
    pub(crate) pool_bytes: usize,
    pub(crate) backing: Backing,
    pub(crate) placement: PlacementPolicy,
    /// There are several nodes: under `require` pages must be bound to their node, and not only be on it.
    pub(crate) several: bool,
}

impl GrowthPolicy {
    /// The approximate size of a step in bytes: a power of two, and a multiple of what regions are rounded up
    /// to.
    pub(crate) fn step(&self) -> usize {
        let step = (self.pool_bytes / 4).clamp(STEP.start, STEP.end);
        (1 << step.ilog2()).max(self.backing.multiple())
    }
}

/// The growth of one core's pool. It is used on the core's thread only.
pub(crate) struct Growth {
    policy: GrowthPolicy,
    core: PlannedCore,
    /// The current size of the pool in bytes.
    held: Cell<usize>,
    pending: RefCell<Option<PendingGrowth>>,
    /// Whether there is one: asked several times a tick.
    is_pending: Cell<bool>,
    /// The thread of the last step. It has sent its region.
    last: RefCell<Option<JoinHandle<()>>>,
    rest_until: Cell<Option<Instant>>,
    /// Somebody waits for memory, and for the end of the pause ([`REST`]).
    waits_for_rest: Cell<bool>,
    /// What the last step was for. Where both kinds are short, they alternate.
    last_for: Cell<For>,
}

/// A step that has begun.
struct PendingGrowth {
    what: For,
    asked: usize,
    made: Receiver<Result<Region>>,
    thread: JoinHandle<()>,
}

impl Growth {
    pub(crate) fn new(policy: GrowthPolicy, core: PlannedCore, held: usize) -> Self {
        Self {
            policy,
            core,
            held: Cell::new(held),
            pending: RefCell::default(),
            is_pending: Cell::new(false),
            last: RefCell::default(),
            rest_until: Cell::new(None),
            waits_for_rest: Cell::new(false),
            last_for: Cell::new(For::Blocks),
        }
    }

    /// Whether a step has ended and its result has not been taken.
    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        self.is_pending() && self.pending.borrow().as_ref().is_some_and(|pending| !pending.made.is_empty())
    }

    /// Adds the result of an ended step to the pool.
    #[inline(always)]
    pub(crate) fn take(&self, core: &Core) {
        if self.is_pending() {
            self.take_made(core);
        }
    }

    #[inline(always)]
    fn is_pending(&self) -> bool {
        self.is_pending.get()
    }

    /// Out of line, as [`ask_for`](Self::ask_for) is: it would make every tick heavier.
    #[cold]
    #[inline(never)]
    fn take_made(&self, core: &Core) {
        let made = self.pending.borrow().as_ref().and_then(|pending| pending.made.try_recv().ok());
        // The step is still running: its thread sends a result in any case.
        let Some(made) = made else { return };
        let Some(PendingGrowth { what, asked, thread, .. }) = self.pending.take() else { return };
        self.is_pending.set(false);
        *self.last.borrow_mut() = Some(thread);
        let counters = &core.shared.counters;
        let short = match made.and_then(|region| self.keep(core, what, region)) {
            Ok(len) if len >= asked => None,
            Ok(len) => Some(format!("{len} of {asked} bytes for {what}")),
            Err(e) => Some(format!("nothing for {what}: {e}")),
        };
        if let Some(short) = short {
            self.rest_until.set(Some(clock::now() + REST));
            core.shared.grown().short = Some(short.clone());
            // Counted last: a thread that sees the count finds the reason.
            counters.pool_refusals.add(1);
            tracing::warn!("core {}: a pool could not grow as asked: {short}", core.shared.index);
        }
    }

    /// Adds a region to what it was made for, and returns its length.
    fn keep(&self, core: &Core, what: For, region: Region) -> Result<usize> {
        let (len, start, placement) = (region.len(), region.as_ptr().addr(), region.placement().clone());
        if len < what.unit() {
            // The region is dropped here, which gives back memory that nothing can use.
            return Err(Error::new(ErrorKind::Platform, format!("{len} bytes are too few for one")));
        }
        // The pool has the region now, however the rest goes, so the limit counts it.
        self.held.set(self.held.get() + len);
        let count = match what {
            For::Receiving => core.bufs.extend(Carved::whole(region)),
            For::Blocks => core.blocks.extend(Carved::whole(region)),
        };
        if count == 0 {
            return Err(Error::new(ErrorKind::Platform, format!("{len} bytes make none")));
        }
        core.shared.counters.pool_grown_bytes.add(len as u64);
        let name = if what == For::Receiving { "receive buffers" } else { "blocks" };
        let grown = Grown { what: name, count, placement, addresses: start..start + len };
        let told = grown.to_string();
        core.shared.grown().steps.push(grown);
        // Tasks that are woken, and subscribers that are told, find the step in the report.
        core.blocks.wake_next();
        tracing::debug!("core {}: {told}", core.shared.index);
        Ok(len)
    }

    /// When a sleeping core must wake to ask again: possibly nothing else wakes it before somebody gets
    /// memory.
    pub(crate) fn asks_again_at(&self) -> Option<Instant> {
        self.rest_until.get().filter(|_| self.waits_for_rest.get())
    }

    /// Starts a step if something is short of memory and the limit allows more.
    #[inline(always)]
    pub(crate) fn ask(&self, core: &Core) {
        self.waits_for_rest.set(false);
        let (receiving, blocks) = (core.fairness.is_starving(&core.bufs), core.blocks.is_short());
        if (receiving || blocks) && !self.is_pending() {
            self.ask_for(core, receiving, blocks);
        }
    }

    #[cold]
    #[inline(never)]
    fn ask_for(&self, core: &Core, receiving: bool, blocks: bool) {
        let order = match self.last_for.get() {
            For::Receiving => [(For::Blocks, blocks), (For::Receiving, receiving)],
            For::Blocks => [(For::Receiving, receiving), (For::Blocks, blocks)],
        };
        // Where the rest up to the limit is too small for one kind, it may be enough for the other.
        let step =
            |(what, short)| if short { self.step(core, what).map(|bytes| (what, bytes)) } else { None };
        let Some((what, bytes)) = order.into_iter().find_map(step) else { return };
        let is_waited_for = receiving || core.blocks.is_waited_for();
        if self.rest_until.get().is_some_and(|until| clock::now() < until) {
            self.waits_for_rest.set(is_waited_for);
            return;
        }
        self.last_for.set(what);
        let policy = self.policy.clone();
        let node = self.core.memory;
        match self.start(&core.shared, what, bytes, move || policy.make(node, bytes)) {
            Ok(pending) => self.begun(pending),
            Err(e) => {
                self.rest_until.set(Some(clock::now() + REST));
                self.waits_for_rest.set(is_waited_for);
                core.shared.grown().short = Some(e.to_string());
                core.shared.counters.pool_refusals.add(1);
                tracing::warn!("core {}: a pool cannot grow: {e}", core.shared.index);
            }
        }
    }

    /// A step has begun.
    fn begun(&self, pending: PendingGrowth) {
        *self.pending.borrow_mut() = Some(pending);
        self.is_pending.set(true);
    }

    /// The size of the next step in bytes; `None` where the limit allows none.
    fn step(&self, core: &Core, what: For) -> Option<usize> {
        let multiple = self.policy.backing.multiple();
        let left = self.policy.limit.saturating_sub(self.held.get()) / multiple * multiple;
        let unit = what.unit();
        let most = match what {
            For::Receiving => core.bufs.spare_capacity(),
            For::Blocks => (self.policy.step() / unit).max(1),
        };
        let bytes = (most.checked_mul(unit)?.next_multiple_of(multiple)).min(left);
        (bytes >= unit && most > 0).then_some(if multiple > unit { bytes } else { bytes / unit * unit })
    }

    fn start(
        &self,
        shared: &Arc<CoreShared>,
        what: For,
        asked: usize,
        make: impl FnOnce() -> Result<Region> + Send + 'static,
    ) -> Result<PendingGrowth> {
        // The last thread has sent its region and is about to exit.
        self.end_last();
        let (tx, made) = bounded(1);
        let delivery = Delivery { tx: Some(tx), core: Arc::clone(shared) };
        let work = move || delivery.deliver(make());
        let name = format!("annulus-grow{}", self.core.cpu);
        let thread = match self.policy.placement {
            PlacementPolicy::Off => spawn_unplaced(name, &self.core, work)?,
            _ => spawn_pinned_briefly(name, &self.core, work)?,
        };
        Ok(PendingGrowth { what, asked, made, thread })
    }

    fn end_last(&self) {
        let last = self.last.take();
        if let Some(Err(payload)) = last.map(JoinHandle::join) {
            tell_panic(format_args!("a thread that grew a pool"), &payload);
            bury(payload);
        }
    }

    /// The core ends, and with it a step that was begun for it.
    pub(crate) fn end(&self) {
        self.end_last();
        self.is_pending.set(false);
        if let Some(pending) = self.pending.take() {
            *self.last.borrow_mut() = Some(pending.thread);
        }
        self.end_last();
    }
}

/// Sends the result of a step to its core and notifies it. A panic of the thread, or of a subscriber on it,
/// is a result too.
struct Delivery {
    /// `None` after the result was sent.
    tx: Option<Sender<Result<Region>>>,
    core: Arc<CoreShared>,
}

impl Delivery {
    fn deliver(mut self, made: Result<Region>) {
        // If the core has ended meanwhile, the region is freed here.
        if let Some(tx) = self.tx.take() {
            drop(tx.send(made));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(tx) = self.tx.take() {
            let why = "the thread that was to make the memory panicked";
            drop(tx.send(Err(Error::new(ErrorKind::Panicked, why))));
        }
        self.core.notify();
    }
}

impl GrowthPolicy {
    /// Runs on the thread that is pinned for it: makes the memory, or says why not.
    fn make(&self, node: crate::numa::NodeId, bytes: usize) -> Result<Region> {
        if self.placement == PlacementPolicy::Off {
            return Ok(Region::unplaced(node, bytes)?);
        }
        let region = Region::with_backing(node, bytes, self.backing)?;
        let placement = region.placement();
        let strays = placement.pages.off(node) > 0 || placement.pages.unknown > 0;
        let loose = self.several && placement.rung != Rung::Bound;
        if self.placement == PlacementPolicy::Require && (strays || loose) {
            let what = format!("not all of it would be where it must be, so it was given back: {placement}");
            return Err(Error::new(ErrorKind::Platform, what));
        }
        Ok(region)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

impl CoreShared {
    /// What the report says of this core's growth.
    pub(crate) fn grown(&self) -> MutexGuard<'_, Record> {
        // The list is consistent at every moment.
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the core's shared part holds it. It is locked for a report, and once in a step.
pub(crate) type Recorded = Mutex<Record>;
