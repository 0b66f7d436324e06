//! Where pages really lie. A policy is only a wish, and a zero from mbind(2) proves nothing; the pages are
//! the proof.
//!
//! There are three ways to find out, tried in this order:
//! 1. move_pages(2) without target nodes is exact for each page, and touches nothing. Docker's default
//!    seccomp profile refuses it.
//! 2. /proc/self/numa_maps is exact for a whole mapping. A range that is only part of one is known if the
//!    mapping's pages all lie on one node, and else counts as unknown.
//! 3. Where the machine has only one node with memory (or the kernel knows no NUMA), every page that is
//!    present is on it. /proc/self/pagemap says which are present.

mod numa_maps;
mod own;

use std::{collections::BTreeMap, fmt, ops::Range};

pub(crate) use numa_maps::mapping;
pub use own::{
    bring_home, heap_of_current_thread, mapping_of, stack_of_current_thread,
    thread_descriptor_of_current_thread, tls_of_current_thread,
};
pub(crate) use own::{bring_own_home, move_home};

use crate::{NodeId, Result, sys, topology::sysfs::Sysfs};

/// How the pages' nodes were found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// move_pages(2): exact.
    MovePages,
    /// /proc/self/numa_maps: exact for whole mappings.
    NumaMaps,
    /// There is only one node with memory.
    OneNode,
    /// Not at all: every way was refused.
    Blind,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MovePages => "by move_pages",
            Self::NumaMaps => "by numa_maps",
            Self::OneNode => "the only node",
            Self::Blind => "no way to find out is allowed",
        })
    }
}

/// Where the pages of a range lie, counted in pages of the system's base size (4 KiB on x86-64).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageMap {
    /// Pages on each node.
    pub per_node: BTreeMap<NodeId, usize>,
    /// Pages that hold no memory yet (never written, or swapped out).
    pub absent: usize,
    /// Pages that have memory, on a node that cannot be told.
    pub unknown: usize,
    /// How the counts were found out.
    pub how: How,
    /// The errno of move_pages(2) when it was refused.
    pub refused: Option<i32>,
}

impl PageMap {
    pub(crate) fn new(how: How) -> Self {
        Self { per_node: BTreeMap::new(), absent: 0, unknown: 0, how, refused: None }
    }

    /// Pages on `node`.
    pub fn on(&self, node: NodeId) -> usize {
        self.per_node.get(&node).copied().unwrap_or(0)
    }

    /// Pages known to lie on another node than `node`.
    pub fn off(&self, node: NodeId) -> usize {
        self.per_node.iter().filter(|&(&n, _)| n != node).map(|(_, pages)| pages).sum()
    }

    /// All pages of the range.
    pub fn pages(&self) -> usize {
        self.per_node.values().sum::<usize>() + self.absent + self.unknown
    }

    /// Whether every page is present, known, and on `node`.
    pub fn all_on(&self, node: NodeId) -> bool {
        self.on(node) == self.pages()
    }

    fn count(&mut self, node: NodeId, pages: usize) {
        if pages > 0 {
            *self.per_node.entry(node).or_default() += pages;
        }
    }
}

/// One line: `4096 pages: 4090 on node 0, 6 on node 1 (by move_pages)`.
impl fmt::Display for PageMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.pages();
        write!(f, "{pages} page{}: ", if pages == 1 { "" } else { "s" })?;
        let mut parts: Vec<String> =
            self.per_node.iter().map(|(node, pages)| format!("{pages} on node {node}")).collect();
        parts.extend((self.absent > 0).then(|| format!("{} without memory", self.absent)));
        parts.extend((self.unknown > 0).then(|| format!("{} unknown", self.unknown)));
        if parts.is_empty() {
            parts.push("none".into());
        }
        write!(f, "{} ({}", parts.join(", "), self.how)?;
        if let Some(errno) = self.refused {
            write!(f, ", move_pages being refused: {}", std::io::Error::from_raw_os_error(errno))?;
        }
        f.write_str(")")
    }
}

/// Where the pages of a range lie. Nothing is touched, moved or made present. The range need not be page
/// aligned. Any address may be given: what is not mapped counts as absent.
///
/// # Errors
/// It has none today: where every way is refused the pages are reported as unknown, with [`How::Blind`] and
/// the errno. The `Result` is for later kernels that may answer something new, such as ENOMEM.
pub fn where_pages_lie(ptr: *const u8, len: usize) -> Result<PageMap> {
    let range = whole_pages(ptr.addr(), len);
    let refused = match ask_each_page(range.clone()) {
        Ok((map, _)) => return Ok(map),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
            e.raw_os_error()
        }
        Err(e) => {
            return Err(crate::Error::io(
                format_args!("cannot find out where {} pages at {ptr:p} lie (move_pages)", range.len()),
                e,
                "see move_pages(2)",
            ));
        }
    };
    let mut map = numa_maps::read(range.clone())
        .or_else(|| one_node(range.clone()))
        .unwrap_or_else(|| PageMap { unknown: range.len() / sys::page_size(), ..PageMap::new(How::Blind) });
    map.refused = refused;
    Ok(map)
}

/// The page-aligned range that covers `len` bytes at `start`.
fn whole_pages(start: usize, len: usize) -> Range<usize> {
    if len == 0 {
        return start..start;
    }
    let page = sys::page_size();
    let end = start.saturating_add(len).checked_next_multiple_of(page).unwrap_or(usize::MAX & !(page - 1));
    start & !(page - 1)..end
}

/// The map, and the addresses of pages with the node of each that has one.
pub(crate) fn ask_each_page(range: Range<usize>) -> std::io::Result<(PageMap, Vec<(usize, NodeId)>)> {
    /// Pages in one call: 16 KiB of addresses.
    const BATCH: usize = 2048;
    let mut map = PageMap::new(How::MovePages);
    let mut placed = Vec::new();
    let addresses: Vec<usize> = range.step_by(sys::page_size()).collect();
    let mut status = [0; BATCH];
    for batch in addresses.chunks(BATCH) {
        let status = &mut status[..batch.len()];
        sys::query_pages(batch, status)?;
        for (&address, &answer) in batch.iter().zip(status.iter()) {
            match u32::try_from(answer) {
                Ok(node) => {
                    map.count(NodeId(node), 1);
                    placed.push((address, NodeId(node)));
                }
                // ENOENT: never touched. EFAULT: not mapped, or the shared page of zeroes, which belongs to
                // no process.
                Err(_) if matches!(-answer, libc::ENOENT | libc::EFAULT) => map.absent += 1,
                Err(_) => map.unknown += 1,
            }
        }
    }
    Ok((map, placed))
}

/// The map of a machine with one node that has memory; None when it has more or says nothing.
fn one_node(range: Range<usize>) -> Option<PageMap> {
    let node = match Sysfs::at("/sys").nodes_with_memory().ok()? {
        None => NodeId(0),
        Some(nodes) if nodes.len() == 1 => nodes.first()?,
        Some(_) => return None,
    };
    let present = numa_maps::present_pages(range.clone())?;
    let mut map = PageMap::new(How::OneNode);
    map.count(node, present);
    map.absent = range.len() / sys::page_size() - present;
    Some(map)
}
