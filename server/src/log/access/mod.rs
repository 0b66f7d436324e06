//! The access log: a line for each request, and one for each relayed connection.
//!
//! A core writes a line into memory of its own and copies it into its queue: no memory is allocated for a
//! line, and the clock's text is made once a second. What a client sent is escaped in every format, so a line
//! is a line, and its quotes are ours.

mod clock;
mod escape;
mod json;
mod text;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clock::Clock;
use rustix::time::{ClockId, clock_gettime};

use super::queue::LineQueue;
use super::sink::Sink;
use super::writer::{LogCounts, Tell, Writer, bounded};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// The Common Log Format of NCSA and Apache httpd.
    Common,
    /// The same with Referer and User-Agent, as nginx and Apache httpd have it.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

/// Who is on the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Somebody at this address.
    Tcp(SocketAddr),
    /// A process of this machine, by a Unix socket.
    Unix,
    /// Unknown: the connection was closed before its address was asked for.
    Unknown,
}

impl From<Option<SocketAddr>> for Client {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Client::Unknown, Client::Tcp)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Tcp(address) => address.fmt(f),
            Client::Unix => f.write_str("unix:"),
            Client::Unknown => f.write_str("-"),
        }
    }
}

/// A request that was answered. What the client did not send is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Who asked.
    pub(crate) client: Client,
    /// The method; empty where the first line was no request line.
    pub(crate) method: &'a [u8],
    /// The target as it was sent; without a method the beginning of what was sent.
    pub(crate) target: &'a [u8],
    /// The version, such as `HTTP/1.1`.
    pub(crate) version: &'a [u8],
    /// The Host field.
    pub(crate) host: &'a [u8],
    /// The status code of the answer.
    pub(crate) status: u16,
    /// Bytes of the answer's body that were sent.
    pub(crate) bytes: u64,
    /// The Referer field.
    pub(crate) referer: &'a [u8],
    /// The User-Agent field.
    pub(crate) user_agent: &'a [u8],
    /// From the head's last byte to the answer's last one.
    pub(crate) elapsed: Duration,
    /// The X-Request-Id field.
    pub(crate) request_id: &'a [u8],
}

/// A relayed connection that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection<'a> {
    /// Who connected.
    pub(crate) client: Client,
    /// Where it was carried to; `None` if nowhere.
    pub(crate) upstream: Option<Client>,
    /// Bytes from the client to the upstream.
    pub(crate) up: u64,
    /// Bytes from the upstream to the client.
    pub(crate) down: u64,
    /// From the accept to the end.
    pub(crate) elapsed: Duration,
    /// How it ended, such as `closed`, or what failed.
    pub(crate) end: &'a str,
    /// The road for bulk: `inline` or `ring`.
    pub(crate) road: &'a str,
}

/// Writes the access log, if there is one.
static WRITER: OnceLock<(Writer, Format)> = OnceLock::new();

/// Opens the access log of this process: a file, or standard output for `-`. Call it once, when signals are
/// blocked.
///
/// # Errors
/// What open(2) says; `ENXIO` for a FIFO that nobody reads.
pub(crate) fn open(path: &Path, format: Format) -> io::Result<()> {
    let sink = if path.as_os_str() == "-" { Sink::standard(1) } else { Sink::open(path)? };
    let writer = Writer::start("access-log", sink, TellInTheLog)?;
    drop(WRITER.set((writer, format)));
    Ok(())
}

/// Opens its file again.
pub(super) fn reopen() {
    if let Some((writer, _)) = WRITER.get() {
        writer.reopen();
    }
}

/// Writes what is queued, as [`Writer::end`] does, and tells of what could not be.
pub(super) fn end(patience: Duration, disk_patience: Duration) {
    if let Some((writer, _)) = WRITER.get() {
        let left = writer.end(patience, disk_patience);
        if left > 0 {
            tracing::warn!(
                log = "access",
                "{left} lines of the access log were not written: nobody takes them"
            );
        }
    }
}

/// What was logged, if there is an access log.
pub(super) fn counts() -> Option<LogCounts> {
    WRITER.get().map(|(writer, _)| writer.counts())
}

/// A core's end of the access log. Where there is no log, a line costs a comparison.
pub(crate) struct AccessLog(Option<RefCell<CoreLog>>);

/// What a core needs to write lines.
struct CoreLog {
    queue: LineQueue,
    format: Format,
    line: Vec<u8>,
    clock: Clock,
}

impl AccessLog {
    /// For the calling core. Call it once on each, and keep it.
    pub(crate) fn on_core() -> Self {
        AccessLog(WRITER.get().map(|(writer, format)| {
            let (queue, format) = (writer.queue(), *format);
            RefCell::new(CoreLog { queue, format, line: Vec::with_capacity(1024), clock: Clock::default() })
        }))
    }

    /// Whether lines go anywhere: what only they need can be left out otherwise.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether lines of requests say how long they took.
    pub(crate) fn is_timed(&self) -> bool {
        self.0.as_ref().is_some_and(|core| core.borrow().format == Format::Json)
    }

    /// Logs a request. Never waits.
    pub(crate) fn request(&self, request: &Request<'_>) {
        self.log(|format, out, clock| match format {
            Format::Common => text::request(out, clock, request, false),
            Format::Combined => text::request(out, clock, request, true),
            Format::Json => json::request(out, clock, request),
        });
    }

    /// Logs a relayed connection. Never waits.
    pub(crate) fn connection(&self, connection: &Connection<'_>) {
        self.log(|format, out, clock| match format {
            Format::Common | Format::Combined => text::connection(out, clock, connection),
            Format::Json => json::connection(out, clock, connection),
        });
    }

    fn log(&self, write: impl FnOnce(Format, &mut Vec<u8>, &mut Clock)) {
        let Some(core) = &self.0 else { return };
        let CoreLog { queue, format, line, clock } = &mut *core.borrow_mut();
        line.clear();
        clock.set(now());
        write(*format, line, clock);
        line.push(b'\n');
        match bounded(line) {
            (line, b"") => queue.push(line),
            (line, end) => queue.push(&[line, end].concat()),
        }
    }
}

/// The time since 1970 began, to some milliseconds: the last tick of the kernel, which is read for a tenth of
/// what the time itself costs. A clock that is set before that says 0.
fn now() -> Duration {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    u64::try_from(time.tv_sec).map_or(Duration::ZERO, |seconds| Duration::new(seconds, time.tv_nsec as u32))
}

/// Appends an address. An IPv4 address, which most are, is written without the formatter.
fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            // Whole, and then in one go: "255.255.255.255" is the longest.
            let (mut text, mut len) = ([b'.'; 15], 0);
            for (at, octet) in address.octets().into_iter().enumerate() {
                len += usize::from(at > 0);
                let digits =
                    [(octet / 100, octet >= 100), (octet / 10 % 10, octet >= 10), (octet % 10, true)];
                for (digit, _) in digits.into_iter().filter(|(_, is_shown)| *is_shown) {
                    text[len] = b'0' + digit;
                    len += 1;
                }
            }
            out.extend_from_slice(&text[..len]);
        }
        IpAddr::V6(_) => display(out, address),
    }
}

/// Appends a number.
fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a time in seconds, to the microsecond.
fn seconds(out: &mut Vec<u8>, time: Duration) {
    number(out, time.as_secs());
    out.push(b'.');
    // Six places, whatever it is: the seventh is the one in front.
    out.extend_from_slice(&itoa::Buffer::new().format(time.subsec_micros() + 1_000_000).as_bytes()[1..]);
}

/// Appends what `value` displays.
fn display(out: &mut Vec<u8>, value: impl fmt::Display) {
    use std::io::Write;
    // A vector takes all that it is given.
    drop(write!(out, "{value}"));
}

/// The access log's errors are reported in the other log.
struct TellInTheLog;

impl Tell for TellInTheLog {
    fn dropped(&mut self, lines: u64) -> Option<String> {
        tracing::warn!(
            log = "access",
            "{lines} lines of the access log were dropped: it is not written fast enough"
        );
        None
    }

    fn refused(&mut self, name: &str, error: &io::Error) {
        tracing::error!(
            log = name, %error,
            "the access log cannot be written; lines wait while the queue has space, and are dropped and counted then"
        );
    }

    fn recovered(&mut self, name: &str) {
        tracing::warn!(log = name, "the access log is written again");
    }

    fn not_reopened(&mut self, name: &str, error: &io::Error) {
        tracing::error!(log = name, %error, "the access log cannot be opened anew; it goes on in the old file");
    }

    fn check(&mut self, _: Instant, _: bool) -> Option<Instant> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::text::tests::{clock, relayed, sample};
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/logs.md");

    /// Of the kind of line that `write` writes, the names of its fields in docs/logs.md behind `heading`.
    fn is_documented(write: impl FnOnce(&mut Vec<u8>), heading: &str) {
        let mut out = Vec::new();
        write(&mut out);
        let line = String::from_utf8(out).unwrap();
        assert!(PAGE.lines().any(|of_page| of_page == line), "docs/logs.md lacks the line {line}");
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(&line) else { return };
        let (_, section) = PAGE.split_once(heading).expect(heading);
        let (table, _) = section.trim_start().split_once("\n\n").expect("a table");
        let mut told: Vec<_> =
            table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
        told.retain(|name| *name != "json");
        let mut there: Vec<_> = object.keys().map(String::as_str).collect();
        told.sort_unstable();
        there.sort_unstable();
        assert_eq!(told, there);
    }

    /// Seen to fail: with a key renamed, and with another word in a line.
    #[test]
    fn the_page_has_each_format_and_every_field() {
        let (clock, heading) = (clock(), "### Fields of requests");
        is_documented(|out| text::request(out, &clock, &sample(), false), heading);
        is_documented(|out| text::request(out, &clock, &sample(), true), heading);
        is_documented(|out| json::request(out, &clock, &sample()), heading);
        let heading = "### Fields of relayed connections";
        is_documented(|out| text::connection(out, &clock, &relayed()), heading);
        is_documented(|out| json::connection(out, &clock, &relayed()), heading);
    }

    /// Seen to fail: with a zero that is left out in the middle.
    #[test]
    fn addresses_are_as_the_standard_library_has_them() {
        for octets in
            [[0, 0, 0, 0], [1, 20, 103, 200], [255, 255, 255, 255], [10, 0, 99, 100], [9, 10, 101, 7]]
        {
            for address in [IpAddr::from(octets), "2001:db8::1".parse().unwrap()] {
                let mut out = Vec::new();
                ip(&mut out, address);
                assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
            }
        }
    }

    #[test]
    fn times_have_six_places() {
        let text = |time| {
            let mut out = Vec::new();
            seconds(&mut out, time);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Duration::from_micros(12)), "0.000012");
        assert_eq!(text(Duration::from_millis(61_500)), "61.500000");
    }
}
