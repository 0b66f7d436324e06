//! Repeated warnings: the first is logged at once, equal ones are counted, and their number is logged.
//!
//! Whoever can cause a warning can cause a flood of them, and a flood hides what else happens. Two warnings
//! are equal when they come from the same line of the program and are about the same thing of ours ([`OURS`]:
//! the upstream, the node): what clients choose makes no difference.
//!
//! All threads use one table without locks: its cells are numbers, and the text of one is written by the
//! thread that logs the first warning, while no other reads it.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// For how long equal warnings are counted after one was told.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// Fields that tell warnings of one line of the program apart.
const OURS: [&str; 7] = ["upstream", "listener", "node", "core", "site", "config", "log"];

/// Cells of the table. There are fewer lines of the program that warn; where two kinds meet in one, both are
/// told.
const CELLS: usize = 512;
/// How many cells from its place a kind is searched for.
const PROBES: usize = 8;
/// The longest text that is kept of a warning, in bytes.
const LONGEST: usize = 200;

/// Lines of this module are never held back, and neither are those of [`crate::slow`]: each is about another
/// request.
const TOLD: [&str; 2] = [TARGET, "annulus::slow"];
const TARGET: &str = "annulus::repeats";

#[derive(Default)]
struct Cell {
    /// Which kind, 0 for none.
    kind: AtomicU64,
    /// Milliseconds since [`START`] when one was told last, plus one.
    told: AtomicU64,
    /// Equal ones since.
    more: AtomicU64,
    text: Mutex<String>,
}

static TABLE: LazyLock<Vec<Cell>> = LazyLock::new(|| (0..CELLS).map(|_| Cell::default()).collect());
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Has [`tell`] called soon; set when somebody is there to call it.
static WAKE: OnceLock<fn()> = OnceLock::new();

/// Equal warnings are held back from now on; `wake` has [`tell`] called soon.
pub(super) fn count_from_now_on(wake: fn()) {
    LazyLock::force(&TABLE);
    LazyLock::force(&START);
    WAKE.get_or_init(|| wake);
}

/// The layer that holds equal warnings back.
pub(super) struct Repeats;

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        match WAKE.get() {
            Some(wake) if *metadata.level() <= Level::WARN && !TOLD.contains(&metadata.target()) => {
                let text = |text: &mut String| write_kind(event, text);
                is_told(kind_of(event), text, since_start(Instant::now()), *wake)
            }
            _ => true,
        }
    }
}

fn since_start(now: Instant) -> u64 {
    now.saturating_duration_since(*START).as_millis() as u64 + 1
}

/// Whether a warning is to be told now; otherwise it is counted. `text` is how its kind is told.
fn is_told(kind: u64, text: impl FnOnce(&mut String), now: u64, wake: fn()) -> bool {
    let Some(cell) = find(kind) else { return true };
    let told = cell.told.load(Ordering::Relaxed);
    let is_time = told == 0 || now.saturating_sub(told) >= PERIOD.as_millis() as u64;
    // Where the exchange fails, another thread tells it in this moment.
    if is_time && cell.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        if let Ok(mut kept) = cell.text.try_lock() {
            kept.clear();
            text(&mut kept);
        }
        return true;
    }
    // The first that is counted has somebody look for the number when the time is over.
    if cell.more.fetch_add(1, Ordering::Relaxed) == 0 {
        wake();
    }
    false
}

/// The cell of a kind, or a vacant one that becomes its own; `None` where all that it may have are taken.
fn find(kind: u64) -> Option<&'static Cell> {
    let start = kind as usize;
    for step in 0..PROBES {
        let cell = &TABLE[(start + step) % CELLS];
        let owner = cell.kind.compare_exchange(0, kind, Ordering::Relaxed, Ordering::Relaxed);
        if owner.is_ok() || owner == Err(kind) {
            return Some(cell);
        }
    }
    None
}

/// Tells how many equal warnings came, for those whose time is over, or all when the program ends. Returns
/// when the next one's is.
pub(super) fn tell(now: Instant, ending: bool) -> Option<Instant> {
    WAKE.get()?;
    let mut next: Option<Instant> = None;
    for cell in TABLE.iter().filter(|cell| cell.kind.load(Ordering::Relaxed) != 0) {
        if cell.more.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let told = cell.told.load(Ordering::Relaxed);
        let over = *START + Duration::from_millis(told - 1) + PERIOD;
        if over > now && !ending {
            next = Some(next.map_or(over, |next| next.min(over)));
            continue;
        }
        let seconds = since_start(now).saturating_sub(told).div_ceil(1000);
        let text = cell.text.try_lock().map(|text| text.clone()).unwrap_or_default();
        // From now on it is counted for another period, so that a flood costs a line each.
        cell.told.store(since_start(now), Ordering::Relaxed);
        let count = cell.more.swap(0, Ordering::Relaxed);
        tracing::warn!(target: TARGET, "{count} more like this in the last {seconds} s: {text}");
    }
    next
}

/// A number for what makes warnings equal; 0 says that a cell is vacant.
fn kind_of(event: &Event<'_>) -> u64 {
    let mut kind = KindReader(DefaultHasher::new());
    event.metadata().callsite().hash(&mut kind.0);
    event.record(&mut kind);
    kind.0.finish().max(1)
}

/// Reads the fields that tell kinds apart.
struct KindReader(DefaultHasher);

impl Visit for KindReader {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if OURS.contains(&field.name()) {
            // A hasher takes all that it is given.
            let _ = write!(HashText(&mut self.0), "{}={value:?} ", field.name());
        }
    }
}

struct HashText<'a>(&'a mut DefaultHasher);

impl Write for HashText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Writes the message, and behind it the fields that tell kinds apart.
struct TextReader<'a> {
    text: &'a mut String,
    of: String,
}

fn write_kind(event: &Event<'_>, text: &mut String) {
    let mut reader = TextReader { text, of: String::new() };
    event.record(&mut reader);
    let of = reader.of;
    text.push_str(&of);
    let end = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
}

impl Visit for TextReader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes all that it is given.
        if field.name() == "message" {
            let _ = write!(self.text, "{value:?}");
        } else if OURS.contains(&field.name()) {
            let _ = write!(self.of, " {}={value:?}", field.name());
        }
    }
}
