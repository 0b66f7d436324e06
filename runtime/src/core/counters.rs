//! Cheap counters of a core: written by its thread only, read by anyone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the core's own thread may call this.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of a core as its own thread writes them.
        #[derive(Debug, Default)]
        pub(crate) struct CoreCounters {
            $(pub(crate) $name: Counter,)+
        }

        impl CoreCounters {
            pub(crate) fn read(&self, core: usize) -> Counters {
                Counters { core, $($name: self.$name.get(),)+ }
            }
        }

        /// The counters of one core at one moment. Each is exact; together they are not one snapshot.
        ///
        /// `Display` prints them as `name=value`, in this order, on one line.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            /// The core's index.
            pub core: usize,
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut space = "";
                $(
                    write!(f, concat!("{}", stringify!($name), "={}"), space, self.$name)?;
                    space = " ";
                )+
                let _ = space;
                Ok(())
            }
        }
    };
}

counters! {
    /// Turns of the core's loop.
    turns,
    /// `io_uring_enter` system calls.
    enters,
    /// Enters that waited for a completion.
    parks,
    /// SQEs submitted.
    sqes,
    /// CQEs handled.
    cqes,
    /// Turns that found more completions than the completion queue holds: the kernel kept the rest, at a cost.
    cq_overflows,
    /// Operations in flight now, and those whose result waits for its owner. Not a sum: it goes up and down.
    operations,
    /// Polls of tasks.
    polls,
    /// Tasks woken from other threads.
    remote_wakes,
    /// Closures that other cores and threads sent here and that were taken.
    errands,
    /// Closures sent to other cores.
    submits,
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
    /// Receives that were switched off because nobody took what came.
    recv_held_back,
    /// Bytes by which the pool has grown.
    pool_grown_bytes,
    /// Steps of growth that brought nothing, or less than was asked.
    pool_refusals,
    /// Times that a task had to wait for a block.
    block_waits,
    /// Bytes sent from buffers.
    send_bytes,
    /// Zero-copy sends of which the kernel gave a result.
    zc_sends,
    /// Zero-copy sends that the kernel says it copied after all.
    zc_copied,
    /// Sends that would have been without a copy, to a peer for which the kernel copies after all.
    zc_avoided,
    /// Connections reset to get back blocks that the network held for a peer that did not read.
    zc_resets,
    /// File bytes sent by splice(2) on the core.
    file_bytes_inline,
    /// File bytes that came into the pipe by an SQE, because the page cache did not hold them, and left it by splice(2).
    file_bytes_cold,
    /// File bytes sent by splice SQEs alone.
    file_bytes_ring,
    /// File bytes that were copied, because no pipe could be had.
    file_bytes_copied,
    /// Relayed bytes moved by splice(2) on the core.
    relay_bytes_inline,
    /// Relayed bytes moved by splice SQEs.
    relay_bytes_ring,
    /// Relayed bytes that were copied: no pipe could be had, or splicing had stopped before an urgent byte.
    relay_bytes_copied,
    /// Operations that the kernel had not given back when the core ended; their memory was leaked.
    ops_leaked,
    /// Pipes made.
    pipes_made,
    /// Pipes closed because they still held bytes.
    pipes_spoilt,
}
