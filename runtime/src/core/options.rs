//! What a runtime was asked to do beyond the defaults, as plain data.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::numa::plan::PlannedCore;
use crate::numa::topology::Topology;
use crate::numa::{CpuId, CpuSet};
use crate::ring::{BusyPoll, MinWait, Poller, RecvOptions};
use crate::{Error, ErrorKind, Result};

/// The options of a runtime as they were asked for. [`RingFeatures`](crate::RingFeatures) has what the kernel
/// granted. Each option is described at the method of [`Builder`](crate::Builder) that has its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Busy and parked time is measured.
    pub measure_time: bool,
    /// The time of each poll is measured.
    pub measure_polls: bool,
    /// What tasks wait for is noted.
    pub measure_waits: bool,
    /// Polls that last this long are logged.
    pub report_stalls: Option<Duration>,
    /// The longest time that a core spins before it sleeps.
    pub spin: Duration,
    /// Kernel threads take the submissions, and sleep after this long without any.
    pub sqpoll: Option<Duration>,
    /// The CPUs of those threads.
    pub sqpoll_cpus: Option<CpuSet>,
    /// How long a wait polls network devices before it sleeps.
    pub busy_poll: Option<Duration>,
    /// How long a core that sleeps gathers completions, and how many.
    pub min_wait: Option<(Duration, u32)>,
    /// Receive buffers are used up incrementally.
    pub incremental_buffers: bool,
    /// One completion may tell of several receive buffers.
    pub bundles: bool,
    /// Rings take the operations of this library and nothing else.
    pub seal_rings: bool,
}

impl Options {
    /// What is asked of a core's ring. `cpu` is the CPU of its poller, if it has one.
    pub(crate) fn poller(&self, cpu: Option<CpuId>) -> Option<Poller> {
        let idle = self.sqpoll?;
        Some(Poller { cpu: cpu?.0, idle_ms: idle.as_millis().clamp(1, u32::MAX.into()) as u32 })
    }

    pub(crate) fn busy_poll(&self) -> Option<BusyPoll> {
        let time = self.busy_poll?;
        Some(BusyPoll { micros: time.as_micros().clamp(1, u32::MAX.into()) as u32 })
    }

    pub(crate) fn min_wait(&self) -> Option<MinWait> {
        let (time, completions) = self.min_wait.filter(|(_, completions)| *completions > 1)?;
        Some(MinWait { micros: time.as_micros().clamp(1, u32::MAX.into()) as u32, completions })
    }

    pub(crate) fn receive(&self) -> RecvOptions {
        RecvOptions { incremental: self.incremental_buffers, bundles: self.bundles }
    }

    /// A CPU for the poller of each core, in the order of the plan; empty without pollers.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when no CPU is left on a core's node, or when the named ones may not be used.
    pub(crate) fn poller_cpus(&self, cores: &[PlannedCore], topology: &Topology) -> Result<Vec<CpuId>> {
        if self.sqpoll.is_none() {
            return Ok(Vec::new());
        }
        if let Some(named) = &self.sqpoll_cpus {
            if named.is_empty() {
                return Err(Error::new(
                    ErrorKind::Input,
                    "no CPU was named for the pollers; name one for each core",
                ));
            }
            if let Some(foreign) = named.iter().find(|cpu| topology.cpu(*cpu).is_none()) {
                let what =
                    format!("CPU {foreign} may not be used by this process, so no poller can run there");
                return Err(Error::new(ErrorKind::Input, what));
            }
            let mut cpus = named.iter().cycle();
            return Ok(cores.iter().filter_map(|_| cpus.next()).collect());
        }
        let mut taken: BTreeSet<CpuId> = cores.iter().map(|core| core.cpu).collect();
        let free_on_node = |core: &PlannedCore| {
            let mut cpus = topology.cpus().iter().filter(|cpu| cpu.node == core.node);
            let free = cpus.find(|cpu| !taken.contains(&cpu.id)).map(|cpu| cpu.id);
            taken.extend(free);
            free.ok_or_else(|| {
                let what = format!(
                    "no CPU of node {} is left for the poller of CPU {}; run cores on half of the CPUs, or name CPUs for the \
                     pollers",
                    core.node, core.cpu
                );
                Error::new(ErrorKind::Input, what)
            })
        };
        cores.iter().map(free_on_node).collect()
    }
}

impl fmt::Display for Options {
    /// The options that are on, separated by commas; `none` if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = [
            self.measure_time.then(|| "measure_time".to_owned()),
            self.measure_polls.then(|| "measure_polls".to_owned()),
            self.measure_waits.then(|| "measure_waits".to_owned()),
            self.report_stalls.map(|threshold| format!("report_stalls {} ms", threshold.as_millis())),
            (!self.spin.is_zero()).then(|| format!("spin {} us", self.spin.as_micros())),
            self.sqpoll.map(|idle| format!("sqpoll {} ms", idle.as_millis())),
            self.busy_poll.map(|time| format!("busy_poll {} us", time.as_micros())),
            self.min_wait.map(|(time, completions)| {
                format!("min_wait {} us for {completions} completions", time.as_micros())
            }),
            self.incremental_buffers.then(|| "incremental_buffers".to_owned()),
            self.bundles.then(|| "bundles".to_owned()),
            self.seal_rings.then(|| "seal_rings".to_owned()),
        ];
        let on: Vec<_> = on.into_iter().flatten().collect();
        if on.is_empty() { f.write_str("none") } else { f.write_str(&on.join(", ")) }
    }
}
