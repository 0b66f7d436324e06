//! Memory policies, and where pages lie.

use std::ffi::c_void;
use std::io;
use std::ops::Range;

use libc::c_int;

use super::check;
use crate::set::{IdSet, Word};
use crate::{NodeId, NodeSet};

/// Absent from libc: Linux 5.15, mbind(2).
pub(crate) const MPOL_PREFERRED_MANY: c_int = 5;
/// Absent from libc: Linux 6.9.
pub(crate) const MPOL_WEIGHTED_INTERLEAVE: c_int = 6;
/// `MPOL_MF_MOVE` of mbind(2), absent from libc: move the process's own pages to where the policy wants them.
pub(crate) const MPOL_MF_MOVE: c_int = 2;
/// The bits above the mode in the value that get_mempolicy(2) gives: static, relative, NUMA balancing.
const MODE_FLAGS: c_int = (1 << 15) | (1 << 14) | (1 << 13);
/// `MAX_NUMNODES` is `1 << NODES_SHIFT` and NODES_SHIFT at most 10: get_mempolicy(2) demands a mask for all
/// of them.
const MAX_NODES: usize = 1024;

/// A memory policy as the kernel gives and takes it: mode, mode flags, nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    mode: c_int,
    flags: c_int,
    pub(crate) nodes: NodeSet,
}

impl Policy {
    pub(crate) fn new(mode: c_int, nodes: impl Into<NodeSet>) -> Self {
        Self { mode, flags: 0, nodes: nodes.into() }
    }

    /// The mode without its flags: one of `MPOL_*`.
    pub(crate) fn mode(&self) -> c_int {
        self.mode
    }
}

/// A node mask as the policy calls take it.
struct Nodemask(Vec<Word>);

impl Nodemask {
    fn new(nodes: &NodeSet) -> Self {
        Self(nodes.to_mask())
    }

    /// Null for the empty set: with a pointer and `maxnode` 0 the kernel counts down from 0 and answers
    /// EINVAL.
    fn as_ptr(&self) -> *const Word {
        if self.0.is_empty() { std::ptr::null() } else { self.0.as_ptr() }
    }

    fn maxnode(&self) -> usize {
        self.0.len() * Word::BITS as usize + 1
    }
}

/// The calling thread's memory policy.
pub(crate) fn policy() -> io::Result<Policy> {
    let mut mode: c_int = 0;
    let mut mask = [0 as Word; MAX_NODES / Word::BITS as usize];
    // SAFETY: the kernel writes one int and at most `maxnode - 1` bits, which is the size of `mask`; both
    // live across the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            mask.as_mut_ptr(),
            MAX_NODES + 1,
            std::ptr::null_mut::<c_void>(),
            0,
        )
    };
    check(rc)?;
    Ok(Policy { mode: mode & !MODE_FLAGS, flags: mode & MODE_FLAGS, nodes: IdSet::from_mask(&mask) })
}

/// Sets the calling thread's memory policy.
pub(crate) fn set_policy(policy: &Policy) -> io::Result<()> {
    PolicyToSet::new(policy).set()
}

/// A memory policy in the form that the kernel takes, so that setting it is a system call and nothing else.
pub(crate) struct PolicyToSet {
    mode: c_int,
    mask: Nodemask,
}

impl PolicyToSet {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { mode: policy.mode | policy.flags, mask: Nodemask::new(&policy.nodes) }
    }

    /// Sets it for the calling thread.
    pub(crate) fn set(&self) -> io::Result<()> {
        let mask = &self.mask;
        // SAFETY: the kernel reads `maxnode - 1` bits of `mask`, which is its size, and nothing through a
        // null pointer.
        let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, mask.as_ptr(), mask.maxnode()) };
        check(rc).map(drop)
    }
}

/// Sets the memory policy of a range of pages. A policy changes where pages lie, never what they hold, so any
/// range is safe: the kernel answers EFAULT for one that is not mapped.
pub(crate) fn mbind(range: Range<usize>, policy: &Policy, flags: c_int) -> io::Result<()> {
    let mask = Nodemask::new(&policy.nodes);
    // SAFETY: the kernel reads `maxnode - 1` bits of `mask`, and neither reads nor changes the bytes of
    // `range`.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            range.start,
            range.len(),
            policy.mode | policy.flags,
            mask.as_ptr(),
            mask.maxnode(),
            flags,
        )
    };
    check(rc).map(drop)
}

/// The node of each page address, or a negative errno (`-ENOENT`: never touched). It moves nothing.
pub(crate) fn query_pages(pages: &[usize], status: &mut [c_int]) -> io::Result<()> {
    assert_eq!(pages.len(), status.len());
    // SAFETY: the kernel reads `pages` and writes as many ints into `status`; with nodes = NULL it moves
    // nothing.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    check(rc).map(drop)
}

/// Asks the kernel to move each page to `node`. Afterwards `status` has the node of each, or a negative
/// errno. The kernel takes memory of that node only and fails when there is none: it never starts an OOM
/// kill.
pub(crate) fn move_pages_to(pages: &[usize], node: NodeId, status: &mut [c_int]) -> io::Result<()> {
    assert_eq!(pages.len(), status.len());
    let nodes = vec![node.0 as c_int; pages.len()];
    // SAFETY: the kernel reads `pages` and `nodes` and writes `status`, all of one length; moving a page
    // keeps its bytes and address.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MPOL_MF_MOVE,
        )
    };
    check(rc).map(drop)
}
