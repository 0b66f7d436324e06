//! What the system says about this process, under the names that Prometheus' libraries have for it.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A process, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessStatus {
    /// CPU time of all threads, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Memory that is there, in bytes.
    pub(crate) resident_bytes: u64,
    /// Address space, in bytes.
    pub(crate) virtual_bytes: u64,
    /// Open descriptors.
    pub(crate) open_fds: u64,
    /// How many there may be.
    pub(crate) max_fds: u64,
}

impl ProcessStatus {
    /// This process now. What /proc does not tell is 0.
    pub(crate) fn here() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split(' ').map(|number| number.parse().unwrap_or(0u64));
        let page = rustix::param::page_size() as u64;
        let (size, resident) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        ProcessStatus {
            cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9,
            resident_bytes: resident * page,
            virtual_bytes: size * page,
            // The descriptor that reads the directory is among them.
            open_fds: std::fs::read_dir("/proc/self/fd")
                .map_or(0, |fds| fds.count().saturating_sub(1) as u64),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(0),
        }
    }

    /// Adds another process.
    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.resident_bytes += other.resident_bytes;
        self.virtual_bytes += other.virtual_bytes;
        self.open_fds += other.open_fds;
        self.max_fds += other.max_fds;
    }
}
