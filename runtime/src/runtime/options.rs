//! What a runtime can be asked to do beyond the usual. All of it is off by default; each option says what it costs.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::Builder;
use crate::numa::plan::PlannedCore;
use crate::numa::topology::Topology;
use crate::numa::{CpuId, CpuSet};
use crate::ring::{BusyPoll, Poller, RecvOptions};
use crate::{Error, ErrorKind, Result};

/// The options of a runtime as they were asked for; what the kernel made of them is in
/// [`RingFeatures`](crate::RingFeatures). Each is set by the method of [`Builder`] of the same name, which describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Busy and parked time is counted.
    pub measure_time: bool,
    /// The time of each poll is counted.
    pub measure_polls: bool,
    /// Polls that last this long are logged.
    pub report_stalls: Option<Duration>,
    /// How long a core looks about before it sleeps, at most.
    pub spin: Duration,
    /// Kernel threads take the submissions, and sleep after so long without any.
    pub sqpoll: Option<Duration>,
    /// The CPUs of those threads.
    pub sqpoll_cpus: Option<CpuSet>,
    /// How long a wait polls network devices before it sleeps.
    pub busy_poll: Option<Duration>,
    /// Receive buffers are used up incrementally.
    pub incremental_buffers: bool,
    /// One completion may tell of several receive buffers.
    pub bundles: bool,
}

impl Options {
    /// What is asked of the ring of a core whose poller, if there is one, runs on `cpu`.
    pub(super) fn poller(&self, cpu: Option<CpuId>) -> Option<Poller> {
        let idle = self.sqpoll?;
        Some(Poller { cpu: cpu?.0, idle_ms: idle.as_millis().clamp(1, u32::MAX.into()) as u32 })
    }

    pub(super) fn busy_poll(&self) -> Option<BusyPoll> {
        let time = self.busy_poll?;
        Some(BusyPoll { micros: time.as_micros().clamp(1, u32::MAX.into()) as u32 })
    }

    pub(super) fn receive(&self) -> RecvOptions {
        RecvOptions { incremental: self.incremental_buffers, bundles: self.bundles }
    }

    /// A CPU for the poller of each core, in the order of the plan; empty without pollers.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when no CPU is left on a core's node, or those that were named may not be used.
    pub(super) fn poller_cpus(&self, cores: &[PlannedCore], topology: &Topology) -> Result<Vec<CpuId>> {
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

impl Builder {
    /// Counts how long each core was busy and how long it waited ([`Counters::busy_ns`](crate::Counters::busy_ns)). Off by
    /// default: it reads the clock twice for each wait.
    pub fn measure_time(mut self, on: bool) -> Self {
        self.options.measure_time = on;
        self
    }

    /// Counts how long each poll of a task took ([`Counters::poll_ns`](crate::Counters::poll_ns)). Off by default: it reads the
    /// clock twice for each poll.
    pub fn measure_polls(mut self, on: bool) -> Self {
        self.options.measure_polls = on;
        self
    }

    /// Logs, at level `warn`, each poll of a task that lasts for `threshold` or longer, while it lasts, with the place where
    /// the task was spawned ([`Stall`](crate::Stall)). Off by default: it costs the machine a thread that wakes four times in each
    /// `threshold`, and the cores no more than when it is off (5 to 10 instructions a poll, by `scripts/instructions`).
    pub fn report_stalls(mut self, threshold: Duration) -> Self {
        self.options.report_stalls = Some(threshold);
        self
    }

    /// Lets a core that has nothing to do look about for as long as `most` before it sleeps. Off (zero) by default.
    ///
    /// What comes meanwhile is found without a sleep and a wake, and who wakes a task of the core from another thread need
    /// not write to its eventfd. It costs CPU time that other threads on this CPU could use, the other core of a hypervisor's
    /// or SMT pair too. It is adaptive: a look in vain halves the next, down to nothing, and a sleep shorter than `most` makes it
    /// longer again, so an idle core sleeps as always. 10 to 50 us are sensible; more than the machine's wake costs is waste.
    /// [`Counters::spins`](crate::Counters::spins) and [`spins_won`](crate::Counters::spins_won) tell whether it pays;
    /// [`busy_ns`](crate::Counters::busy_ns) counts a look as work.
    pub fn spin(mut self, most: Duration) -> Self {
        self.options.spin = most;
        self
    }

    /// Lets a kernel thread for each core take its submissions (`IORING_SETUP_SQPOLL`), so that a busy core submits without a
    /// system call. The thread polls, and sleeps after `idle` without work (at least 1 ms); waking it is a system call. Off by default.
    ///
    /// It costs a second CPU for each busy core, on the same node: one that no core runs on, or those of
    /// [`sqpoll_cpus`](Self::sqpoll_cpus). The kernel then allows neither `DEFER_TASKRUN` nor `TASKRUN_FLAG`: completions are made
    /// on the poller's CPU, and each costs a cache line that moves between the two. A server is seldom faster by it; a core
    /// with many small submissions can be. The system call of a wait stays.
    ///
    /// Linux 5.13 for an unprivileged process; `io_uring_setup(2)`.
    ///
    /// # Errors
    /// [`Builder::build`] says [`ErrorKind::Input`] when a node has no CPU left for it.
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.options.sqpoll = Some(idle);
        self
    }

    /// The CPUs of the threads of [`sqpoll`](Self::sqpoll), dealt out to the cores in turn. One that a core runs on as well is
    /// allowed, for trying: the two then take turns and both wait. By default CPUs of each core's node that run no core.
    pub fn sqpoll_cpus(mut self, cpus: CpuSet) -> Self {
        self.options.sqpoll_cpus = Some(cpus);
        self
    }

    /// Lets a core that waits poll the queues of the network devices that its sockets receive from, for as long as `time`,
    /// before it sleeps (NAPI busy polling; whole microseconds, at least one). Off by default.
    ///
    /// It saves the interrupt and its latency, and costs CPU time while the core waits: an idle core is busy for `time` at each wait.
    /// Loopback and virtual interfaces without NAPI gain nothing by it. Where the kernel refuses (before Linux 6.9, or without
    /// `CONFIG_NET_RX_BUSY_POLL`) the core starts without it, and the report says so: [`RingFeatures::busy_poll`](crate::RingFeatures::busy_poll).
    /// `io_uring_register_napi(3)`.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.options.busy_poll = Some(time);
        self
    }

    /// Lets what comes for several streams share a receive buffer of 8 KiB: the kernel goes on in a buffer where the last bytes
    /// ended (`IOU_PBUF_RING_INC`), so that small messages take the memory that they fill, and not a buffer each. Off by
    /// default. Where the kernel cannot (before Linux 6.12, and before 6.15 beside [`sqpoll`](Self::sqpoll), where streams might get
    /// each other's bytes) buffers are used as ever, and the report says so:
    /// [`RingFeatures::incremental_buffers`](crate::RingFeatures::incremental_buffers). `io_uring_register_buf_ring(3)`.
    ///
    /// Leases on 819 messages of 10 bytes that are kept take one buffer, and not 819
    /// (`cargo test -p annulus --test parts many_messages`).
    ///
    /// It costs this: a [`Lease`](crate::buf::Lease) that is kept, or a chunk that nobody takes, keeps a whole buffer out of use
    /// once that is full, whoever else's bytes were in it; each lease on a buffer that is not full takes two locked
    /// instructions more; what comes is cut in two where a buffer ends; a connection that received has a small queue on the
    /// heap; and there is no [`UdpSocket`](crate::net::UdpSocket), because a datagram that is longer than the rest of a buffer
    /// would lose its end.
    pub fn incremental_buffers(mut self, on: bool) -> Self {
        self.options.incremental_buffers = on;
        self
    }

    /// Lets one completion tell of all the receive buffers of 8 KiB that a stream's bytes filled (`IORING_RECVSEND_BUNDLE`),
    /// so that bulk receives take fewer completions and fewer walks through the socket. What comes is the same: a
    /// [`Lease`](crate::buf::Lease) for each buffer, in order. Off by default. Where the kernel cannot (before Linux 6.10), or
    /// is of 6.13 to 6.15, which may lose bytes, or older than 6.16 and asked for
    /// [incremental buffers](Self::incremental_buffers) too, receives are as ever, and the report says so:
    /// [`RingFeatures::bundles`](crate::RingFeatures::bundles). `io_uring_prep_recv(3)`.
    ///
    /// 100 MiB over loopback took 208 completions in 204 turns of the core, and 12,808 in 396 without
    /// (`cargo test -p annulus --test bundles a_long_stream -- --nocapture`, Linux 6.18).
    ///
    /// It costs this: a stream takes all the buffers that its bytes fill at once, 64 from Linux 6.17 on and 256 and more before,
    /// until it can be held back when nobody reads it, so a few such streams may take all that a small pool has, and others
    /// wait; the place of each buffer in the ring is noted; a connection that received has a small queue on the heap; and
    /// there is no [`UdpSocket`](crate::net::UdpSocket), because after a look in vain the kernel may take a buffer to be as
    /// short as what it hoped for, and a datagram would lose its end. Messages below 8 KiB gain nothing.
    ///
    /// Sends are not bundled: there the kernel would pick the bytes from a ring of buffers, in its order, so each connection
    /// would need a ring of its own, where [`send_all_vectored`](crate::net::Connection::send_all_vectored) takes many buffers in one
    /// operation already.
    pub fn bundles(mut self, on: bool) -> Self {
        self.options.bundles = on;
        self
    }
}

impl fmt::Display for Options {
    /// What is on, with commas between; `none` otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = [
            self.measure_time.then(|| "measure_time".to_owned()),
            self.measure_polls.then(|| "measure_polls".to_owned()),
            self.report_stalls.map(|threshold| format!("report_stalls {} ms", threshold.as_millis())),
            (!self.spin.is_zero()).then(|| format!("spin {} us", self.spin.as_micros())),
            self.sqpoll.map(|idle| format!("sqpoll {} ms", idle.as_millis())),
            self.busy_poll.map(|time| format!("busy_poll {} us", time.as_micros())),
            self.incremental_buffers.then(|| "incremental_buffers".to_owned()),
            self.bundles.then(|| "bundles".to_owned()),
        ];
        let on: Vec<_> = on.into_iter().flatten().collect();
        if on.is_empty() { f.write_str("none") } else { f.write_str(&on.join(", ")) }
    }
}
