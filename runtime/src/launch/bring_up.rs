//! Brings a core up, on its own thread.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::locked::Essentials;
use super::report::{CoreReport, HEAP, POOL};
use crate::blocking::pool::BlockingPool;
use crate::buf::blocks::{BLOCK_SIZE, BlockPool};
use crate::buf::ring::BufRing;
use crate::core::fairness::Fairness;
use crate::core::growth::{Growth, GrowthPolicy};
use crate::core::inbox::Inbox;
use crate::core::notes::Notes;
use crate::core::options::Options;
use crate::core::peers::{Neighbour, PeerCores};
use crate::core::pipe_pool::PipePool;
use crate::core::remote_hosts::ZeroCopy;
use crate::core::sharded::ShardMakers;
use crate::core::shards::Shards;
use crate::core::shared::CoreShared;
use crate::core::spin::Spin;
use crate::core::{Budget, Core};
use crate::numa::plan::PlannedCore;
use crate::numa::pool::{Blocks, Share};
use crate::numa::thread::placement_of_current;
use crate::numa::verify;
use crate::op::table::OpTable;
use crate::ring::{Ring, RingOptions};
use crate::task::Tasks;
use crate::time::timers::Timers;
use crate::{Error, ErrorKind, Result};

/// How many states the operation table holds before it has to move them.
const OPERATIONS: usize = 4096;

/// What a core is brought up with.
pub(super) struct CoreConfig {
    pub(super) core: PlannedCore,
    pub(super) shared: Arc<CoreShared>,
    pub(super) share: Share,
    pub(super) growth: GrowthPolicy,
    pub(super) ring: RingOptions,
    /// Whether the blocks may be registered with the ring.
    pub(super) register_blocks: bool,
    pub(super) options: Options,
    /// Where the runtime was started. Root futures are named by this place.
    pub(super) started_at: &'static Location<'static>,
    /// The other cores, nearest first.
    pub(super) near: Vec<Neighbour>,
    pub(super) blocking: Arc<BlockingPool>,
    pub(super) timer_slack: Option<Duration>,
    pub(super) zero_copy_patience: Duration,
    /// How many cores share what the kernel lets this user have: those of this runtime, and those of others.
    pub(super) cores_of_user: usize,
    pub(super) essentials: Essentials,
    /// Makes the application's values of the core before its root future begins.
    pub(super) shards: ShardMakers,
}

/// Blocks SIGPIPE on the calling thread. Splice and sendfile know no `MSG_NOSIGNAL`: a peer that has gone
/// must be an `EPIPE` here, whatever the program does with the signal elsewhere.
pub(super) fn block_sigpipe() -> io::Result<()> {
    // SAFETY: a signal set on our stack, initialised by sigemptyset before it is used; the mask is this
    // thread's own.
    let rc = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
}

/// Makes everything that the core owns, on the core's own thread, so that what is allocated and touched here
/// lies on its node.
pub(super) fn bring_up(config: CoreConfig) -> Result<(Core, CoreReport)> {
    let CoreConfig { core: planned, shared, mut share, options, .. } = config;
    let mut ring = Ring::new(config.ring, Some(planned.cpu.0), shared.counters.clone())?;
    let mut ranges = vec![(POOL, share.addresses())];
    ranges.extend(seen_by_others(&shared, &planned));
    ranges.extend(ring.memory());
    let growing = (config.growth.limit, config.growth.step());
    let bufs = BufRing::new(&mut ring, &mut share, shared.clone(), growing, options.receive())?;
    ranges.push(("buffer ring", bufs.descriptors()));
    let blocks = rest_as_blocks(&mut share)?;
    let block_count = blocks.capacity();
    config.essentials.wait_for_others();
    let blocks = BlockPool::new(blocks, |pieces| config.register_blocks && ring.register_buffers(pieces));
    ranges.extend(of_this_thread());
    let ops = OpTable::new(OPERATIONS);
    ranges.push(("operations", ops.memory()));
    ranges.extend(verify::heap_of_current_thread().map(|heap| (HEAP, heap)));
    let pool_limit = config.growth.limit.max(share.len());
    let growth = Growth::new(config.growth, planned.clone(), share.len());
    let report = CoreReport {
        core: planned,
        tid: rustix::thread::gettid().as_raw_nonzero().get(),
        ring: ring.features().clone(),
        thread: placement_of_current(),
        pool: share.region().placement().clone(),
        recv_buffers: bufs.shape(),
        blocks: (BLOCK_SIZE, block_count),
        pool_limit,
        grown: Vec::new(),
        not_grown: None,
        cachestat: crate::fs::has_cachestat(),
        options: options.clone(),
        workers_named_after: ring.workers_named_after(),
        ranges,
    };
    let peers = PeerCores::new(shared.runtime.members(), config.near);
    if shared.inbox.set(Inbox::open(ring.fd())).is_err() {
        return Err(Error::new(ErrorKind::Platform, "a core was brought up twice; report this"));
    }
    let pipes = PipePool::new(config.cores_of_user.max(shared.runtime.cores()));
    let tasks = Tasks::new(Arc::clone(&shared));
    let core = Core {
        spin: Spin::new(options.spin),
        shared,
        options,
        peers,
        shards: Shards::default(),
        tasks,
        budget: Budget::new(),
        busy_since: Cell::new(Instant::now()),
        notes: Notes::new(),
        timers: Timers::new(config.timer_slack),
        pipes,
        bufs,
        fairness: Fairness::default(),
        blocks,
        growth,
        blocking: config.blocking,
        zero_copy: ZeroCopy::new(config.zero_copy_patience),
        ops,
        ring,
    };
    Ok((core, report))
}

/// What others may touch of the core. It is moved to the core's node if the runtime places anything.
fn seen_by_others(shared: &CoreShared, planned: &PlannedCore) -> [(&'static str, Range<usize>); 2] {
    [shared.addresses(), shared.counters.addresses()].map(|seen| {
        if placement_of_current().is_some() {
            verify::bring_home(seen.clone(), planned.memory);
        }
        ("seen by others", seen)
    })
}

/// Stack and thread-local storage of the calling thread.
fn of_this_thread() -> impl Iterator<Item = (&'static str, Range<usize>)> {
    let stack = verify::stack_of_current_thread().ok().map(|stack| ("stack", stack));
    let tls = verify::tls_of_current_thread().into_iter().map(|tls| ("tls", tls));
    stack.into_iter().chain(tls)
}

/// Makes blocks of what is left of a share: at least one.
fn rest_as_blocks(share: &mut Share) -> Result<Blocks> {
    let left = share.left() / BLOCK_SIZE * BLOCK_SIZE;
    let carved = share.carve(left.max(BLOCK_SIZE), 4096).ok_or_else(|| {
        Error::new(
            ErrorKind::Platform,
            "a core's share of its node's memory is too small; ask for less or free some",
        )
    })?;
    Ok(Blocks::new(carved, BLOCK_SIZE))
}
