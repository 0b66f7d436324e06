//! Tasks with files. What was written is read again, whatever was cut short, interrupted or late. What was
//! opened late is closed.

use std::ops::Range;
use std::rc::Rc;

use super::program::{Bytes, Fixture, lacks_descriptors};
use super::programs::Seen;
use super::random::{byte, differs};
use super::several::all;
use crate::fs::{Dir, File, OpenOptions};
use crate::spawn;
use crate::time::timeout;

/// Bytes of the part of a file that one task has for itself.
const PART: u64 = 1 << 20;

/// A directory of the kernel's, which goes with the value.
pub(super) struct Place(std::path::PathBuf);

impl Place {
    pub(super) fn new() -> std::io::Result<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("annulus-played-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Memory where there is such a place: nothing is to be learnt from a disk.
        let memory = std::path::Path::new("/dev/shm");
        let path = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing that a test could do about it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Several tasks write to parts of one file and read them; others open and close it.
pub(super) async fn files(fixture: Rc<Fixture>) -> Seen {
    let place = Rc::new(Place::new().map_err(|e| e.to_string())?);
    let dir = loop {
        if let Some(dir) = opened(Dir::open(&place.0).await)? {
            break dir;
        }
    };
    let options = OpenOptions::new().write(true).create(true);
    let file = loop {
        if let Some(file) = opened(dir.open_beneath("file", options).await)? {
            break file;
        }
    };
    let mut tasks = Vec::new();
    for part in 0..fixture.random.between(1, 3) {
        tasks.push(spawn(writes_and_reads(Rc::clone(&fixture), file.clone(), part)));
    }
    if fixture.random.once_in(2) {
        tasks.push(spawn(opens(Rc::clone(&fixture), dir.clone(), Rc::clone(&place))));
    }
    all(tasks).await?;
    // A write that was given up may still make it longer.
    let size = || file.stat_now().map(|stat| stat.size).map_err(|e| e.to_string());
    let before = size()?;
    let by_ring = file.stat().await.map_err(|e| e.to_string())?.size;
    let has = before..=size()?;
    if has.contains(&by_ring) {
        Ok(())
    } else {
        Err(format!("the file has {has:?} bytes, and {by_ring} by the ring"))
    }
}

/// What was opened, if a descriptor was left for it.
fn opened<T>(opened: crate::Result<T>) -> Result<Option<T>, String> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(e) if lacks_descriptors(&e) => Ok(None),
        Err(e) => Err(format!("an open failed: {e}")),
    }
}

/// What a task knows of its part of the file.
struct Part {
    file: File,
    begin: u64,
    stream: u32,
    /// Up to where it was written.
    written: u64,
}

async fn writes_and_reads(fixture: Rc<Fixture>, file: File, part: u64) -> Seen {
    let mut part = Part { file, begin: part * PART, stream: fixture.random.next() as u32, written: 0 };
    for _ in 0..fixture.random.between(1, 10) {
        match fixture.random.below(7) {
            0..=2 => {
                if !part.write(&fixture).await? {
                    // Nobody knows what a write that was dropped has written, or will.
                    return part.read(&fixture).await;
                }
            }
            3 => part.file.sync_data().await.map_err(|e| e.to_string())?,
            4 => drop(timeout(fixture.time(), part.file.sync_all()).await),
            _ => part.read(&fixture).await?,
        }
    }
    part.read(&fixture).await
}

impl Part {
    fn bytes(&self, range: Range<u64>) -> Bytes {
        Bytes(range.map(|at| byte(self.stream, at)).collect())
    }

    /// Writes on, in one of the ways that there are. False: it was given up.
    async fn write(&mut self, fixture: &Fixture) -> Result<bool, String> {
        let most = fixture.random.pick(&[1, 5_000, 60_000]);
        let len = fixture.random.below(most + 1);
        let (at, from) = (self.begin + self.written, self.written);
        let written = match fixture.random.below(4) {
            0 => {
                let written = self.file.write_at(self.bytes(from..from + len), at).await;
                written.map(|(n, _)| n as u64).map_err(|e| e.error)
            }
            1 => {
                let cut = from + len / 3;
                let parts = [self.bytes(from..cut), self.bytes(cut..from + len)];
                self.file.write_all_vectored_at(parts, at).await.map(|_| len).map_err(|e| e.error)
            }
            2 if fixture.random.once_in(4) => {
                let writing = self.file.write_all_at(self.bytes(from..from + len), at);
                match timeout(fixture.time(), writing).await {
                    Ok(written) => written.map(|_| len).map_err(|e| e.error),
                    Err(_) => return Ok(false),
                }
            }
            _ => {
                let written = self.file.write_all_at(self.bytes(from..from + len), at).await;
                written.map(|_| len).map_err(|e| e.error)
            }
        };
        self.written += written.map_err(|e| format!("a write failed: {e}"))?;
        Ok(true)
    }

    /// Reads some of what was written.
    async fn read(&self, fixture: &Fixture) -> Seen {
        if self.written == 0 {
            return Ok(());
        }
        let from = fixture.random.below(self.written);
        let len = fixture.random.between(1, self.written - from);
        let (into, at) = (Vec::with_capacity(len as usize), self.begin + from);
        let bytes = match fixture.random.below(4) {
            0 => match timeout(fixture.time(), self.file.read_at(into, at)).await {
                Ok(read) => read.map_err(|e| e.error.to_string())?.1,
                Err(_) => return Ok(()),
            },
            1 => self.file.read_at(into, at).await.map_err(|e| e.error.to_string())?.1,
            _ => self.file.read_exact_at(into, len as usize, at).await.map_err(|e| e.error.to_string())?,
        };
        match differs(self.stream, from, &bytes) {
            Some(at) => {
                Err(format!("byte {at} of a file is wrong, of {} that were read from {from} on", bytes.len()))
            }
            None if bytes.is_empty() => Err(format!("nothing was read at {from} of {}", self.written)),
            None => Ok(()),
        }
    }
}

/// Opens the file again and again; now and then nobody waits for that, and who comes late is closed.
async fn opens(fixture: Rc<Fixture>, dir: Dir, place: Rc<Place>) -> Seen {
    for _ in 0..fixture.random.between(1, 6) {
        // Beneath a directory a call opens what it can; by a path of the process the ring does.
        let opening = async {
            match fixture.random.once_in(4) {
                true => dir.open_beneath("file", OpenOptions::new()).await,
                false => File::open(place.0.join("file"), OpenOptions::new()).await,
            }
        };
        let Ok(file) = timeout(fixture.time(), opening).await else { continue };
        match opened(file)? {
            Some(file) if fixture.random.once_in(2) => file.close(),
            other => drop(other),
        }
    }
    Ok(())
}
