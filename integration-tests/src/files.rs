//! Sample trees on disk: files of known content, and the odd things that a directory may hold.

use crate::digest::{self, Sum};
use crate::pattern;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this test's own, beneath TMPDIR (/tmp). Removed when dropped.
pub struct Tree {
    root: PathBuf,
}

/// A file in a tree.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its path from the root, with a leading slash: what stands in a request line.
    pub path: String,
    /// Its length and checksum.
    pub sum: Sum,
}

/// More than all socket buffers together hold, so that a client that does not read keeps the download open.
pub const LARGE: u64 = 64 << 20;

/// A tree with a file of 100 bytes and one of [`LARGE`].
pub fn small_and_large() -> (Tree, Sample, Sample) {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let large = tree.file("large.bin", LARGE);
    (tree, small, large)
}

/// A lease on a file (`fcntl(2)`, F_SETLEASE), for which whoever opens the file waits. Given up when dropped.
pub struct Lease(File);

impl Lease {
    /// Takes a lease on a file of ours; `None`, with a note, where its file system has no leases.
    #[track_caller]
    pub fn take(path: &Path) -> Option<Lease> {
        let file = File::options().read(true).write(true).open(path).expect("our file");
        // SAFETY: fcntl(2) on a descriptor of ours. SIGIO, by which the kernel tells that somebody opens the
        // file, would end the process, and is ignored here.
        let leased = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        if leased != 0 {
            eprintln!("note: no lease on a file of TMPDIR: {}", std::io::Error::last_os_error());
            return None;
        }
        Some(Lease(file))
    }

    /// Whether somebody opens the file, and waits.
    pub fn is_asked_for(&self) -> bool {
        // SAFETY: fcntl(2) on a descriptor of ours.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
    }
}

impl Tree {
    /// An empty directory.
    #[track_caller]
    pub fn new() -> Tree {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("annulus-test-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap_or_else(|e| panic!("making {}: {e}", root.display()));
        Tree { root }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path on disk of `name`.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// A file with exactly these bytes.
    #[track_caller]
    pub fn bytes(&self, name: &str, bytes: &[u8]) -> Sample {
        let path = self.at(name);
        fs::write(&path, bytes).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
        Sample { path: format!("/{name}"), sum: digest::of(bytes) }
    }

    /// A file of `len` bytes that look random. Another name gives other bytes.
    #[track_caller]
    pub fn file(&self, name: &str, len: u64) -> Sample {
        let path = self.at(name);
        let seed = digest::of(name.as_bytes()).hash;
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(&path)?);
            pattern::write_to(&mut file, seed, len)?;
            file.into_inner()?;
            Ok(())
        };
        write().unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
        Sample { path: format!("/{name}"), sum: pattern::Pattern::sum(seed, len) }
    }

    /// A file of `len` bytes that is all holes but for a mark at its beginning, at its end, and on both sides
    /// of every GiB.
    #[track_caller]
    pub fn sparse(&self, name: &str, len: u64) -> Sample {
        const GIB: u64 = 1 << 30;
        let path = self.at(name);
        let make = || -> std::io::Result<Sum> {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.set_len(len)?;
            let marks = (0..=len / GIB).flat_map(|gib| [(gib * GIB).saturating_sub(4), gib * GIB + 4]);
            for at in marks.chain([len.saturating_sub(8)]).filter(|at| at + 8 <= len) {
                file.write_all_at(&at.wrapping_add(0x4d41_524b).to_le_bytes(), at)?;
            }
            digest::of_reader(&mut &file)
        };
        let sum = make().unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
        Sample { path: format!("/{name}"), sum }
    }

    /// A directory inside.
    #[track_caller]
    pub fn dir(&self, name: &str) {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
    }

    /// A symbolic link to `target`.
    #[track_caller]
    pub fn link(&self, name: &str, target: impl AsRef<Path>) {
        let path = self.at(name);
        std::os::unix::fs::symlink(target, &path)
            .unwrap_or_else(|e| panic!("linking {}: {e}", path.display()));
    }

    /// A FIFO that nobody writes to: opening it for reading waits for ever.
    #[track_caller]
    pub fn fifo(&self, name: &str) {
        let path = self.at(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o666),
            0,
        )
        .unwrap_or_else(|e| panic!("making the FIFO {}: {e}", path.display()));
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.root) {
            eprintln!("note: {} was left behind: {e}", self.root.display());
        }
    }
}
