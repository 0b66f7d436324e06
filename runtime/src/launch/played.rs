//! A core on the calling thread, for the library's own plays (`crate::played`): brought up, run and ended as
//! every core is, but for its thread.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::bring_up::CoreConfig;
use super::builder::Runtime;
use super::core_thread;
use super::locked::Essentials;
use crate::blocking::pool::BlockingPool;
use crate::core::placement::PlacementPolicy;
use crate::core::shared::CoreShared;
use crate::core::state::{Gate, RuntimeShared};
use crate::numa::pool::NodePool;
use crate::{Builder, Error, Result};

thread_local! {
    /// The plan for the cores of this thread: the machine is inspected once.
    static PLANNED: Runtime = planned().expect("the machine can be inspected");
}

fn planned() -> Result<Runtime> {
    let first = crate::numa::thread::affinity_of_current()?.first().expect("a CPU");
    let settings: Builder = Runtime::builder().placement(PlacementPolicy::Off).ring_entries(64);
    settings.cores(first.to_string().parse()?).pool_bytes(1 << 20).pool_limit(1 << 20).build()
}

/// What cores are made of that are played.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// Bytes of the pool, which does not grow.
    pub(crate) pool_bytes: usize,
    pub(crate) incremental_buffers: bool,
    pub(crate) bundles: bool,
}

/// Runs a core, and returns how many operations were leaked at its end.
///
/// # Errors
/// The core's.
pub(crate) fn run_here<F, Fut>(shape: Shape, root: F) -> Result<u64>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>> + 'static,
{
    let (config, arrival) = PLANNED.with(|runtime| -> Result<_> {
        let planned = runtime.plan.cores();
        let core = planned[0].clone();
        let shared = RuntimeShared::new(1).map_err(|e| Error::io("cannot make an eventfd", e))?;
        let member = CoreShared::new(0, core.cpu, Arc::clone(&shared));
        let member = Arc::new(member.map_err(|e| Error::io("cannot make a core's eventfd", e))?);
        shared.set_members(std::slice::from_ref(&member));
        let pool = NodePool::unplaced(planned, shape.pool_bytes)?;
        let share = pool.take_share(core.cpu).expect("the pool is its own");
        let arrival = shared.awaited();
        Gate::new(&shared).open();
        let blocking = BlockingPool::for_nodes("played", planned, &runtime.topology, 1);
        let mut growth = runtime.growth_policy();
        (growth.limit, growth.pool_bytes) = (shape.pool_bytes, shape.pool_bytes);
        let mut options = runtime.settings.options.clone();
        options.incremental_buffers = shape.incremental_buffers;
        options.bundles = shape.bundles;
        let config = CoreConfig {
            shared: member,
            share,
            growth,
            register_blocks: false,
            ring: runtime.settings.ring(None, 1),
            near: Vec::new(),
            blocking: Arc::clone(&blocking[&core.node]),
            options,
            started_at: Location::caller(),
            timer_slack: None,
            zero_copy_patience: runtime.settings.zero_copy_patience,
            essentials: Essentials::new(),
            shards: runtime.shards.clone(),
            cores_of_user: 1,
            core,
        };
        Ok((config, arrival))
    })?;
    let member = Arc::clone(&config.shared);
    let (ready, _up) = crossbeam_channel::bounded(1);
    core_thread::run::<_, _, Error>(config, &root, ready, arrival)?;
    Ok(member.counters.ops_leaked.get())
}
