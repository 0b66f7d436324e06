//! Options of a runtime. All of them are off by default, and each says what it costs.

use std::time::Duration;

use super::Builder;
use crate::numa::CpuSet;

impl Builder {
    /// Counts how long each core was busy and how long it waited
    /// ([`Counters::busy_ns`](crate::Counters::busy_ns)). Off by default: it reads the clock twice for each
    /// wait.
    pub fn measure_time(mut self, on: bool) -> Self {
        self.options.measure_time = on;
        self
    }

    /// Counts how long each poll of a task took ([`Counters::poll_ns`](crate::Counters::poll_ns)). Off by
    /// default: it reads the clock twice for each poll.
    pub fn measure_polls(mut self, on: bool) -> Self {
        self.options.measure_polls = on;
        self
    }

    /// Notes what tasks wait for, so that [`waits::watched`](crate::waits::watched) says where the time of a
    /// future goes. Off by default: then it costs nothing, and when it is on two readings of the clock for
    /// each tick of the loop, and some stores for each completion.
    pub fn measure_waits(mut self, on: bool) -> Self {
        self.options.measure_waits = on;
        self
    }

    /// Logs each poll of a task that lasts for `threshold` or longer, at level `warn`, while it lasts, with
    /// the place where the task was spawned ([`Stall`](crate::Stall)). Off by default: it costs the machine a
    /// thread that wakes four times in each `threshold`, and it costs the cores no more than when it is off
    /// (5 to 10 instructions a poll, by `scripts/instructions`).
    pub fn report_stalls(mut self, threshold: Duration) -> Self {
        self.options.report_stalls = Some(threshold);
        self
    }

    /// Seals the ring of each core: it takes the operations of this library and nothing else, for as long as
    /// it lives (`IORING_REGISTER_RESTRICTIONS`). A seccomp filter sees no operation of a ring, so a program
    /// with such a filter seals its rings too. Off by default, because [operations of one's
    /// own](crate::operation) are refused by a sealed ring, with `EACCES`.
    ///
    /// A kernel that refuses leaves the ring open, and
    /// [`RingFeatures::sealed`](crate::RingFeatures::sealed) says so. Linux 5.10. `io_uring_register(2)`.
    pub fn seal_rings(mut self, on: bool) -> Self {
        self.options.seal_rings = on;
        self
    }

    /// Lets a core that has nothing to do poll for work for as long as `most` before it sleeps. Off (zero) by
    /// default.
    ///
    /// Work that comes meanwhile is found without a sleep and a wake, and a thread that wakes a task of the
    /// core need not write to its eventfd. Spinning costs CPU time that other threads on this CPU could use,
    /// and on a hypervisor or with SMT the sibling core too. It is adaptive: a spin that finds nothing halves
    /// the next, down to nothing, and a sleep shorter than `most` makes it longer again, so an idle core
    /// sleeps as always. 10 to 50 us are sensible; more than the machine's wake costs is waste.
    /// [`Counters::spins`](crate::Counters::spins) and [`spins_won`](crate::Counters::spins_won) tell whether
    /// it pays. [`busy_ns`](crate::Counters::busy_ns) counts a spin as work.
    pub fn spin(mut self, most: Duration) -> Self {
        self.options.spin = most;
        self
    }

    /// Lets a kernel thread for each core take its submissions (`IORING_SETUP_SQPOLL`), so that a busy core
    /// submits without a system call. The thread polls, and sleeps after `idle` without work (at least 1 ms);
    /// waking it is a system call. Off by default.
    ///
    /// It costs a second CPU for each busy core. That is one on the same node that no core runs on, or one of
    /// [`sqpoll_cpus`](Self::sqpoll_cpus). The kernel then allows neither `DEFER_TASKRUN` nor `TASKRUN_FLAG`:
    /// completions are made on the poller's CPU, and each costs a cache line that moves between the two. A
    /// server is seldom faster with it; a core with many small submissions can be. A wait is still a system
    /// call.
    ///
    /// An unprivileged process needs Linux 5.13. `io_uring_setup(2)`.
    ///
    /// # Errors
    /// [`Builder::build`] returns [`ErrorKind::Input`](crate::ErrorKind::Input) when a node has no CPU
    /// left for it.
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.options.sqpoll = Some(idle);
        self
    }

    /// The CPUs of the threads of [`sqpoll`](Self::sqpoll), given to the cores in turn. A CPU that a core
    /// runs on is allowed, to try it out: the two then share it, and each waits for the other. The default is
    /// CPUs of each core's node that run no core.
    pub fn sqpoll_cpus(mut self, cpus: CpuSet) -> Self {
        self.options.sqpoll_cpus = Some(cpus);
        self
    }

    /// Lets a core that waits poll the queues of the network devices that its sockets receive from, for as
    /// long as `time`, before it sleeps (NAPI busy polling; whole microseconds, at least one). Off by
    /// default.
    ///
    /// It saves the interrupt and its latency, and costs CPU time while the core waits: an idle core is busy
    /// for `time` at each wait. Loopback and virtual interfaces without NAPI gain nothing by it. Where the
    /// kernel refuses (before Linux 6.9, or without `CONFIG_NET_RX_BUSY_POLL`) the core starts without it,
    /// and the report says so: [`RingFeatures::busy_poll`](crate::RingFeatures::busy_poll).
    /// `io_uring_register_napi(3)`.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.options.busy_poll = Some(time);
        self
    }

    /// Lets a core that sleeps gather completions: it wakes when `completions` of them have come, or when
    /// `time` (whole microseconds, at least one) is over and at least one has. Off by default; `completions`
    /// below two leave it off.
    ///
    /// It is for cores that are woken again and again for little. Each wake costs a switch of context and a
    /// system call, and a core that finds more at once has fewer of them. The price is latency: what has
    /// completed waits for up to `time`, and so do wakes from other threads and the end of the runtime, which
    /// reach a sleeping core as a completion. Timers fire when they are due. A core that has something to do
    /// waits for nothing. A message that is answered brings two completions, its own and that of its answer.
    /// A core with fewer operations in flight waits for no more completions than it has operations.
    ///
    /// Where the kernel cannot (before Linux 6.12) a core wakes at each completion as always, and the report
    /// says so: [`RingFeatures::min_wait`](crate::RingFeatures::min_wait).
    /// [`Counters::parks`](crate::Counters::parks) tells how often a core slept.
    /// `io_uring_submit_and_wait_min_timeout(3)`.
    pub fn min_wait(mut self, time: Duration, completions: u32) -> Self {
        self.options.min_wait = Some((time, completions));
        self
    }

    /// Lets the received bytes of several streams share a buffer of 8 KiB: the kernel goes on in a buffer
    /// where the last bytes ended (`IOU_PBUF_RING_INC`), so that small messages take the memory that they
    /// fill, and not a buffer each. Off by default. Where the kernel cannot (before Linux 6.12, and before
    /// 6.15 beside [`sqpoll`](Self::sqpoll), where streams might get each other's bytes) each receive takes a
    /// buffer as usual, and the report says so:
    /// [`RingFeatures::incremental_buffers`](crate::RingFeatures::incremental_buffers).
    /// `io_uring_register_buf_ring(3)`.
    ///
    /// Leases on 819 messages of 10 bytes that are kept take one buffer, and not 819 (`cargo test -p annulus
    /// --test fragments many_messages`).
    ///
    /// The costs are these. A [`Lease`](crate::buf::Lease) that is kept, or a chunk that nobody takes, keeps
    /// a whole buffer out of use once the buffer is full, even if other streams' bytes were in it too. Each
    /// lease on a buffer that is not full takes two more locked instructions. Received bytes are cut in two
    /// where a buffer ends. A connection that received has a small queue on the heap. There is no
    /// [`UdpSocket`](crate::net::UdpSocket), because a datagram that is longer than the rest of a buffer
    /// would lose its end.
    pub fn incremental_buffers(mut self, on: bool) -> Self {
        self.options.incremental_buffers = on;
        self
    }

    /// Lets one completion report all the receive buffers of 8 KiB that a stream's bytes filled
    /// (`IORING_RECVSEND_BUNDLE`), so that bulk receives take fewer completions and fewer calls into the
    /// socket. The result is the same: a [`Lease`](crate::buf::Lease) for each buffer, in order. Off by
    /// default. Receives are as usual, and the report says so, where the kernel cannot (before Linux 6.10),
    /// may lose bytes (6.13 to 6.15), or is older than 6.16 and asked for [incremental
    /// buffers](Self::incremental_buffers) too: [`RingFeatures::bundles`](crate::RingFeatures::bundles).
    /// `io_uring_prep_recv(3)`.
    ///
    /// 100 MiB over loopback took 208 completions in 204 ticks of the core, and 12,808 in 396 without (`cargo
    /// test -p annulus --test bundles a_long_stream -- --nocapture`, Linux 6.18).
    ///
    /// The costs are these. A stream takes all the buffers that its bytes fill at once, 64 from Linux 6.17 on
    /// and 256 and more before, until it can be held back when nobody reads it. So a few such streams may
    /// take all that a small pool has, and others wait. The position of each buffer in the ring is recorded.
    /// A connection that received has a small queue on the heap. There is no
    /// [`UdpSocket`](crate::net::UdpSocket), because after a receive that found nothing the kernel may take a
    /// buffer to be as short as the bytes it expected, and a datagram would lose its end. Messages below 8
    /// KiB gain nothing.
    ///
    /// Sends are not bundled. The kernel would take the bytes from a ring of buffers, in the ring's order, so
    /// each connection would need a ring of its own.
    /// [`send_all_vectored`](crate::net::Connection::send_all_vectored) takes many buffers in one operation
    /// already.
    pub fn bundles(mut self, on: bool) -> Self {
        self.options.bundles = on;
        self
    }
}
