//! A file's metadata.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A FIFO, a device, a socket, a symbolic link.
    Other,
}

/// A file's metadata (`statx(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that it takes on the disk: fewer than `size` where it has holes.
    pub allocated: u64,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// When anything of it was last changed: its content, owner, permissions or names (`ctime`). Nobody can
    /// set this time.
    pub changed: SystemTime,
    /// When it was last read, as far as the file system records that.
    pub accessed: SystemTime,
    /// When it was made. `None` where the file system does not know, and from
    /// [`stat_now`](super::File::stat_now).
    pub created: Option<SystemTime>,
    /// Permission bits.
    pub mode: u32,
    /// How many names it has.
    pub links: u64,
    /// Its owner: user and group number.
    pub owner: (u32, u32),
    /// The number of its file system's device (`makedev(3)`).
    pub device: u64,
    /// Inode number; with the device it names the file.
    pub inode: u64,
}

impl Stat {
    /// Whether `other` is of the same file, and as far as can be told nothing of it has changed in between:
    /// neither content nor owner nor permissions. A file system counts its times in ticks (4 ms are usual),
    /// so a second change within one tick is not noticed.
    pub fn is_unchanged(&self, other: &Stat) -> bool {
        let identity = |s: &Stat| (s.device, s.inode, s.kind, s.mode, s.owner, s.links, s.size);
        self.changed == other.changed && self.modified == other.modified && identity(self) == identity(other)
    }
}

fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(u64::from(nanoseconds))
}

fn kind(mode: u32) -> FileKind {
    match mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        _ => FileKind::Other,
    }
}

/// Blocks of `stat(2)` are of 512 bytes, whatever the file system's are.
const STAT_BLOCK: u64 = 512;

impl From<&libc::statx> for Stat {
    fn from(s: &libc::statx) -> Self {
        let mode = u32::from(s.stx_mode);
        let born = s.stx_mask & libc::STATX_BTIME != 0;
        Self {
            kind: kind(mode),
            size: s.stx_size,
            allocated: s.stx_blocks.saturating_mul(STAT_BLOCK),
            modified: time(s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
            changed: time(s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec),
            accessed: time(s.stx_atime.tv_sec, s.stx_atime.tv_nsec),
            created: born.then(|| time(s.stx_btime.tv_sec, s.stx_btime.tv_nsec)),
            mode: mode & 0o7777,
            links: u64::from(s.stx_nlink),
            owner: (s.stx_uid, s.stx_gid),
            device: libc::makedev(s.stx_dev_major, s.stx_dev_minor),
            inode: s.stx_ino,
        }
    }
}

impl From<&rustix::fs::Stat> for Stat {
    // `st_nlink` has 64 bits on x86-64 and 32 on aarch64.
    #[allow(clippy::unnecessary_cast)]
    fn from(s: &rustix::fs::Stat) -> Self {
        Self {
            kind: kind(s.st_mode),
            size: s.st_size as u64,
            allocated: (s.st_blocks as u64).saturating_mul(STAT_BLOCK),
            modified: time(s.st_mtime, s.st_mtime_nsec as u32),
            changed: time(s.st_ctime, s.st_ctime_nsec as u32),
            accessed: time(s.st_atime, s.st_atime_nsec as u32),
            created: None,
            mode: s.st_mode & 0o7777,
            links: s.st_nlink as u64,
            owner: (s.st_uid, s.st_gid),
            device: s.st_dev,
            inode: s.st_ino,
        }
    }
}
