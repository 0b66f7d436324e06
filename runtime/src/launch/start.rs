//! The start of a runtime: all cores come up together, or none goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use super::bring_up::CoreConfig;
use super::builder::Runtime;
use super::core_thread;
use super::locked::Essentials;
use super::report::{CoreReport, Report};
use super::running::{self, CoreThread, Running};
use super::stalls::Sampler;
use crate::blocking::pool::BlockingPool;
use crate::contained::Kept;
use crate::core::growth::GrowthPolicy;
use crate::core::handle::Handle;
use crate::core::peers::Neighbour;
use crate::core::placement::PlacementPolicy;
use crate::core::shared::CoreShared;
use crate::core::state::{Gate, RuntimeShared};
use crate::numa::NodeId;
use crate::numa::plan::PlannedCore;
use crate::numa::pool::NodePool;
use crate::numa::thread::{spawn_pinned, spawn_unplaced};
use crate::{Error, ErrorKind, Result};

impl Runtime {
    /// Starts the runtime as [`run`](Self::run) does, and returns a handle once every core is up. The root
    /// future may have an error type of its own.
    ///
    /// # Errors
    /// When the runtime could not start.
    #[track_caller]
    pub fn start<F, Fut, E>(self, root: F) -> Result<Running<E>>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: From<Error> + Send + 'static,
    {
        let started_at = Location::caller();
        let cores = self.plan.cores();
        let shared = RuntimeShared::new(cores.len()).map_err(|e| Error::io("cannot make an eventfd", e))?;
        let members = self.members(&shared)?;
        self.shards.begin(Handle::new(Arc::clone(&shared), members.as_slice().into()));
        let blocking = BlockingPool::for_nodes(
            &self.settings.name,
            cores,
            &self.topology,
            self.settings.blocking_threads,
        );
        let gate = Gate::new(&shared);
        let Started { threads, reports, mut failure } =
            self.start_cores(root, started_at, &shared, &members, &blocking)?;
        if failure.is_none() && self.settings.placement == PlacementPolicy::Require {
            let report = Report::inspect(&reports, &members);
            failure = report
                .refusal(self.settings.pool(), self.has_several_nodes())
                .map(|why| Error::new(ErrorKind::Platform, why));
        }
        let watch = match failure {
            None => self.watch(&shared, &members),
            Some(e) => Err(e),
        };
        match watch {
            Ok(watch) => {
                gate.open();
                let blocking = blocking.into_values().collect();
                Ok(Running::new(shared, &members, threads, watch, blocking, &reports))
            }
            Err(e) => {
                drop(gate);
                Err(end_of_all(threads, e))
            }
        }
    }

    /// What others may touch of each core, by index.
    fn members(&self, shared: &Arc<RuntimeShared>) -> Result<Vec<Arc<CoreShared>>> {
        let made = self.plan.cores().iter().map(|core| {
            CoreShared::new(core.index, core.cpu, Arc::clone(shared))
                .map(Arc::new)
                .map_err(|e| Error::io("cannot make a core's eventfd", e))
        });
        let members = made.collect::<Result<Vec<_>>>()?;
        shared.set_members(&members);
        Ok(members)
    }

    fn has_several_nodes(&self) -> bool {
        self.topology.memory_nodes().len() > 1
    }

    pub(super) fn growth_policy(&self) -> GrowthPolicy {
        GrowthPolicy {
            limit: self.settings.limit(),
            pool_bytes: self.settings.pool(),
            backing: self.settings.pages,
            placement: self.settings.placement,
            several: self.has_several_nodes(),
        }
    }

    /// Starts the threads of all cores, and waits until each has come up or has said why it could not.
    fn start_cores<F, Fut, E>(
        &self,
        root: F,
        started_at: &'static Location<'static>,
        shared: &Arc<RuntimeShared>,
        members: &[Arc<CoreShared>],
        blocking: &BTreeMap<NodeId, Arc<BlockingPool>>,
    ) -> Result<Started<E>>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: From<Error> + Send + 'static,
    {
        let cores = self.plan.cores();
        let pools = self.pools()?;
        let growth = self.growth_policy();
        // One for each core. Those of cores that never begin are dropped, which tells the others.
        let arrivals: Vec<_> = members.iter().map(|_| shared.awaited()).collect();
        let root = Arc::new(root);
        // It is bounded by the number of cores, because each core sends once.
        let (ready, up) = crossbeam_channel::bounded(cores.len());
        let mut started =
            Started { threads: Vec::with_capacity(cores.len()), reports: Vec::new(), failure: None };
        let essentials = Essentials::new();
        for ((core, member), arrival) in cores.iter().zip(members).zip(arrivals) {
            let share = pools.get(&core.memory).and_then(|pool| pool.take_share(core.cpu));
            let Some(share) = share else {
                let what = format!("no memory was shared out for CPU {}", core.cpu);
                started.failure = Some(Error::new(ErrorKind::Platform, what));
                break;
            };
            let ring = self.settings.ring(self.pollers.get(core.index).copied(), cores.len());
            let config = CoreConfig {
                core: core.clone(),
                shared: Arc::clone(member),
                share,
                growth: growth.clone(),
                register_blocks: self.settings.may_register(ring, cores.len()),
                ring,
                near: Neighbour::of(core, cores, &self.topology),
                blocking: Arc::clone(&blocking[&core.node]),
                options: self.settings.options.clone(),
                started_at,
                timer_slack: self.settings.timer_slack,
                zero_copy_patience: self.settings.zero_copy_patience,
                cores_of_user: self.settings.cores_of_user,
                essentials: essentials.clone(),
                shards: self.shards.clone(),
            };
            let (root, ready) = (Arc::clone(&root), ready.clone());
            let name = format!("{}-{}", self.settings.name, core.cpu);
            match self.spawn(name, core, move || Kept::new(core_thread::run(config, &*root, ready, arrival)))
            {
                Ok(thread) => started.threads.push(thread),
                Err(e) => {
                    started.failure = Some(e);
                    break;
                }
            }
        }
        drop((ready, essentials));
        started.collect(&up);
        Ok(started)
    }

    /// Starts the thread that looks for stalls, if that was asked for.
    fn watch(
        &self,
        shared: &Arc<RuntimeShared>,
        members: &[Arc<CoreShared>],
    ) -> Result<Option<JoinHandle<()>>> {
        let Some(threshold) = self.settings.options.report_stalls else { return Ok(None) };
        let (sampler, shared) = (Sampler::new(members), Arc::clone(shared));
        let thread = std::thread::Builder::new().name(format!("{}-watch", self.settings.name));
        let started = thread.spawn(move || sampler.watch(&shared, threshold));
        started.map(Some).map_err(|e| Error::io("cannot start a thread that watches for stalls", e))
    }

    /// Starts a core's thread as the placement policy demands.
    fn spawn<F, E>(&self, name: String, core: &PlannedCore, f: F) -> Result<CoreThread<E>>
    where
        F: FnOnce() -> Kept<Result<(), E>> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if self.settings.placement == PlacementPolicy::Off {
            return Ok(spawn_unplaced(name, core, f)?);
        }
        Ok(spawn_pinned(name, core, f)?)
    }

    /// One pool for each node that cores take memory from.
    fn pools(&self) -> Result<BTreeMap<NodeId, NodePool>> {
        let mut by_node: BTreeMap<NodeId, Vec<PlannedCore>> = BTreeMap::new();
        for core in self.plan.cores() {
            by_node.entry(core.memory).or_default().push(core.clone());
        }
        let mut pools = BTreeMap::new();
        for (node, cores) in by_node {
            let bytes = self.settings.pool();
            let pool = match self.settings.placement {
                PlacementPolicy::Off => NodePool::unplaced(&cores, bytes),
                _ => NodePool::with_backing(&cores, bytes, self.settings.pages),
            };
            pools.insert(node, pool?);
        }
        Ok(pools)
    }
}

/// Threads of cores, what those that came up report, and the first reason why one did not.
struct Started<E> {
    threads: Vec<CoreThread<E>>,
    reports: Vec<CoreReport>,
    failure: Option<Error>,
}

impl<E> Started<E> {
    /// Waits for one message of each thread.
    fn collect(&mut self, up: &Receiver<Result<CoreReport>>) {
        for _ in 0..self.threads.len() {
            let failure = match up.recv() {
                Ok(Ok(report)) => {
                    self.reports.push(report);
                    continue;
                }
                Ok(Err(e)) => e,
                Err(_) => Error::new(ErrorKind::Panicked, "a core panicked while it started"),
            };
            self.failure.get_or_insert(failure);
        }
        self.reports.sort_by_key(|report| report.core.index);
    }
}

/// Waits for threads that were told to give up, and returns the reason: a panic of one of them, if `why`
/// stands for that.
fn end_of_all<E: From<Error>>(threads: Vec<CoreThread<E>>, mut why: Error) -> Error {
    for thread in threads {
        // Its own error was sent already, or it was told to end. A thread that sent nothing has panicked.
        match running::end_of(thread) {
            Err(panic) if why.kind() == ErrorKind::Panicked => why = panic,
            _ => {}
        }
    }
    why
}
