//! Metrics: what the cores count of their clients, and how it is shown.
//!
//! A core counts in memory of its own ([`cells`]); a thread that asks sums it up ([`gather`], [`status`]),
//! with what the runtime counts, and writes it for people or machines ([`exposition`]). Nothing of this waits
//! for a core, and no core waits for it.

mod cells;
#[cfg(test)]
mod documented;
pub(crate) mod exposition;
mod families;
pub(crate) mod format;
pub(crate) mod gather;
pub(crate) mod overview;
mod process;
pub(crate) mod status;
pub(crate) mod summary;
mod text;
pub(crate) mod upstreams;

use std::cell::Cell as StdCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cells::{CODES, Cells, METHODS};
pub(crate) use cells::{CacheEvent, Kind, RelayOutcome};

use crate::http::method::Method;

/// The cells of all cores, by index. Locked by a core when it starts, and by who sums them up.
static CORES: Mutex<Vec<(usize, &'static Cells)>> = Mutex::new(Vec::new());

/// Times are measured.
static TIMES: AtomicBool = AtomicBool::new(false);

thread_local! {
    static HERE: StdCell<Option<&'static Cells>> = const { StdCell::new(None) };
}

fn cores() -> MutexGuard<'static, Vec<(usize, &'static Cells)>> {
    // A push or a walk: nothing is left half-done by a panic.
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the cells of the calling core. They stay to the end of the process.
///
/// # Panics
/// On a thread that is no core's.
pub(crate) fn on_core() {
    if HERE.get().is_none() {
        let cells: &'static Cells = Box::leak(Box::default());
        cores().push((annulus::cores::index(), cells));
        HERE.set(Some(cells));
    }
}

/// From now on times are measured as well.
pub(crate) fn measure_times() {
    TIMES.store(true, Ordering::Relaxed);
}

/// The time, if anybody asks how long something takes.
pub(crate) fn clock() -> Option<Instant> {
    TIMES.load(Ordering::Relaxed).then(Instant::now)
}

fn here(count: impl FnOnce(&Cells)) {
    if let Some(cells) = HERE.get() {
        count(cells);
    }
}

/// Counts a request that was answered with `status` and so many bytes of body; without a `method` it was no
/// request that can be read; `elapsed` where it was measured.
pub(crate) fn request(method: Option<Method>, status: u16, body_bytes: u64, elapsed: Option<Duration>) {
    here(|cells| {
        let method = match method {
            Some(Method::Get) => 0,
            Some(Method::Head) => 1,
            Some(Method::Options) => 2,
            Some(Method::NotAllowed | Method::Connect | Method::Unknown) | None => METHODS.len() - 1,
        };
        // Before anything was answered there is no status: such a request is not counted.
        if let Some(code) = usize::from(status).checked_sub(100).filter(|code| *code < CODES) {
            cells.requests[method][code].add(1);
        }
        cells.body_bytes.add(body_bytes);
        if let Some(elapsed) = elapsed {
            cells.request_times.record(elapsed);
        }
    });
}

/// A connection that is open, for as long as this lives.
pub(crate) struct OpenConnection(Kind);

/// Counts a connection that begins.
pub(crate) fn connection(kind: Kind) -> OpenConnection {
    here(|cells| cells.opened[kind as usize].add(1));
    OpenConnection(kind)
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        here(|cells| cells.closed[self.0 as usize].add(1));
    }
}

/// Counts a relayed connection that has ended: bytes to the upstream, bytes from there.
pub(crate) fn relayed(outcome: RelayOutcome, up: u64, down: u64, elapsed: Duration) {
    here(|cells| {
        cells.relays[outcome as usize].add(1);
        cells.relay_bytes_up.add(up);
        cells.relay_bytes_down.add(down);
        cells.relay_times.record(elapsed);
    });
}

/// Counts what the cache of open files had to do.
pub(crate) fn cache(event: CacheEvent) {
    here(|cells| cells.cache[event as usize].add(1));
}
