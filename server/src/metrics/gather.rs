//! Gathers [`Status`] from where it is: the cores' cells, the runtime's counters and report, the logs, the
//! upstreams.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use annulus::{Observer, Report};

use super::cells::{CACHE_EVENTS, Cells, KINDS, METHODS, OUTCOMES, Times};
use super::process::ProcessStatus;
use super::status::{CoreStatus, MembersStatus, Status, TimesStatus};
use super::upstreams;
use crate::lifecycle::{self, Stage};
use crate::log;

/// For how long the result of checking every page is used again.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// How long one step of a task may last before it is shown.
const STALL: Duration = Duration::from_millis(50);

/// When the program started.
static STARTED: OnceLock<(Instant, SystemTime)> = OnceLock::new();

/// What is said of the listeners, and the road for bulk.
static DESCRIPTION: Mutex<(Vec<String>, String)> = Mutex::new((Vec::new(), String::new()));

/// Makes known what is served: `listeners` are the lines about the listeners, `road` is that for bulk. Call
/// it when the program starts, and when that changes.
pub(crate) fn describe(listeners: Vec<String>, road: String) {
    STARTED.get_or_init(|| (Instant::now(), SystemTime::now()));
    *DESCRIPTION.lock().unwrap_or_else(PoisonError::into_inner) = (listeners, road);
}

/// Gathers [`Status`], and keeps what is costly to find out.
pub(crate) struct Gatherer {
    observer: Observer,
    sampled: Option<(Instant, Report, Vec<Option<String>>)>,
}

impl Gatherer {
    /// Of this runtime.
    pub(crate) fn new(observer: Observer) -> Self {
        Gatherer { observer, sampled: None }
    }

    /// This process now. Waits for no core; checking the pages, every ten seconds at most, takes some
    /// milliseconds.
    pub(crate) fn gather(&mut self) -> Status {
        if self.sampled.as_ref().is_none_or(|(at, ..)| at.elapsed() >= SAMPLE_EVERY) {
            let stalls = self.observer.stalls(STALL);
            let report = self.observer.report();
            let stalls_of = |core| stalls.iter().find(|stall| stall.core == core).map(ToString::to_string);
            let stalls = report.cores.iter().map(|core| stalls_of(core.core.index)).collect();
            self.sampled = Some((Instant::now(), report, stalls));
        }
        let mut status = without_cores();
        let Some((_, report, stalls)) = &self.sampled else { return status };
        status.strays = report.strays();
        let cells = super::cores().clone();
        let page = rustix::param::page_size();
        for ((core, counters), stall) in report.cores.iter().zip(self.observer.counters()).zip(stalls) {
            let index = core.core.index;
            let regions = report.regions.iter().filter(|region| region.core == index);
            let (mut home, mut away) = (0, 0);
            for pages in regions.filter_map(|region| Some((region.node, region.pages.as_ref().ok()?))) {
                let (node, pages) = pages;
                let off = pages.off(node) + pages.unknown;
                away += (off * page) as u64;
                home += ((pages.pages() - pages.absent - off) * page) as u64;
            }
            let pool_grown = counters.pool_grown_bytes;
            let counters = counters.values().map(|(name, value)| (name.to_owned(), value)).collect();
            let mut core = CoreStatus {
                core: index,
                cpu: core.core.cpu.0,
                node: core.core.node.0,
                memory_node: core.core.memory.0,
                counters,
                connections: BTreeMap::new(),
                open: BTreeMap::new(),
                requests: 0,
                body_bytes: 0,
                relay_bytes_up: 0,
                relay_bytes_down: 0,
                ring: (core.ring.sq_entries, core.ring.cq_entries),
                lacks: core.ring.lacks.iter().map(ToString::to_string).collect(),
                pool: (core.recv_buffers.0 * core.recv_buffers.1 + core.blocks.0 * core.blocks.1) as u64,
                pool_grown,
                pool_limit: core.pool_limit as u64,
                recv_buffers: core.recv_buffers.1 as u64,
                blocks: core.blocks.1 as u64,
                memory_home: home,
                memory_away: away,
                stall: stall.clone(),
            };
            for (_, cells) in cells.iter().filter(|(of, _)| *of == index) {
                add_cells(&mut status, &mut core, cells);
            }
            status.cores.push(core);
        }
        status
    }
}

/// This process without its cores. It is the whole status of one that has none.
pub(crate) fn without_cores() -> Status {
    let (at, time) = *STARTED.get_or_init(|| (Instant::now(), SystemTime::now()));
    let stage = match lifecycle::stage() {
        Stage::Starting => "starting",
        Stage::Ready => "ready",
        Stage::Leaving => "leaving",
        Stage::Draining => "draining",
    };
    let (listeners, road) = DESCRIPTION.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (stderr, access) = log::counts();
    let logs = [("stderr", Some(stderr)), ("access", access)];
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pids: vec![std::process::id()],
        members: MembersStatus::default(),
        stage: stage.to_owned(),
        started: time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        uptime: at.elapsed().as_secs_f64(),
        process: ProcessStatus::here(),
        road,
        listeners,
        cores: Vec::new(),
        requests: BTreeMap::new(),
        request_times: TimesStatus::default(),
        relay_times: TimesStatus::default(),
        relays: OUTCOMES.iter().map(|name| ((*name).to_owned(), 0)).collect(),
        cache: CACHE_EVENTS.iter().map(|name| ((*name).to_owned(), 0)).collect(),
        logs: logs.iter().filter_map(|(name, counts)| Some(((*name).to_owned(), (*counts)?))).collect(),
        upstreams: upstreams::list(),
        strays: Vec::new(),
    }
}

/// Adds what a core has counted.
fn add_cells(status: &mut Status, core: &mut CoreStatus, cells: &Cells) {
    for (method, codes) in METHODS.iter().zip(&cells.requests) {
        for (code, count) in codes.iter().enumerate().filter(|(_, count)| count.get() > 0) {
            let count = count.get();
            core.requests += count;
            let of_method = status.requests.entry((*method).to_owned()).or_default();
            *of_method.entry(code as u16 + 100).or_default() += count;
        }
    }
    let times = |status: &mut TimesStatus, times: &Times| status.add(times.get());
    times(&mut status.request_times, &cells.request_times);
    times(&mut status.relay_times, &cells.relay_times);
    for (kind, name) in KINDS.iter().enumerate() {
        // Closed connections are read first, so that they are never more than opened ones.
        let closed = cells.closed[kind].get();
        let opened = cells.opened[kind].get();
        *core.connections.entry((*name).to_owned()).or_default() += opened;
        *core.open.entry((*name).to_owned()).or_default() += opened - closed;
    }
    for (name, count) in OUTCOMES.iter().zip(&cells.relays) {
        *status.relays.entry((*name).to_owned()).or_default() += count.get();
    }
    for (name, count) in CACHE_EVENTS.iter().zip(&cells.cache) {
        *status.cache.entry((*name).to_owned()).or_default() += count.get();
    }
    core.body_bytes += cells.body_bytes.get();
    core.relay_bytes_up += cells.relay_bytes_up.get();
    core.relay_bytes_down += cells.relay_bytes_down.get();
}
