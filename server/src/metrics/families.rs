//! What the runtime counts on each core, and its names in Prometheus.

/// What a number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// How a counter of [`annulus::Counters`] is exported.
pub(super) struct Exported {
    /// Its name there.
    pub(super) counter: &'static str,
    /// The family that it belongs to, behind `annulus_`, without `_total`.
    pub(super) family: &'static str,
    /// What tells it from the others of its family.
    pub(super) label: Option<(&'static str, &'static str)>,
    pub(super) kind: Type,
    /// Its unit in the family's.
    pub(super) scale: f64,
    /// What the family is.
    pub(super) help: &'static str,
}

const fn counter(counter: &'static str, family: &'static str, help: &'static str) -> Exported {
    Exported { counter, family, label: None, kind: Type::Counter, scale: 1.0, help }
}

const fn gauge(counter: &'static str, family: &'static str, help: &'static str) -> Exported {
    Exported { counter, family, label: None, kind: Type::Gauge, scale: 1.0, help }
}

const fn one_of(
    counter: &'static str,
    family: &'static str,
    label: (&'static str, &'static str),
    help: &'static str,
) -> Exported {
    Exported { counter, family, label: Some(label), kind: Type::Counter, scale: 1.0, help }
}

const fn nanos(counter: &'static str, family: &'static str, help: &'static str) -> Exported {
    Exported { counter, family, label: None, kind: Type::Counter, scale: 1e-9, help }
}

const HANDED: &str =
    "New connections that an overloaded core has handed on to another one, by how far away that is.";
const WAKES: &str = "Tasks woken on other cores, by how far away those are.";
const SUBMITS: &str = "Closures sent to other cores, by how far away those are.";
const SIGNALS: &str = "Sleeping cores that this one woke, by how.";
const FILES: &str = "Bytes of files sent, by the road that they took.";
const RELAYED: &str = "Bytes relayed, by the road that they took.";

/// All counters. Those of a family stand together.
pub(super) const EXPORTED: &[Exported] = &[
    counter("turns", "core_turns", "Turns of the core's loop."),
    counter("enters", "core_enters", "System calls io_uring_enter."),
    counter("parks", "core_parks", "Enters that waited for a completion."),
    counter("spins", "core_spins", "Times that the core spun before it slept."),
    counter("spins_won", "core_spins_won", "Times that it found something."),
    counter("poller_wakes", "core_poller_wakes", "Enters that woke the submission poller."),
    counter("sqes", "core_sqes", "Submission queue entries submitted."),
    counter("cqes", "core_cqes", "Completion queue entries handled."),
    counter("cq_overflows", "core_cq_overflows", "Turns that found more completions than the queue holds."),
    gauge("operations", "core_operations", "Operations in flight."),
    counter("iowq_punts", "core_iowq_punts", "Operations known to run on a kernel worker thread."),
    counter("polls", "core_polls", "Polls of tasks."),
    counter("remote_wakes", "core_remote_wakes", "Tasks woken from other threads."),
    counter("errands", "core_errands", "Closures that others sent here and that were taken."),
    one_of("wakes_same_core", "core_wakes", ("distance", "same_core"), WAKES),
    one_of("wakes_same_cache", "core_wakes", ("distance", "same_cache"), WAKES),
    one_of("wakes_same_node", "core_wakes", ("distance", "same_node"), WAKES),
    one_of("wakes_remote", "core_wakes", ("distance", "remote"), WAKES),
    one_of("handed_same_core", "core_handed_on", ("distance", "same_core"), HANDED),
    one_of("handed_same_cache", "core_handed_on", ("distance", "same_cache"), HANDED),
    one_of("handed_same_node", "core_handed_on", ("distance", "same_node"), HANDED),
    one_of("handed_remote", "core_handed_on", ("distance", "remote"), HANDED),
    one_of("submits_same_core", "core_submits", ("distance", "same_core"), SUBMITS),
    one_of("submits_same_cache", "core_submits", ("distance", "same_cache"), SUBMITS),
    one_of("submits_same_node", "core_submits", ("distance", "same_node"), SUBMITS),
    one_of("submits_remote", "core_submits", ("distance", "remote"), SUBMITS),
    Exported {
        scale: 1.0 / 16.0,
        ..gauge("load", "core_load", "Tasks ready when a tick begins, on average over some eight ticks.")
    },
    one_of("signals_by_ring", "core_signals", ("by", "ring"), SIGNALS),
    one_of("signals_by_eventfd", "core_signals", ("by", "eventfd"), SIGNALS),
    counter("accepts", "core_accepts", "Connections accepted."),
    counter("accept_backoffs", "core_accept_backoffs", "Accepts put off for lack of descriptors or memory."),
    counter("recv_bytes", "core_received_bytes", "Bytes received into buffers."),
    counter("recv_starved", "core_receives_starved", "Receives that had to wait for a buffer."),
    counter(
        "recv_ring_empty",
        "core_receive_ring_empty",
        "Receives that found none in the kernel's ring though the core had some.",
    ),
    counter(
        "recv_held_back",
        "core_receives_held_back",
        "Receives switched off because nobody took what came.",
    ),
    counter(
        "recv_spilt",
        "core_receives_spilt",
        "Chunks copied out of receive buffers that others waited for.",
    ),
    gauge(
        "recv_buffers_out",
        "core_receive_buffers_out",
        "Receive buffers that hold bytes nobody has finished with.",
    ),
    gauge(
        "recv_buffers_peak",
        "core_receive_buffers_out_max",
        "The most receive buffers that were out at once.",
    ),
    gauge("recv_buffers_ready", "core_receive_buffers_ready", "Receive buffers in the kernel's ring."),
    gauge("blocks_out", "core_blocks_out", "Blocks of the pool in use."),
    gauge("blocks_peak", "core_blocks_out_max", "The most blocks that were in use at once."),
    counter("blocks_refused", "core_blocks_refused", "Times that no block could be had."),
    gauge("pool_grown_bytes", "core_pool_grown_bytes", "Bytes by which the pool has grown."),
    counter("pool_refusals", "core_pool_refusals", "Steps of growth that brought nothing, or too little."),
    counter("block_waits", "core_block_waits", "Times that a task had to wait for a block."),
    counter("send_bytes", "core_sent_bytes", "Bytes sent from buffers."),
    counter("zc_sends", "core_zero_copy_sends", "Sends without a copy."),
    counter("zc_copied", "core_zero_copy_copied", "Of these, those that the kernel copied after all."),
    counter(
        "zc_avoided",
        "core_zero_copy_avoided",
        "Sends that would have been without a copy, to peers for which the kernel copies.",
    ),
    counter(
        "zc_resets",
        "core_zero_copy_resets",
        "Connections reset to get back blocks that the network held.",
    ),
    one_of("file_bytes_inline", "file_bytes", ("road", "inline"), FILES),
    one_of("file_bytes_cold", "file_bytes", ("road", "cold"), FILES),
    one_of("file_bytes_ring", "file_bytes", ("road", "ring"), FILES),
    one_of("file_bytes_copied", "file_bytes", ("road", "copied"), FILES),
    one_of("relay_bytes_inline", "relay_bytes", ("road", "inline"), RELAYED),
    one_of("relay_bytes_ring", "relay_bytes", ("road", "ring"), RELAYED),
    one_of("relay_bytes_copied", "relay_bytes", ("road", "copied"), RELAYED),
    counter("ops_leaked", "core_operations_leaked", "Operations whose memory was leaked at the end."),
    counter("pipes_made", "core_pipes_made", "Pipes made."),
    counter("pipes_refused", "core_pipes_refused", "Times that no pipe could be had and bytes were copied."),
    counter("pipes_spoilt", "core_pipes_spoilt", "Pipes closed because they still held bytes."),
    nanos("busy_ns", "core_busy_seconds", "Time between waits."),
    nanos("parked_ns", "core_parked_seconds", "Time in enters that waited."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use annulus::numa::thread::affinity_of_current;
    use annulus::{Counters, Error, Runtime};

    use super::*;

    fn counters() -> Counters {
        let cpu = affinity_of_current().unwrap().first().unwrap();
        let builder = Runtime::builder().cores(cpu.to_string().parse().unwrap()).pool_bytes(256 << 10);
        let running = builder.build().unwrap().start::<_, _, Error>(|| async { Ok(()) }).unwrap();
        let counters = running.observer().counters();
        running.wait().unwrap();
        counters[0]
    }

    /// Seen to fail: with the last line left out.
    #[test]
    fn every_counter_of_the_runtime_is_exported_once() {
        let there: Vec<_> = counters().values().map(|(name, _)| name).collect();
        let exported: Vec<_> = EXPORTED.iter().map(|exported| exported.counter).collect();
        assert_eq!(there.iter().collect::<BTreeSet<_>>(), exported.iter().collect());
        assert_eq!(there.len(), exported.len());
    }

    #[test]
    fn families_stand_together_and_have_one_type_and_help() {
        let mut seen = BTreeSet::new();
        for family in EXPORTED.chunk_by(|a, b| a.family == b.family) {
            assert!(seen.insert(family[0].family), "{}", family[0].family);
            let first = &family[0];
            assert!(family.iter().all(|of| of.kind == first.kind && of.help == first.help));
            assert!(family.len() == 1 || family.iter().all(|of| of.label.is_some()));
        }
    }
}
