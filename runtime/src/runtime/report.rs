//! What is in force on each core, and where its memory really lies.

use std::fmt;
use std::ops::Range;

use crate::numa::plan::PlannedCore;
use crate::numa::region::Placement;
use crate::numa::thread::ThreadPlacement;
use crate::numa::verify::{PageMap, where_pages_lie};
use crate::numa::{Error, NodeId};
use crate::ring::RingFeatures;

/// What a core had in force when it came up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoreReport {
    /// The core, as planned.
    pub core: PlannedCore,
    /// What its ring has.
    pub ring: RingFeatures,
    /// How its thread was placed.
    pub thread: Option<ThreadPlacement>,
    /// How its node's pool was placed.
    pub pool: Placement,
    /// Bytes of a buffer that a receive fills, and how many there are.
    pub recv_buffers: (usize, usize),
    /// Bytes of a [`Block`](crate::buf::Block), and how many there are.
    pub blocks: (usize, usize),
    /// Address ranges to look at.
    pub(crate) ranges: Vec<(&'static str, Range<usize>)>,
}

/// Where one stretch of a core's memory lies.
#[derive(Debug)]
#[non_exhaustive]
pub struct RegionReport {
    /// The core's index.
    pub core: usize,
    /// What it is: `pool`, `buffer ring`, `stack`, `tls`.
    pub name: &'static str,
    /// The node where it should lie.
    pub node: NodeId,
    /// Bytes.
    pub len: usize,
    /// Its pages, counted per node; or why they cannot be looked at.
    pub pages: Result<PageMap, Error>,
}

impl RegionReport {
    /// Whether every page that is present is known to lie on the right node.
    pub fn is_home(&self) -> bool {
        self.pages.as_ref().is_ok_and(|pages| pages.off(self.node) == 0 && pages.unknown == 0)
    }
}

/// The whole runtime at one moment. `Display` prints a line for each core and each region.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What each core has in force.
    pub cores: Vec<CoreReport>,
    /// Where each core's memory lies now.
    pub regions: Vec<RegionReport>,
}

impl Report {
    pub(super) fn look(cores: &[CoreReport]) -> Self {
        let regions = cores.iter().flat_map(|core| {
            core.ranges.iter().map(|(name, range)| RegionReport {
                core: core.core.index,
                name,
                node: core.core.memory,
                len: range.len(),
                pages: where_pages_lie(std::ptr::without_provenance(range.start), range.len()),
            })
        });
        Self { regions: regions.collect(), cores: cores.to_vec() }
    }

    /// Whether every region is at home.
    pub fn is_home(&self) -> bool {
        self.regions.iter().all(RegionReport::is_home)
    }
}

impl fmt::Display for CoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (core, ring) = (&self.core, &self.ring);
        write!(
            f,
            "core {}: CPU {}, node {}, memory of node {}",
            core.index, core.cpu, core.node, core.memory
        )?;
        write!(f, "; ring of {} SQEs and {} CQEs", ring.sq_entries, ring.cq_entries)?;
        let flags = [
            ("SINGLE_ISSUER", true),
            ("DEFER_TASKRUN", true),
            ("NO_SQARRAY", ring.no_sqarray),
            ("registered descriptor", ring.registered_fd),
            ("NO_IOWAIT", ring.no_iowait),
            ("io-wq pinned", ring.iowq_pinned),
        ];
        for (name, _) in flags.iter().filter(|(_, on)| *on) {
            write!(f, ", {name}")?;
        }
        for (name, _) in flags.iter().filter(|(_, on)| !*on) {
            write!(f, ", no {name}")?;
        }
        write!(f, "; at most {}+{} io-wq workers", ring.iowq_max_workers[0], ring.iowq_max_workers[1])?;
        let ((recv_size, recv), (block_size, blocks)) = (self.recv_buffers, self.blocks);
        write!(f, "; {recv} receive buffers of {recv_size} bytes, {blocks} blocks of {block_size} bytes")?;
        write!(f, "; pool {}", self.pool)
    }
}

impl fmt::Display for RegionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: {} of {} bytes belongs on node {}: ", self.core, self.name, self.len, self.node)?;
        match &self.pages {
            Ok(pages) => write!(f, "{pages}"),
            Err(e) => write!(f, "cannot be looked at: {e}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for core in &self.cores {
            writeln!(f, "{core}")?;
        }
        for region in &self.regions {
            writeln!(f, "{region}")?;
        }
        Ok(())
    }
}
