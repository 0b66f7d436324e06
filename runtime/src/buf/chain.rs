//! Lists of buffers that need no memory of their own: a table of the core says for each buffer which one
//! follows it.
//!
//! A buffer is in at most one list: that of the stream it came for, or, if it is free, the
//! [stack](super::free_buffers).

use std::cell::Cell;

/// No buffer.
const NONE: u16 = u16::MAX;

/// Chunks that came for one stream, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    first: u16,
    last: u16,
    len: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    /// How many chunks it has.
    pub(crate) fn len(self) -> u32 {
        self.len
    }
}

/// What is known of a buffer that is in a list.
#[derive(Clone, Copy)]
struct Link {
    bytes: u32,
    next: u16,
}

/// The table.
pub(super) struct Links {
    links: Box<[Cell<Link>]>,
    /// The buffer that was last put on the stack.
    top: Cell<u16>,
}

impl Links {
    /// A table for this many buffers.
    pub(super) fn new(buffers: usize) -> Self {
        let links = vec![Cell::new(Link { bytes: 0, next: NONE }); buffers].into_boxed_slice();
        Self { links, top: Cell::new(NONE) }
    }

    /// A chain with a chunk of `bytes` bytes more.
    #[inline(always)]
    pub(super) fn push(&self, chain: Chain, index: u16, bytes: u32) -> Chain {
        self.links[usize::from(index)].set(Link { bytes, next: NONE });
        if chain.len == 0 {
            return Chain { first: index, last: index, len: 1 };
        }
        let last = &self.links[usize::from(chain.last)];
        last.set(Link { next: index, ..last.get() });
        Chain { last: index, len: chain.len + 1, ..chain }
    }

    /// Takes the oldest chunk off a chain: what is left of it, and the chunk's buffer and bytes.
    #[inline(always)]
    pub(super) fn next_of(&self, chain: Chain) -> Option<(Chain, u16, u32)> {
        if chain.len == 0 {
            return None;
        }
        let index = chain.first;
        let Link { bytes, next } = self.links[usize::from(index)].get();
        Some((Chain { first: next, len: chain.len - 1, ..chain }, index, bytes))
    }

    /// Puts a free buffer on the stack.
    pub(super) fn stack(&self, index: u16) {
        self.links[usize::from(index)].set(Link { bytes: 0, next: self.top.replace(index) });
    }

    /// Takes the last buffer off the stack: the one that was used most recently.
    pub(super) fn unstack(&self) -> Option<u16> {
        let index = self.top.get();
        if index == NONE {
            return None;
        }
        self.top.set(self.links[usize::from(index)].get().next);
        Some(index)
    }
}
