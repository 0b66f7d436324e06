//! Where in a file bytes are read from the disk, so that the ring does it.
//!
//! Whoever reads on in a file has the kernel read ahead: up to `read_ahead_kb` of the disk, for which pages
//! are found and requests are made by whoever came to the mark. A core that sends what is in memory already
//! would come to it too, also when it only asks (`RWF_NOWAIT` does not keep the kernel from it). That took up
//! to 9 ms of the core at once (8 MiB ahead, memory nearly full of page cache, Linux 6.18), and 40% of all
//! its time. So what lies behind bytes that were not in memory is left to the ring as well, and its workers
//! read ahead.

use std::os::fd::AsFd;

use crate::fs::{File, cached};

/// The stretch behind a byte that was not in memory, in bytes. If all of it is in memory, that is not because
/// it was read ahead.
const STRETCH: u64 = 16 << 20;

/// What is known of a file while parts of it are sent.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// The ring reads up to this offset; 0 if the core may send.
    until: u64,
}

impl Cold {
    /// The byte `at` is not in memory.
    pub(super) fn begin(&mut self, at: u64) {
        self.until = at.saturating_add(STRETCH);
    }

    /// Whether the byte `at` is left to the ring. At the end of a stretch the page cache is asked about the
    /// next one.
    pub(super) fn has(&mut self, file: &File, at: u64) -> bool {
        if self.until == 0 || at < self.until {
            return self.until != 0;
        }
        // Without a size nothing is known, and the ring is never wrong.
        let left = file.stat_now().map_or(u64::MAX, |stat| stat.size.saturating_sub(at));
        let stretch = left.min(STRETCH);
        if cached(file.as_fd(), at, stretch, stretch) < stretch {
            self.begin(at);
        } else {
            self.until = 0;
        }
        self.until != 0
    }
}
