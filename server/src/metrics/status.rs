//! The state of the program at one moment, as plain data: it is shown, exported, and sent from one process to
//! another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::process::ProcessStatus;
use super::upstreams::UpstreamStatus;
use crate::log::LogCounts;

/// The program at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the program.
    pub(crate) version: String,
    /// Process numbers: more than one where a process serves for each node.
    pub(crate) pids: Vec<u32>,
    /// How many processes were asked, and how many are in here.
    #[serde(default)]
    pub(crate) members: MembersStatus,
    /// `starting`, `ready`, `leaving` or `draining`.
    pub(crate) stage: String,
    /// Seconds since 1970 when it started.
    pub(crate) started: f64,
    /// Seconds since then.
    pub(crate) uptime: f64,
    /// What the system says about it.
    pub(crate) process: ProcessStatus,
    /// The road for bulk.
    pub(crate) road: String,
    /// What it says of each listener.
    pub(crate) listeners: Vec<String>,
    /// The cores, of all processes.
    pub(crate) cores: Vec<CoreStatus>,
    /// Requests by method and status code.
    pub(crate) requests: BTreeMap<String, BTreeMap<u16, u64>>,
    /// How long requests took.
    pub(crate) request_times: TimesStatus,
    /// How long relayed connections lasted.
    pub(crate) relay_times: TimesStatus,
    /// Relayed connections by how they ended.
    pub(crate) relays: BTreeMap<String, u64>,
    /// Lookups in the cache of open files, by their result.
    pub(crate) cache: BTreeMap<String, u64>,
    /// Lines of each log.
    pub(crate) logs: BTreeMap<String, LogCounts>,
    /// Where connections are relayed to.
    pub(crate) upstreams: Vec<UpstreamStatus>,
    /// What is not on its node, a few words each.
    pub(crate) strays: Vec<String>,
}

/// Who of the processes that serve has told its part: where one did not answer, its cores, clients and bytes
/// are missing everywhere. Nobody is asked where one process serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersStatus {
    pub(crate) asked: usize,
    pub(crate) answered: usize,
}

impl MembersStatus {
    /// How many did not answer.
    pub(crate) fn silent(self) -> usize {
        self.asked.saturating_sub(self.answered)
    }
}

/// A core at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoreStatus {
    /// Its index in its process.
    pub(crate) core: usize,
    /// Its CPU, which no other core has.
    pub(crate) cpu: u32,
    /// The CPU's node.
    pub(crate) node: u32,
    /// Where its memory comes from.
    pub(crate) memory_node: u32,
    /// What the runtime counts, by name ([`annulus::Counters`]).
    pub(crate) counters: BTreeMap<String, u64>,
    /// Connections that came, and that are open, by kind.
    pub(crate) connections: BTreeMap<String, u64>,
    pub(crate) open: BTreeMap<String, u64>,
    /// Requests that it answered.
    pub(crate) requests: u64,
    /// Bytes of bodies that it sent.
    pub(crate) body_bytes: u64,
    /// Bytes that it relayed to upstreams, and from there.
    pub(crate) relay_bytes_up: u64,
    pub(crate) relay_bytes_down: u64,
    /// Submission and completion entries of its ring.
    pub(crate) ring: (u32, u32),
    /// What its ring lacks.
    pub(crate) lacks: Vec<String>,
    /// Bytes of its share of the pool, of what it has grown by, and to which it may grow.
    pub(crate) pool: u64,
    pub(crate) pool_grown: u64,
    pub(crate) pool_limit: u64,
    /// Receive buffers and blocks that it began with.
    pub(crate) recv_buffers: u64,
    pub(crate) blocks: u64,
    /// Bytes of its memory that lie on its node, and those that lie elsewhere or at an unknown place.
    pub(crate) memory_home: u64,
    pub(crate) memory_away: u64,
    /// Where a task has kept it from everything else for a while.
    pub(crate) stall: Option<String>,
}

/// A histogram of times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TimesStatus {
    /// How many there were up to each bound ([`super::cells::bound`]), each bucket for itself; the last has
    /// no bound.
    pub(crate) counts: Vec<u64>,
    /// The sum in seconds.
    pub(crate) sum: f64,
}

impl TimesStatus {
    pub(super) fn add(&mut self, (counts, nanos): (Vec<u64>, u64)) {
        self.merge(&TimesStatus { counts, sum: nanos as f64 / 1e9 });
    }

    fn merge(&mut self, other: &TimesStatus) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A bound, in seconds, that at least the part `quantile` of all does not exceed; `None` where that is
    /// beyond all bounds, or nothing was measured.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut sum = 0;
        let at = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        })?;
        (at < super::cells::BOUNDS).then(|| super::cells::bound(at))
    }
}

impl Status {
    /// Adds another process of the same program.
    pub(crate) fn merge(&mut self, other: Status) {
        self.pids.extend(other.pids);
        self.started = self.started.min(other.started);
        self.uptime = self.uptime.max(other.uptime);
        self.process.add(&other.process);
        self.cores.extend(other.cores);
        for (method, codes) in other.requests {
            let of_method = self.requests.entry(method).or_default();
            codes.into_iter().for_each(|(code, count)| *of_method.entry(code).or_default() += count);
        }
        self.request_times.merge(&other.request_times);
        self.relay_times.merge(&other.relay_times);
        add_all(&mut self.relays, other.relays);
        add_all(&mut self.cache, other.cache);
        for (name, LogCounts { logged, written, dropped }) in other.logs {
            let of_all = self.logs.entry(name).or_default();
            of_all.logged += logged;
            of_all.written += written;
            of_all.dropped += dropped;
        }
        other.upstreams.into_iter().for_each(|upstream| upstream.add_to(&mut self.upstreams));
        self.strays.extend(other.strays);
        if self.listeners.is_empty() {
            self.listeners = other.listeners;
        }
    }

    /// The sum of a counter of the runtime over all cores.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        self.cores.iter().filter_map(|core| core.counters.get(counter)).sum()
    }
}

fn add_all(sums: &mut BTreeMap<String, u64>, others: BTreeMap<String, u64>) {
    others.into_iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metrics::upstreams::UpstreamState;

    fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
        pairs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    pub(crate) fn sample() -> Status {
        let core = CoreStatus {
            core: 0,
            cpu: 4,
            node: 1,
            memory_node: 1,
            counters: counts([("wakes_same_core", 2), ("load", 8), ("sqes", 10)]),
            connections: counts([("files", 5), ("relay", 0)]),
            open: counts([("files", 3), ("relay", 0)]),
            requests: 8,
            body_bytes: 1000,
            relay_bytes_up: 0,
            relay_bytes_down: 0,
            ring: (4096, 16384),
            lacks: Vec::new(),
            pool: 16 << 20,
            pool_grown: 0,
            pool_limit: 64 << 20,
            recv_buffers: 1024,
            blocks: 64,
            memory_home: 17 << 20,
            memory_away: 0,
            stall: None,
        };
        Status {
            version: "1".to_owned(),
            pids: vec![7],
            members: MembersStatus::default(),
            stage: "ready".to_owned(),
            started: 1e9,
            uptime: 10.0,
            process: ProcessStatus::default(),
            road: "inline".to_owned(),
            listeners: vec!["listening on http://127.0.0.1:80".to_owned()],
            cores: vec![core],
            requests: [("GET".to_owned(), [(200, 7), (404, 1)].into())].into(),
            request_times: TimesStatus { counts: vec![3, 4, 1], sum: 0.001 },
            relay_times: TimesStatus::default(),
            relays: counts([("closed", 1)]),
            cache: counts([("hit", 6), ("miss", 2)]),
            logs: [("stderr".to_owned(), LogCounts { logged: 3, written: 2, dropped: 1 })].into(),
            upstreams: vec![UpstreamStatus {
                listener: "a\"b".to_owned(),
                address: "10.0.0.1:80".to_owned(),
                state: UpstreamState::Down,
                views: [(UpstreamState::Down, 1)].into(),
                open: 1,
                connections: 2,
                failures: 3,
                bytes_up: 4,
                bytes_down: 5,
            }],
            strays: Vec::new(),
        }
    }

    #[test]
    fn quantiles_are_bounds() {
        let times = sample().request_times;
        assert_eq!((times.quantile(0.3), times.quantile(0.5)), (Some(0.000032), Some(0.000064)));
        assert_eq!((times.quantile(0.99), TimesStatus::default().quantile(0.5)), (Some(0.000128), None));
    }

    #[test]
    fn processes_add_up_and_travel_as_json() {
        let mut both = sample();
        let other: Status = serde_json::from_str(&serde_json::to_string(&sample()).unwrap()).unwrap();
        assert_eq!(other, sample());
        both.merge(other);
        assert_eq!((both.pids.len(), both.cores.len(), both.upstreams.len()), (2, 2, 1));
        assert_eq!((both.requests["GET"][&200], both.total("sqes")), (14, 20));
        assert_eq!(
            (both.logs["stderr"].dropped, both.upstreams[0].open, both.request_times.count()),
            (2, 2, 16)
        );
    }

    /// Each process finds out for itself. Seen to fail: with the state of the first.
    #[test]
    fn an_upstream_is_as_bad_as_the_worst_process_finds_it() {
        let found = |state| {
            let mut status = sample();
            (status.upstreams[0].state, status.upstreams[0].views) = (state, [(state, 1)].into());
            status
        };
        let merged = |states: &[UpstreamState]| {
            let mut all = found(states[0]);
            states[1..].iter().for_each(|state| all.merge(found(*state)));
            assert_eq!(all.upstreams.len(), 1);
            all.upstreams.remove(0)
        };
        use UpstreamState::{Down, Out, Up};
        for (states, said) in [
            (&[Up, Up][..], "up"),
            (&[Up, Down], "down in 1 of 2"),
            (&[Down, Up, Down], "down in 2 of 3"),
            (&[Down, Down], "down"),
            (&[Down, Out, Up], "out in 1 of 3"),
        ] {
            assert_eq!(merged(states).said(), said);
        }
        assert_eq!(merged(&[Up, Down, Up]).views, [(Up, 2), (Down, 1)].into());
    }
}
