//! Collects the lines of a child's pipe and lets tests wait for one.

use crate::watch;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

/// The lines of one stream, as far as they have come.
pub struct Lines {
    shared: Arc<(Mutex<Collected>, Condvar)>,
    reader: Option<JoinHandle<()>>,
    /// Dropped, the rest is read.
    gate: Option<Sender<()>>,
}

impl Lines {
    /// Reads `stream` to its end on a thread of its own, so that the child never blocks on a full pipe.
    #[track_caller]
    pub fn collect(stream: impl Read + Send + 'static) -> Lines {
        Lines::until(stream, |_| false)
    }

    /// Reads `stream` until a line for which `is_last` holds, and from there on no more before
    /// [`Lines::all`]: as if nobody read it.
    #[track_caller]
    pub fn until(
        stream: impl Read + Send + 'static,
        is_last: impl Fn(&str) -> bool + Send + 'static,
    ) -> Lines {
        let (gate, opens) = channel::<()>();
        let shared = Arc::new((Mutex::new(Collected::default()), Condvar::new()));
        let writes = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("lines".into())
            .spawn(move || {
                // Little is read ahead.
                let mut stream = BufReader::with_capacity(128, stream);
                let mut deaf = false;
                loop {
                    if std::mem::take(&mut deaf) {
                        // It is never sent to, only dropped.
                        let _ = opens.recv();
                    }
                    let mut line = Vec::new();
                    let read = stream.read_until(b'\n', &mut line);
                    let (collected, changed) = &*writes;
                    let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
                    match read {
                        Ok(n) if n > 0 => {
                            let text = String::from_utf8_lossy(&line);
                            deaf = is_last(&text);
                            collected.lines.push(text.trim_end_matches('\n').to_owned());
                        }
                        // A pipe gives no errors worth a test's attention; its end is its end.
                        _ => collected.ended = true,
                    }
                    changed.notify_all();
                    if collected.ended {
                        return;
                    }
                }
            })
            .expect("a thread that reads a child's pipe");
        Lines { shared, reader: Some(reader), gate: Some(gate) }
    }

    /// The first line for which `wanted` gives a value, now or when it comes. `None` when the stream ends
    /// without one.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let (collected, changed) = &*self.shared;
        let start = Instant::now();
        let mut seen = 0;
        let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while seen < collected.lines.len() {
                if let Some(value) = wanted(&collected.lines[seen]) {
                    return Some(value);
                }
                seen += 1;
            }
            if collected.ended {
                return None;
            }
            let left = watch::LIMIT.saturating_sub(start.elapsed());
            assert!(
                !left.is_zero(),
                "waited {:?} in vain for {what}; lines so far: {:#?}",
                watch::LIMIT,
                collected.lines
            );
            collected = changed.wait_timeout(collected, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The lines that have come so far.
    pub fn so_far(&self) -> Vec<String> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// All lines of a stream whose writer has ended.
    pub fn all(mut self) -> Vec<String> {
        self.gate = None;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the thread that reads a child's pipe");
        }
        self.so_far()
    }
}
