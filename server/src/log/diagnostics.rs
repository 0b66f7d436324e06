//! The log on standard error. Without -v it has warnings and errors only.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::queue::LineQueue;
use super::repeats::{self, Repeats};
use super::sink::Sink;
use super::writer::{LogCounts, Tell, Writer, bounded};

/// The environment variable that filters the log, in tracing-subscriber's language (`debug`,
/// `annulus::proxy=trace,info`). It outranks `-v`.
pub(crate) const VARIABLE: &str = "ANNULUS_LOG";

/// Standard error's descriptor.
const STDERR: i32 = 2;

/// Writes to standard error, once [`begin`] was called. Until then each thread writes its own lines.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Which process it is, of several that write to one stderr.
static WHO: OnceLock<String> = OnceLock::new();

thread_local! {
    /// The queue of a core.
    static QUEUE: RefCell<Option<LineQueue>> = const { RefCell::new(None) };
}

/// From now on each plain line says `who` it is from. The first call decides.
pub(crate) fn speak_as(who: String) {
    WHO.get_or_init(|| who);
}

/// Writes one plain line to stderr, `annulus: ` before it, and who it is from where there are several
/// processes. While the program serves, the line is queued, in the order of these calls.
///
/// Scripts read these lines, so the log's filter does not apply to them. Where nobody reads stderr any more
/// the program goes on serving, and there is no other place for an error message, so the failure is dropped
/// here.
pub(crate) fn say(text: &str) {
    let line = match WHO.get() {
        None => format!("annulus: {text}\n"),
        Some(who) => format!("annulus: {who}: {text}\n"),
    };
    push_shared(line.as_bytes());
}

/// The filter that `verbose`, the number of `-v` flags, and the environment ask for.
///
/// # Errors
/// What is wrong with [`VARIABLE`], and what to write there.
pub(crate) fn filter(verbose: u8) -> Result<EnvFilter, String> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("{VARIABLE}={text:?} is not a log filter ({error}); write for example {VARIABLE}=debug")
        }),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(EnvFilter::default().add_directive(level.into())),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("{VARIABLE} is not text; write for example {VARIABLE}=debug"))
        }
    }
}

/// Starts the log with `filter`. Call it once.
///
/// # Errors
/// Why it cannot start.
pub(crate) fn start_tracing(filter: EnvFilter) -> Result<(), impl std::fmt::Display> {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines)
        .with_ansi(io::stderr().is_terminal())
        // The subscriber would report on stderr that stderr cannot be written to, by a macro that panics.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(Repeats).with(lines).try_init()
}

/// From now on lines are queued, and a thread writes them. Call it when signals are blocked and the process
/// is where it is to be: the thread inherits both.
///
/// # Errors
/// That of the thread's start.
pub(crate) fn begin() -> io::Result<()> {
    if WRITER.get().is_none() {
        let writer = Writer::start("log", Sink::standard(STDERR), TellOnStderr)?;
        drop(WRITER.set(writer));
        repeats::count_from_now_on(|| {
            if let Some(writer) = WRITER.get() {
                writer.check();
            }
        });
        tell_panics();
    }
    Ok(())
}

/// Gives the calling core a queue of its own.
pub(crate) fn on_core() {
    if let Some(writer) = WRITER.get() {
        QUEUE.with_borrow_mut(|queue| {
            queue.get_or_insert_with(|| writer.queue());
        });
    }
}

/// Writes what is queued, and waits for that as [`Writer::end`] does.
pub(super) fn end(patience: Duration, disk_patience: Duration) {
    if let Some(writer) = WRITER.get() {
        writer.end(patience, disk_patience);
    }
}

/// What was logged on stderr.
pub(super) fn counts() -> LogCounts {
    WRITER.get().map_or(LogCounts { logged: 0, written: 0, dropped: 0 }, Writer::counts)
}

/// The standard library's hook writes to stderr itself, and would hold up a core that panics.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let thread = std::thread::current();
        say(&format!("thread {}: {panic}", thread.name().unwrap_or("without a name")));
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(say);
        }
    }));
}

/// Queues a line in the queue of all threads, or writes it where there is none yet.
fn push_shared(line: &[u8]) {
    let (line, end) = bounded(line);
    match WRITER.get() {
        Some(writer) => writer.push([line, end].concat().into()),
        // One write, so that lines of several threads do not mix.
        None => drop(io::stderr().lock().write_all(&[line, end].concat())),
    }
}

/// Queues a line in the queue of this thread, if it has one.
fn push(line: &[u8]) {
    let queued = QUEUE.try_with(|queue| {
        // It is borrowed for a push only, so this fails nowhere.
        let mut queue = queue.try_borrow_mut().ok()?;
        let queue = queue.as_mut()?;
        match bounded(line) {
            (line, b"") => queue.push(line),
            (line, end) => queue.push(&[line, end].concat()),
        }
        Some(())
    });
    if !matches!(queued, Ok(Some(()))) {
        push_shared(line);
    }
}

/// Gives tracing's lines to the queues. Each comes in one `write`.
struct Lines;

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing thread of stderr has only stderr to tell anything.
struct TellOnStderr;

impl Tell for TellOnStderr {
    fn dropped(&mut self, lines: u64) -> Option<String> {
        Some(format!(
            "annulus: {lines} lines of this log were dropped: standard error was not read fast enough\n"
        ))
    }

    fn refused(&mut self, _: &str, _: &io::Error) {}

    fn recovered(&mut self, _: &str) {}

    fn not_reopened(&mut self, _: &str, _: &io::Error) {}

    fn check(&mut self, now: Instant, ending: bool) -> Option<Instant> {
        repeats::tell(now, ending)
    }
}
