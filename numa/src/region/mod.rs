//! Memory on one node: mapped, populated, verified, bound, and verified again, before anyone uses it.

mod backing;
mod build;
pub(crate) mod headroom;
mod mapping;

use std::{fmt, ops::Range, ptr::NonNull, sync::Arc};

pub use backing::Backing;

use crate::{NodeId, Result, contained::told, sys, verify::PageMap};

/// How a region was placed, from the best way to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// Its policy is MPOL_BIND: the kernel keeps its pages on the node.
    Bound,
    /// Its policy is "preferred": its pages were put on the node, but the kernel may move them later.
    Preferred,
    /// It has no policy of its own: a thread pinned to the node touched its pages first.
    FirstTouch,
    /// Nobody placed it, as was asked: its pages lie where the thread that made it ran.
    Unplaced,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bound => "bound",
            Self::Preferred => "preferred",
            Self::FirstTouch => "first touch",
            Self::Unplaced => "not placed",
        })
    }
}

/// What was done to place a region, and where its pages lay afterwards.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Placement {
    /// The way it was placed.
    pub rung: Rung,
    /// The node that was asked for.
    pub node: NodeId,
    /// What backs it: never [`Backing::Auto`].
    pub backing: Backing,
    /// Where the pages lay at the last check.
    pub pages: PageMap,
    /// Why the rung is not [`Rung::Bound`], or the region is smaller than asked. None when all is as asked.
    pub reason: Option<String>,
    /// What a person can do about it.
    pub remedy: Option<String>,
}

/// One line, such as `node 1, bound: 4096 pages: 4096 on node 1 (by move_pages)`, with reason and remedy
/// where there are some.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}, {}", self.node, self.rung)?;
        if self.backing != Backing::System {
            write!(f, ", {} pages", self.backing)?;
        }
        write!(f, ": {}", self.pages)?;
        if let Some(reason) = &self.reason {
            write!(f, "; {reason}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

/// Memory of one node. It is page aligned, zeroed, present, and kept out of forked children, with a page
/// before and after it that nobody may touch. Dropping it gives the memory back.
///
/// The bytes belong to the owner of the region; it hands out only its address, never a reference.
#[derive(Debug)]
pub struct Region {
    memory: NonNull<u8>,
    len: usize,
    /// The mapping, with the page before and the page after.
    mapping: Range<usize>,
    placement: Placement,
}

// SAFETY: a region is an address range that it alone unmaps; it never reads or writes the bytes, and its
// other fields are plain data.
unsafe impl Send for Region {}
// SAFETY: as above: nothing behind a shared reference changes.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region of `len_bytes`, rounded up to whole pages, on `node`. **Call it on a thread that is
    /// pinned to the node** ([`spawn_pinned`](crate::thread::spawn_pinned)): where a container refuses
    /// mbind(2), the pages come from the node of the CPU that touches them first.
    ///
    /// The steps, in this order:
    /// 1. It is mapped with a preference: with the feature `libnuma` by `numa_set_bind_policy(0)` and
    ///    `numa_alloc_onnode`, without it by mmap(2) and mbind(2) with MPOL_PREFERRED_MANY (Linux 5.15),
    ///    which are the calls that libnuma makes. Populating under a *binding* on a full node ends in an OOM
    ///    kill; under a preference it spills to other nodes.
    /// 2. It is populated in steps, never more than is available.
    /// 3. The pages are verified. Those that spilled are moved to the node. If that fails, the node is full:
    ///    everything from there on is given back, and the region is smaller than asked and says so.
    /// 4. mbind(2) with MPOL_BIND and MPOL_MF_MOVE fixes the policy: later reclaim and migration keep the
    ///    pages there.
    /// 5. The pages are verified again, because mbind's zero proves nothing.
    ///
    /// Only then should anyone pin it (register it with a ring): pinned pages cannot be moved.
    ///
    /// MADV_POPULATE_WRITE needs Linux 5.14; before that pages are touched one by one. mbind(2),
    /// move_pages(2), madvise(2), numa(3).
    ///
    /// # Errors
    /// - [`ErrorKind::Input`](crate::ErrorKind::Input) when the node does not exist, has no memory, lies
    ///   outside the cpuset or outside the binding that the process was started with, or when the length is
    ///   zero.
    /// - [`ErrorKind::Platform`](crate::ErrorKind::Platform) when there is not enough memory for even one
    ///   page of it.
    pub fn new(node: NodeId, len_bytes: usize) -> Result<Self> {
        build::region(node, len_bytes, Backing::System)
    }

    /// Makes a region with pages of a chosen size. Lengths are rounded up to whole huge pages where there are
    /// some. If the node has not enough reserved huge pages they are replaced by transparent ones, and
    /// [`Placement::reason`] says so: faulting in reserved ones where there are none would be a SIGBUS.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn with_backing(node: NodeId, len_bytes: usize, backing: Backing) -> Result<Self> {
        build::region(node, len_bytes, backing)
    }

    /// Makes a region without placing it: its pages come from wherever the calling thread's come from. `node`
    /// is where they would belong, and [`Placement`] compares with it. It is there to compare with
    /// [`Region::new`].
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn unplaced(node: NodeId, len_bytes: usize) -> Result<Self> {
        build::unplaced(node, len_bytes)
    }

    /// Its first byte. The address stays the same for its life.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Its length in bytes: what was asked for rounded up to whole pages, or less when the node is full
    /// ([`Placement::reason`] says so).
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The node that it was asked for.
    pub fn node(&self) -> NodeId {
        self.placement.node
    }

    /// How it was placed and where its pages lay then. For where they lie now, ask
    /// [`where_pages_lie`](crate::verify::where_pages_lie).
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Shares it. Every piece of memory that is given out of it keeps it alive.
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own, and whoever uses bytes of it keeps the region alive.
        if let Err(e) = unsafe { sys::unmap(self.mapping.clone()) } {
            told(|| {
                tracing::error!(error = %e, mapping = ?self.mapping, "a region could not be unmapped; its memory stays taken");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail, by an abort: with the event as it is.
    #[test]
    fn a_subscriber_that_panics_over_a_region_may_do_so_while_its_thread_panics() {
        let mut region = Region::unplaced(NodeId(0), 1 << 16).unwrap();
        // No mapping begins there: munmap(2) says EINVAL, and the memory stays until the process ends.
        region.mapping = region.mapping.start + 1..region.mapping.end;
        crate::contained::tests::dropped_by_a_panic(region);
    }
}
