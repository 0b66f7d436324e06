//! Advice to the kernel about how a file will be read.

/// How a file will be read (`posix_fadvise(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// With no known pattern.
    Normal,
    /// From front to back. The kernel reads further ahead.
    Sequential,
    /// At random offsets. The kernel does not read ahead.
    Random,
    /// Soon. The kernel begins to read now.
    WillNeed,
    /// Not again. Pages that need not be written are dropped from the page cache.
    DontNeed,
}

impl Advice {
    /// `POSIX_FADV_*`.
    pub(super) fn as_raw(self) -> i32 {
        match self {
            Advice::Normal => libc::POSIX_FADV_NORMAL,
            Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Advice::Random => libc::POSIX_FADV_RANDOM,
            Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
            Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
        }
    }
}
