//! Tests of the thread that writes lines: nobody waits for it, and every line is written or counted.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Remembers what it is told.
#[derive(Default, Clone)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn say(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Tell for Told {
    fn dropped(&mut self, lines: u64) -> Option<String> {
        self.say(format!("dropped {lines}"));
        None
    }

    fn refused(&mut self, _: &str, error: &std::io::Error) {
        self.say(format!("refused {:?}", error.raw_os_error()));
    }

    fn recovered(&mut self, _: &str) {
        self.say("recovered".to_owned());
    }

    fn not_reopened(&mut self, _: &str, error: &std::io::Error) {
        self.say(format!("not reopened {:?}", error.raw_os_error()));
    }

    fn check(&mut self, _: Instant, _: bool) -> Option<Instant> {
        None
    }
}

const LONG: Duration = Duration::from_secs(60);

/// A directory of this test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A sink into a pipe, by the pipe's name in /proc.
fn pipe() -> (Sink, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    (Sink::open(path.as_ref()).unwrap(), reader)
}

/// Seen to fail: with a queue that does not count the lines that it refuses.
#[test]
fn every_line_is_written_or_counted() {
    let directory = Directory::new("counted");
    let path = directory.0.join("log");
    let writer = Writer::start("log", Sink::open(&path).unwrap(), Told::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let writer = &writer;
            scope.spawn(move || {
                let mut queue = writer.queue();
                for i in 0..50_000 {
                    if i % 100 == 0 {
                        writer.push(format!("shared {thread} {i}\n").into_bytes().into());
                    }
                    queue.push(format!("own {thread} {i} {}\n", "x".repeat(i % 300)).as_bytes());
                }
            });
        }
    });
    writer.end(LONG, LONG);
    let counts = writer.counts();
    assert_eq!(counts.logged, 4 * 50_500);
    assert_eq!(counts.written + counts.dropped, counts.logged, "{counts:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as u64, counts.written);
    // Those of one thread are in order, and whole.
    for thread in 0..4 {
        let own = format!("own {thread} ");
        let numbers: Vec<usize> = text
            .lines()
            .filter_map(|line| {
                let (number, rest) = line.strip_prefix(&own)?.split_once(' ')?;
                let number: usize = number.parse().unwrap();
                assert_eq!(rest.len(), number % 300, "{line}");
                Some(number)
            })
            .collect();
        assert!(numbers.is_sorted());
    }
}

/// Seen to fail, by waiting for ever: with an end that joins the thread.
#[test]
fn nobody_waits_for_a_reader_that_takes_nothing() {
    let (sink, reader) = pipe();
    let writer = Writer::start("log", sink, Told::default()).unwrap();
    let mut queue = writer.queue();
    let line = [[b'x'; 999].as_slice(), b"\n"].concat();
    for _ in 0..5000 {
        queue.push(&line);
        writer.push(line.clone().into());
    }
    let before = writer.counts();
    let left = writer.end(Duration::from_millis(10), Duration::from_millis(10));
    let counts = writer.counts();
    assert!(before.dropped > 0 && left > 0, "{before:?} {left}");
    assert_eq!(counts.written + counts.dropped, counts.logged, "{counts:?}");
    // And when it does read, each line is whole, and what was dropped is counted.
    let mut text = Vec::new();
    std::fs::File::from(reader).take(1000 * (10_000 - before.dropped)).read_to_end(&mut text).unwrap();
    assert!(text.chunks(1000).all(|line| line == &text[..1000]));
}

#[test]
fn a_reader_that_has_gone_is_no_reason_to_wait() {
    let (sink, reader) = pipe();
    drop(reader);
    let told = Told::default();
    let writer = Writer::start("log", sink, told.clone()).unwrap();
    for _ in 0..100 {
        writer.push(b"a line\n".as_slice().into());
    }
    writer.end(LONG, LONG);
    assert_eq!(writer.counts(), LogCounts { logged: 100, written: 0, dropped: 100 });
    assert!(told.0.lock().unwrap().iter().any(|line| line.starts_with("dropped")));
}

/// Seen to fail: with a line for each attempt.
#[test]
fn a_full_disk_is_told_once_and_what_was_lost_at_the_end() {
    let told = Told::default();
    let writer = Writer::start("log", Sink::open("/dev/full".as_ref()).unwrap(), told.clone()).unwrap();
    let mut queue = writer.queue();
    writer.push(b"first\n".as_slice().into());
    while told.0.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    for _ in 0..2000 {
        queue.push(&[b'\n'; 1]);
        queue.push(&[[b'x'; 999].as_slice(), b"\n"].concat());
    }
    writer.end(LONG, LONG);
    assert_eq!(writer.counts(), LogCounts { logged: 4001, written: 0, dropped: 4001 });
    let told = told.0.lock().unwrap();
    assert_eq!(told.iter().filter(|line| line.starts_with("refused")).count(), 1, "{told:?}");
    assert_eq!(told[0], format!("refused Some({})", libc::ENOSPC));
    let dropped = told.iter().filter_map(|line| line.strip_prefix("dropped ")?.parse::<u64>().ok());
    assert_eq!(dropped.sum::<u64>(), 4001, "{told:?}");
}

/// Seen to fail: with a file that is opened before the queues are empty.
#[test]
fn a_file_is_opened_anew_and_kept_where_that_fails() {
    let directory = Directory::new("reopened");
    let (path, moved) = (directory.0.join("log"), directory.0.join("log.1"));
    let told = Told::default();
    let writer = Writer::start("log", Sink::open(&path).unwrap(), told.clone()).unwrap();
    let until = |what: &dyn Fn() -> bool| {
        while !what() {
            std::thread::yield_now();
        }
    };
    writer.push(b"first\n".as_slice().into());
    std::fs::rename(&path, &moved).unwrap();
    writer.reopen();
    until(&|| path.exists());
    writer.push(b"second\n".as_slice().into());
    until(&|| writer.counts().written == 2);
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "first\n");
    // Its directory is gone: the file that it has is still there.
    let handle = std::fs::File::open(&path).unwrap();
    std::fs::remove_dir_all(&directory.0).unwrap();
    writer.reopen();
    until(&|| !told.0.lock().unwrap().is_empty());
    writer.push(b"third\n".as_slice().into());
    writer.end(LONG, LONG);
    assert_eq!(std::io::read_to_string(handle).unwrap(), "second\nthird\n");
    assert_eq!(*told.0.lock().unwrap(), [format!("not reopened Some({})", libc::ENOENT)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is pushed by whom, in whatever lengths, also longer than a queue: it is written whole, or
    /// dropped and counted.
    #[test]
    fn lines_written_and_dropped_are_those_that_were_logged(
        lengths in proptest::collection::vec(
            (0usize..3, prop_oneof![20 => 0usize..LONGEST_LINE, 1 => Just(QUEUE_BYTES)]), 1..40),
    ) {
        let (sink, reader) = pipe();
        let read = std::thread::spawn(move || {
            let mut text = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut text).unwrap();
            text
        });
        let counts = {
            let writer = Writer::start("log", sink, Told::default()).unwrap();
            let mut queues = [writer.queue(), writer.queue()];
            for &(who, length) in &lengths {
                let line = [vec![b'x'; length], b"\n".to_vec()].concat();
                match queues.get_mut(who) {
                    Some(queue) => queue.push(&line),
                    None => writer.push(line.into()),
                }
            }
            writer.end(LONG, LONG);
            writer.counts()
        };
        let text = read.join().unwrap();
        prop_assert_eq!(counts.logged, lengths.len() as u64);
        prop_assert_eq!(counts.written + counts.dropped, counts.logged);
        prop_assert_eq!(count_lines(&text), counts.written);
    }
}
