//! The thread that writes lines to one place. No other thread waits for that place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::queue::{Bell, LONGEST_LINE, LineQueue, QUEUE_BYTES, Source, Tally};
use super::sink::{Sink, Stuck};

/// How long lines may lie in a queue after the first of them was written, if it does not fill up. At 10,000
/// requests a second the thread was 5 % of the CPU time of the whole with 10 ms.
const COLLECT: Duration = Duration::from_millis(100);
/// How long to rest before a place that refused lines is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often dropped lines are told.
const TELL: Duration = Duration::from_secs(1);
/// Lines that wait in the queue of those threads that have none of their own.
const SHARED_LINES: usize = 8192;

/// A log: queues into which any thread may put lines without waiting, and a thread that writes them.
pub(super) struct Writer {
    common: Arc<Common>,
    shared: Sender<Box<[u8]>>,
    sources: Sender<Source>,
    finished: Receiver<()>,
}

/// What the writing thread and the others share.
#[derive(Debug, Default)]
struct Common {
    bell: Arc<Bell>,
    /// Of the shared queue.
    tally: Tally,
    /// Those of cores. The lock is held for one read or one push, and by a core when it starts.
    tallies: Mutex<Vec<Arc<Tally>>>,
    ending: AtomicBool,
    reopening: AtomicBool,
    /// Nobody waits any more for what is still queued.
    abandoned: AtomicBool,
    /// Bytes and lines that were written, and lines that could not be.
    written_bytes: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    on_disk: AtomicBool,
}

/// What a log has counted. Lines that were queued and not written yet are in none but the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LogCounts {
    /// Lines that were to be logged.
    pub(crate) logged: u64,
    /// Lines that were written.
    pub(crate) written: u64,
    /// Lines that had no space in a queue, lines whose reader has gone, and those that were queued when the
    /// program ended.
    pub(crate) dropped: u64,
}

/// How the writing thread reports about itself. It must not wait for its own log.
pub(super) trait Tell: Send + 'static {
    /// So many lines more were dropped. Returns a line for the same log, if the news belongs there.
    fn dropped(&mut self, lines: u64) -> Option<String>;
    /// The place at `name` does not take lines.
    fn refused(&mut self, name: &str, error: &std::io::Error);
    /// It takes them again.
    fn recovered(&mut self, name: &str);
    /// The file could not be opened again.
    fn not_reopened(&mut self, name: &str, error: &std::io::Error);
    /// Called at least whenever the thread is about to sleep. Returns when it wants to be called again.
    fn check(&mut self, now: Instant, ending: bool) -> Option<Instant>;
}

impl Writer {
    /// Starts the thread `name`, which writes to `sink`.
    ///
    /// # Errors
    /// That of the thread's start.
    pub(super) fn start(name: &str, sink: Sink, tell: impl Tell) -> std::io::Result<Self> {
        let (shared, lines) = crossbeam_channel::bounded(SHARED_LINES);
        let (sources, new_sources) = crossbeam_channel::unbounded();
        let (finish, finished) = crossbeam_channel::bounded(1);
        let common = Arc::new(Common { on_disk: sink.is_on_disk().into(), ..Common::default() });
        let mut thread = WriterThread {
            common: Arc::clone(&common),
            lines,
            held: None,
            new_sources,
            sources: Vec::new(),
            next: 0,
            sink,
            tell,
            told: 0,
            tell_at: None,
            refused: false,
            retry_at: None,
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            thread.run();
            // Whoever waited may have given up.
            let _ = finish.try_send(());
        })?;
        Ok(Writer { common, shared, sources, finished })
    }

    /// A queue of its own for the calling thread.
    pub(super) fn queue(&self) -> LineQueue {
        let (queue, source) = LineQueue::new(QUEUE_BYTES, Arc::clone(&self.common.bell));
        self.common.tallies().push(Arc::clone(queue.tally()));
        // The thread ends with the process only, so there is a receiver; without one the lines would be
        // counted nowhere.
        drop(self.sources.send(source));
        queue
    }

    /// Queues a line of any thread, newline included, in the order of these calls.
    pub(super) fn push(&self, line: Box<[u8]>) {
        self.common.tally.logged.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.shared.try_send(line) {
            self.common.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.common.bell.ring(self.shared.len() > SHARED_LINES / 2);
    }

    /// Has the file opened again when what was queued so far is written.
    pub(super) fn reopen(&self) {
        self.common.reopening.store(true, Ordering::Release);
        self.common.bell.wake();
    }

    /// Has [`Tell::check`] called soon.
    pub(super) fn check(&self) {
        self.common.bell.wake();
    }

    /// What was counted until now.
    pub(super) fn counts(&self) -> LogCounts {
        self.common.counts()
    }

    /// Has all that is queued written, and waits for that as long as it goes on: not for a reader that takes
    /// nothing for `patience`, nor for a disk that takes nothing for `disk_patience`. What is left then
    /// counts as dropped. Returns how many lines that were.
    pub(super) fn end(&self, patience: Duration, disk_patience: Duration) -> u64 {
        self.common.ending.store(true, Ordering::Release);
        self.common.bell.wake();
        let patience = if self.common.on_disk.load(Ordering::Relaxed) { disk_patience } else { patience };
        let mut written = self.common.written_bytes.load(Ordering::Relaxed);
        while self.finished.recv_timeout(patience) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            let now = self.common.written_bytes.load(Ordering::Relaxed);
            if now == written {
                let before = self.counts().dropped;
                self.common.abandoned.store(true, Ordering::Relaxed);
                return self.counts().dropped - before;
            }
            written = now;
        }
        0
    }
}

impl Common {
    fn tallies(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Tally>>> {
        // Nothing that holds it panics half-way.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> LogCounts {
        // What was written first: it is never more than what was logged.
        let written = self.written.load(Ordering::Relaxed);
        let mut dropped = self.lost.load(Ordering::Relaxed) + self.tally.dropped.load(Ordering::Relaxed);
        let mut logged = self.tally.logged.load(Ordering::Relaxed);
        for tally in self.tallies().iter() {
            dropped += tally.dropped.load(Ordering::Relaxed);
            logged += tally.logged.load(Ordering::Relaxed);
        }
        if self.abandoned.load(Ordering::Relaxed) {
            dropped = logged - written;
        }
        LogCounts { logged, written, dropped }
    }
}

/// The thread's own.
struct WriterThread<T> {
    common: Arc<Common>,
    lines: Receiver<Box<[u8]>>,
    /// A shared line of which so many bytes are written.
    held: Option<(Box<[u8]>, usize)>,
    new_sources: Receiver<Source>,
    sources: Vec<Source>,
    /// The source to go on with: a line of it may be half written.
    next: usize,
    sink: Sink,
    tell: T,
    /// Dropped lines that were told.
    told: u64,
    /// Not before then the next are told.
    tell_at: Option<Instant>,
    refused: bool,
    retry_at: Option<Instant>,
}

impl<T: Tell> WriterThread<T> {
    fn run(&mut self) {
        self.common.bell.belongs_to_this_thread();
        loop {
            // Read before the queues are read for the last time: what was queued before the order to end is
            // written.
            let ending = self.common.ending.load(Ordering::Acquire);
            let reopening = self.common.reopening.swap(false, Ordering::AcqRel);
            self.collect_sources();
            let wrote = if ending || self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.drain(ending)
            } else {
                false
            };
            if reopening {
                self.reopen();
            }
            let tell_at = self.tell_dropped(ending);
            let check_at = self.tell.check(Instant::now(), ending);
            if ending {
                // What was told just now is still to be written.
                self.drain(true);
                if let Err(error) = self.sink.sync() {
                    self.tell.refused(&self.sink.name(), &error);
                }
                return;
            }
            if wrote {
                self.common.bell.collect(COLLECT);
                continue;
            }
            let wake_at = [tell_at, check_at, self.retry_at].into_iter().flatten().min();
            let limit = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
            let is_pending = || {
                self.common.ending.load(Ordering::Acquire)
                    || self.common.reopening.load(Ordering::Acquire)
                    || !self.new_sources.is_empty()
                    || self.retry_at.is_none()
                        && (self.held.is_some()
                            || !self.lines.is_empty()
                            || self.sources.iter().any(|source| !source.ring.is_empty()))
            };
            self.common.bell.sleep(limit, is_pending);
        }
    }

    fn collect_sources(&mut self) {
        self.sources.extend(self.new_sources.try_iter());
    }

    /// Writes what is queued. Returns whether anything was.
    fn drain(&mut self, ending: bool) -> bool {
        let before = self.common.written_bytes.load(Ordering::Relaxed);
        self.retry_at = None;
        loop {
            match self.try_drain() {
                Ok(()) => break,
                Err(Stuck::Gone) => self.discard(),
                Err(Stuck::Refused(error)) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        self.tell.refused(&self.sink.name(), &error);
                    }
                    if ending {
                        self.discard();
                        break;
                    }
                    self.retry_at = Some(Instant::now() + RETRY);
                    break;
                }
            }
        }
        let wrote = self.common.written_bytes.load(Ordering::Relaxed) != before;
        if wrote && self.retry_at.is_none() && std::mem::take(&mut self.refused) {
            self.tell.recovered(&self.sink.name());
        }
        wrote
    }

    fn try_drain(&mut self) -> Result<(), Stuck> {
        loop {
            if let Some((line, at)) = &mut self.held {
                while *at < line.len() {
                    let written = self.sink.write((&line[*at..], &[]))?;
                    count_written(&self.common, (&line[*at..*at + written], &[]));
                    *at += written;
                }
            }
            self.held = None;
            match self.lines.try_recv() {
                Ok(line) => self.held = Some((line, 0)),
                Err(_) => break,
            }
        }
        for _ in 0..self.sources.len() {
            let source = &mut self.sources[self.next];
            // No more than there is now: others wait too.
            let mut left = source.ring.slots();
            while left > 0 {
                let Ok(chunk) = source.ring.read_chunk(left) else { break };
                let parts = chunk.as_slices();
                let written = self.sink.write(parts)?;
                let first = written.min(parts.0.len());
                count_written(&self.common, (&parts.0[..first], &parts.1[..written - first]));
                chunk.commit(written);
                left -= written;
            }
            self.next = (self.next + 1) % self.sources.len();
        }
        Ok(())
    }

    /// Throws away what is queued, and counts it.
    fn discard(&mut self) {
        let mut lost = u64::from(self.held.take().is_some()) + self.lines.try_iter().count() as u64;
        for source in &mut self.sources {
            let all = source.ring.slots();
            if let Ok(chunk) = source.ring.read_chunk(all) {
                let (first, second) = chunk.as_slices();
                lost += count_lines(first) + count_lines(second);
                chunk.commit_all();
            }
        }
        self.next = 0;
        self.common.lost.fetch_add(lost, Ordering::Relaxed);
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(()) => {
                self.common.on_disk.store(self.sink.is_on_disk(), Ordering::Relaxed);
                self.retry_at = None;
            }
            Err(error) => self.tell.not_reopened(&self.sink.name(), &error),
        }
    }

    /// Reports dropped lines when lines are written again, once a second at most. Returns when to check
    /// again.
    fn tell_dropped(&mut self, ending: bool) -> Option<Instant> {
        let dropped = self.common.counts().dropped;
        let news = dropped - self.told;
        if news == 0 || self.retry_at.is_some() {
            return None;
        }
        let now = Instant::now();
        if let Some(at) = self.tell_at.filter(|at| !ending && *at > now) {
            return Some(at);
        }
        (self.told, self.tell_at) = (dropped, Some(now + TELL));
        if let Some(line) = self.tell.dropped(news) {
            self.common.tally.logged.fetch_add(1, Ordering::Relaxed);
            self.held = Some((line.into_bytes().into(), 0));
        }
        None
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn count_written(common: &Common, parts: (&[u8], &[u8])) {
    common.written_bytes.fetch_add((parts.0.len() + parts.1.len()) as u64, Ordering::Relaxed);
    common.written.fetch_add(count_lines(parts.0) + count_lines(parts.1), Ordering::Relaxed);
}

/// Cuts a line that is too long for a queue; it ends with a newline then as before.
pub(super) fn bounded(line: &[u8]) -> (&[u8], &[u8]) {
    if line.len() <= LONGEST_LINE { (line, b"") } else { (&line[..LONGEST_LINE - 4], b"...\n") }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
