//! A node's pool: one region on the node, divided among the node's cores.
//!
//! The pool's own header (who has taken which share, how far it is carved) lies in the region itself, so it
//! is on the node. It has two cache lines for each core.

mod blocks;
mod share;

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::AtomicBool, atomic::AtomicUsize, atomic::Ordering},
};

pub use blocks::Blocks;
pub use share::{Carved, Share};

use crate::{
    CpuId, Error, NodeId, Result,
    plan::PlannedCore,
    region::{Backing, Region},
    sys, thread,
};

/// What the header says of one core's share. It takes 128 bytes, so that two cores never write to one cache
/// line, nor to its neighbour, which x86 fetches along with it.
#[repr(C, align(128))]
struct Record {
    /// Offset of the share's first byte from the region's start, in bytes.
    start: usize,
    /// Offset just after its last byte.
    end: usize,
    /// Offset of the first byte that has not been carved yet. Only the share's owner changes it.
    next: AtomicUsize,
    taken: AtomicBool,
}

/// The memory of one node, with one share for each of its cores.
#[derive(Debug)]
pub struct NodePool {
    region: Arc<Region>,
    cores: Vec<PlannedCore>,
}

impl NodePool {
    /// Makes the pool of the node that `cores` take their memory from, with `bytes_per_core` (rounded up to
    /// whole pages) for each. The region is made on a thread that is pinned to the first of the cores. On a
    /// node with too little free memory the pool is smaller: each share is an equal part of it, and
    /// [`Region::placement`] says so.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when there are no cores, when they take their memory
    /// from different nodes, or when the sizes do not fit into an address space. Otherwise the errors of
    /// [`Region::new`].
    pub fn new(cores: &[PlannedCore], bytes_per_core: usize) -> Result<Self> {
        Self::with_backing(cores, bytes_per_core, Backing::System)
    }

    /// Makes the pool with pages of a chosen size ([`Region::with_backing`]).
    ///
    /// # Errors
    /// As [`NodePool::new`].
    pub fn with_backing(cores: &[PlannedCore], bytes_per_core: usize, backing: Backing) -> Result<Self> {
        let (first, header, len) = measure(cores, bytes_per_core)?;
        let node = first.memory;
        let count = cores.len();
        let making = thread::spawn_pinned(format!("annulus-node{node}"), first, move || {
            let region = Region::with_backing(node, len, backing)?;
            lay_out(&region, count, header)?;
            Ok(Arc::new(region))
        })?;
        let region = making.join().map_err(|_| {
            Error::platform(format!("the thread that makes the pool of node {node} panicked; report this"))
        })??;
        Ok(Self { region, cores: cores.to_vec() })
    }

    /// Makes the pool without placing it: the region's pages come from wherever the calling thread's come
    /// from ([`Region::unplaced`]).
    ///
    /// # Errors
    /// As [`NodePool::new`].
    pub fn unplaced(cores: &[PlannedCore], bytes_per_core: usize) -> Result<Self> {
        let (first, header, len) = measure(cores, bytes_per_core)?;
        let region = Region::unplaced(first.memory, len)?;
        lay_out(&region, cores.len(), header)?;
        Ok(Self { region: Arc::new(region), cores: cores.to_vec() })
    }

    /// The node that the memory is asked from.
    pub fn node(&self) -> NodeId {
        self.region.node()
    }

    /// The cores that have a share.
    pub fn cores(&self) -> &[PlannedCore] {
        &self.cores
    }

    /// The memory itself, header included.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The share of a core. None when the core has no share here, or has taken it.
    pub fn take_share(&self, cpu: CpuId) -> Option<Share> {
        let index = self.cores.iter().position(|c| c.cpu == cpu)?;
        // SAFETY: `lay_out` wrote one record for each core at the region's start, which lives as long as
        // `self`.
        let record = unsafe { record(&self.region, index).as_ref() };
        // Relaxed: the flag guards who owns the share, and nothing was written to the share before.
        (!record.taken.swap(true, Ordering::Relaxed)).then(|| Share::new(Arc::clone(&self.region), index))
    }
}

/// The first of the cores, the length of the header and that of the region.
fn measure(cores: &[PlannedCore], bytes_per_core: usize) -> Result<(&PlannedCore, usize, usize)> {
    let Some(first) = cores.first() else {
        return Err(Error::input("a pool for no cores is asked for; give the cores of one node"));
    };
    if let Some(other) = cores.iter().find(|c| c.memory != first.memory) {
        return Err(Error::input(format!(
            "CPU {} takes its memory from node {} and CPU {} from node {}; make one pool for each node",
            first.cpu, first.memory, other.cpu, other.memory
        )));
    }
    let page = sys::page_size();
    let header = (cores.len() * size_of::<Record>()).next_multiple_of(page);
    let len = bytes_per_core
        .checked_next_multiple_of(page)
        .and_then(|share| share.max(page).checked_mul(cores.len()))
        .and_then(|shares| shares.checked_add(header))
        .ok_or_else(|| {
            Error::input(format!(
                "{bytes_per_core} bytes for each of {} cores is more than memory can be; ask for less",
                cores.len()
            ))
        })?;
    Ok((first, header, len))
}

/// Writes the header. Every core gets an equal part of what is there.
fn lay_out(region: &Region, cores: usize, header: usize) -> Result<()> {
    let page = sys::page_size();
    let share = region.len().saturating_sub(header) / cores / page * page;
    if share == 0 {
        return Err(Error::platform(format!(
            "node {} has {} bytes for the pool of {cores} cores, less than a page for each; free memory or use fewer cores",
            region.node(),
            region.len()
        )));
    }
    for index in 0..cores {
        let start = header + index * share;
        let new = Record {
            start,
            end: start + share,
            next: AtomicUsize::new(start),
            taken: AtomicBool::new(false),
        };
        // SAFETY: `header` has space for `cores` records, and nobody else knows the region yet.
        unsafe { record(region, index).write(new) };
    }
    Ok(())
}

/// The address of the `index`th core's record.
///
/// # Safety
/// The region starts with a pool's header of more than `index` records.
unsafe fn record(region: &Region, index: usize) -> NonNull<Record> {
    // SAFETY: a region's pointer is never null and page aligned; the caller promises that the record is
    // inside.
    unsafe { NonNull::new_unchecked(region.as_ptr().cast::<Record>()).add(index) }
}
