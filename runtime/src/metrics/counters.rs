//! Cheap counters of a core: written by its thread only, read by anyone.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::counter::Counter;
use super::histogram::{Histogram, HistogramCells};

/// The counters of a core, shared by the core, its ring, and whoever reads them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoreCounters(Arc<Cells>);

impl CoreCounters {
    /// The addresses at which they lie.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = std::ptr::from_ref::<Cells>(&self.0).addr();
        start..start + size_of::<Cells>()
    }
}

impl Deref for CoreCounters {
    type Target = Cells;

    fn deref(&self) -> &Cells {
        &self.0
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+ ; $($(#[doc = $hdoc:literal])+ $histogram:ident,)+) => {
        /// The counters of a core as its own thread writes them. They have pages of their own, which the core
        /// moves to its node, because the thread that starts the runtime makes them.
        #[derive(Debug, Default)]
        #[repr(align(4096))]
        pub(crate) struct Cells {
            $(pub(crate) $name: Counter,)+
            $(pub(crate) $histogram: HistogramCells,)+
        }

        impl Cells {
            pub(crate) fn read(&self, core: usize) -> Counters {
                Counters {
                    core,
                    $($name: self.$name.get(),)+
                    $($histogram: self.$histogram.get(),)+
                }
            }
        }

        /// The counters of one core at one moment. Each is exact; together they are not one snapshot.
        ///
        /// `Display` prints them as `name=value`, in this order, on one line; a value is a number, or a
        /// [`Histogram`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            /// The core's index.
            pub core: usize,
            $($(#[doc = $doc])+ pub $name: u64,)+
            $($(#[doc = $hdoc])+ pub $histogram: Histogram,)+
        }

        impl Counters {
            /// Each number with its name, in the order of the fields, without [`core`](Counters::core) and
            /// the histograms.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Each histogram with its name.
            pub fn histograms(&self) -> impl Iterator<Item = (&'static str, Histogram)> {
                [$((stringify!($histogram), self.$histogram),)+].into_iter()
            }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut space = "";
                $(
                    write!(f, concat!("{}", stringify!($name), "={}"), space, self.$name)?;
                    space = " ";
                )+
                $(write!(f, concat!("{}", stringify!($histogram), "={}"), space, self.$histogram)?;)+
                Ok(())
            }
        }
    };
}

counters! {
    /// Ticks of the core's loop. The figure keeps the name that it had before its unit was called a tick.
    turns,
    /// `io_uring_enter` system calls.
    enters,
    /// Enters that waited for a completion.
    parks,
    /// How often a core polled for work before it slept. Zero unless [`spin`](crate::Builder::spin) is on.
    spins,
    /// How often it found something.
    spins_won,
    /// Enters that woke the submission poller. Zero unless [`sqpoll`](crate::Builder::sqpoll) is on.
    poller_wakes,
    /// SQEs submitted.
    sqes,
    /// CQEs handled.
    cqes,
    /// Ticks that found more completions than the completion queue holds. The kernel kept the rest, at a
    /// cost.
    cq_overflows,
    /// Operations in flight now, and those whose result waits for its owner. Not a sum: it goes up and down.
    operations,
    /// Operations that we know to run on an io-wq worker, a kernel thread, because the kernel never runs them
    /// in line: splice, `statx`, `fsync`, `fallocate`, `ftruncate`, the making, renaming and removing of
    /// names, opens that make or truncate a file, and advice to read or forget. The kernel does not report
    /// which others it sends there (a read that found no page in memory on a file system that cannot wait
    /// asynchronously), so those are not counted.
    iowq_punts,
    /// Polls of tasks.
    polls,
    /// Tasks woken from other threads.
    remote_wakes,
    /// Calls that other cores and threads sent to this core and that it took. The figure keeps its first
    /// name.
    errands,
    /// Wakes of tasks on a hardware thread of the same physical core.
    wakes_same_core,
    /// Wakes of tasks on a core that shares the last level of cache.
    wakes_same_cache,
    /// Wakes of tasks on another core of the node.
    wakes_same_node,
    /// Wakes of tasks on another node's core.
    wakes_remote,
    /// Closures sent to a hardware thread of the same physical core.
    submits_same_core,
    /// Closures sent to a core that shares the last level of cache.
    submits_same_cache,
    /// Closures sent to another core of the node.
    submits_same_node,
    /// Closures sent to another node's core.
    submits_remote,
    /// Connections [handed over](crate::net::Connection::hand_over) to a hardware thread of the same physical
    /// core.
    handed_same_core,
    /// Connections handed over to a core that shares the last level of cache.
    handed_same_cache,
    /// Connections handed over to another core of the node.
    handed_same_node,
    /// Connections handed over to another node's core.
    handed_remote,
    /// Sixteen times the tasks that were ready when a tick began, on average over some eight ticks. It is no
    /// sum.
    load,
    /// Sleeping cores that this one woke by a message between the rings.
    signals_by_ring,
    /// Sleeping cores that this one woke by their eventfd.
    signals_by_eventfd,
    /// Connections accepted.
    accepts,
    /// Accepts put off because no descriptor was left (EMFILE, ENFILE) or no memory.
    accept_backoffs,
    /// Bytes received into leases.
    recv_bytes,
    /// Times that a receive found no buffer (ENOBUFS) and had to wait for one.
    recv_starved,
    /// Times that a receive found none in the kernel's ring though some were free. It is armed again at once,
    /// and the ring holds more from then on.
    recv_ring_empty,
    /// Receives that were switched off because nobody took what they brought.
    recv_held_back,
    /// Chunks that nobody took, copied out of receive buffers that others waited for.
    recv_spilt,
    /// Receive buffers out of the kernel's hands when the last tick ended: chunks that nobody took yet, and
    /// leases. A level.
    recv_buffers_out,
    /// The most receive buffers that were out at once.
    recv_buffers_peak,
    /// Receive buffers that lay in the kernel's ring when it was last entered: a few times what a tick takes,
    /// so that the same buffers, which are in the caches, are used again. The other free ones wait until they
    /// are needed. A level.
    recv_buffers_ready,
    /// [`Block`](crate::buf::Block)s out when the last tick ended. A level.
    blocks_out,
    /// The most blocks that were out at once.
    blocks_peak,
    /// Times that a block was asked for and none could be had.
    blocks_refused,
    /// Bytes by which the pool has grown.
    pool_grown_bytes,
    /// Steps of growth that brought nothing, or less than was asked.
    pool_refusals,
    /// Times that a task had to wait for a block.
    block_waits,
    /// Bytes sent from buffers; also those that relays copy.
    send_bytes,
    /// Zero-copy sends of which the kernel gave a result.
    zc_sends,
    /// Zero-copy sends that the kernel says it copied after all.
    zc_copied,
    /// Sends to a peer for which the kernel copies anyway, which were therefore not made without a copy.
    zc_avoided,
    /// Connections reset to get back blocks that the network held for a peer that did not read.
    zc_resets,
    /// File bytes sent by splice(2) on the core.
    file_bytes_inline,
    /// File bytes that an SQE brought into the pipe, because the page cache did not hold them, and that left
    /// it by splice(2).
    file_bytes_cold,
    /// File bytes sent by splice SQEs alone.
    file_bytes_ring,
    /// File bytes that were copied, because no pipe could be had.
    file_bytes_copied,
    /// Relayed bytes moved by splice(2) on the core.
    relay_bytes_inline,
    /// Relayed bytes moved by splice SQEs.
    relay_bytes_ring,
    /// Relayed bytes that were copied: messages smaller than a receive buffer, and what stood before bulk; or
    /// no pipe could be had, or splicing had stopped before an urgent byte.
    relay_bytes_copied,
    /// Operations that the kernel had not given back when the core ended; their memory was leaked.
    ops_leaked,
    /// Pipes made.
    pipes_made,
    /// Times that no pipe could be had and bytes were copied: the core's share of what a user's pipes may
    /// hold (`fs.pipe-user-pages-soft`), or the descriptors, were used up.
    pipes_refused,
    /// Pipes closed because they still held bytes.
    pipes_spoilt,
    /// Nanoseconds between waits: tasks, the ring, and being kept from the CPU by others. Zero unless
    /// [`measure_time`](crate::Builder::measure_time) is on.
    busy_ns,
    /// Nanoseconds in enters that waited for a completion. Zero unless
    /// [`measure_time`](crate::Builder::measure_time) is on.
    parked_ns,
    ;
    /// SQEs that each enter submitted; with [`sqpoll`](crate::Builder::sqpoll), those that the poller had not
    /// taken before.
    sqes_per_enter,
    /// CQEs that each tick found.
    cqes_per_turn,
    /// Nanoseconds that each poll of a task took. Empty unless
    /// [`measure_polls`](crate::Builder::measure_polls) is on.
    poll_ns,
}
