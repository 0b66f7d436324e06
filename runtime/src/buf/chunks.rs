//! Chunks that came and were not taken yet: lists, one a stream, through one table of the core.
//!
//! The table grows to the most chunks that ever waited at once, and what is free in it is used again, last first.

use std::cell::{Cell, RefCell};

/// No chunk.
const NONE: u32 = u32::MAX;

/// What came with one CQE: so many bytes of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(super) buffer: u16,
    /// Where it begins. Always 0 unless buffers are used up incrementally.
    pub(super) from: u16,
    pub(super) bytes: u32,
}

impl Part {
    pub(crate) fn bytes(self) -> u32 {
        self.bytes
    }
}

/// Chunks that came for one stream, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    first: u32,
    last: u32,
    len: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    /// Chunks in it.
    pub(crate) fn len(self) -> u32 {
        self.len
    }
}

struct Chunk {
    part: Part,
    next: u32,
}

/// The table.
pub(super) struct Chunks {
    table: RefCell<Vec<Chunk>>,
    /// The first of those that are free.
    free: Cell<u32>,
}

impl Chunks {
    /// With room for `count` before it has to move.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { table: RefCell::new(Vec::with_capacity(count)), free: Cell::new(NONE) }
    }

    /// Puts `part` at the end of the chain. False: it goes on where the last chunk ends, and has become a part of that.
    pub(super) fn push(&self, chain: &mut Chain, part: Part) -> bool {
        let mut table = self.table.borrow_mut();
        if chain.len > 0 {
            let last = &mut table[chain.last as usize].part;
            if last.buffer == part.buffer && u32::from(last.from) + last.bytes == part.from.into() {
                last.bytes += part.bytes;
                return false;
            }
        }
        let chunk = Chunk { part, next: NONE };
        let index = match self.free.get() {
            NONE => {
                table.push(chunk);
                (table.len() - 1) as u32
            }
            free => {
                let old = std::mem::replace(&mut table[free as usize], chunk);
                self.free.set(old.next);
                free
            }
        };
        if chain.len == 0 {
            chain.first = index;
        } else {
            table[chain.last as usize].next = index;
        }
        chain.last = index;
        chain.len += 1;
        true
    }

    /// The oldest of the chain.
    pub(super) fn pop(&self, chain: &mut Chain) -> Option<Part> {
        if chain.len == 0 {
            return None;
        }
        let index = chain.first;
        let chunk = &mut self.table.borrow_mut()[index as usize];
        chain.first = chunk.next;
        chain.len -= 1;
        chunk.next = self.free.replace(index);
        Some(chunk.part)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn part(buffer: u16, from: u16, bytes: u32) -> Part {
        Part { buffer, from, bytes }
    }

    #[test]
    fn chains_share_the_table_and_what_is_free_is_used_again() {
        let chunks = Chunks::with_capacity(1);
        let (mut a, mut b) = (Chain::EMPTY, Chain::EMPTY);
        for round in 0..100 {
            for buffer in 0..3 {
                assert!(chunks.push(&mut a, part(buffer, 0, 10 + round)));
                assert!(chunks.push(&mut b, part(100 + buffer, 0, 1)));
            }
            assert_eq!((a.len(), b.len()), (3, 3));
            for buffer in 0..3 {
                assert_eq!(chunks.pop(&mut a), Some(part(buffer, 0, 10 + round)));
                assert_eq!(chunks.pop(&mut b), Some(part(100 + buffer, 0, 1)));
            }
            assert_eq!((chunks.pop(&mut a), chunks.pop(&mut b)), (None, None));
        }
        assert_eq!(chunks.table.borrow().len(), 6);
    }

    #[test]
    fn what_goes_on_where_the_last_chunk_ends_is_one_with_it() {
        let chunks = Chunks::with_capacity(1);
        let mut chain = Chain::EMPTY;
        assert!(chunks.push(&mut chain, part(3, 0, 10)));
        assert!(!chunks.push(&mut chain, part(3, 10, 5)));
        assert!(chunks.push(&mut chain, part(3, 20, 1)), "another stream's bytes lie between");
        assert!(chunks.push(&mut chain, part(4, 21, 1)), "in another buffer");
        assert_eq!(chain.len(), 3);
        let all = [chunks.pop(&mut chain), chunks.pop(&mut chain), chunks.pop(&mut chain)];
        assert_eq!(all, [Some(part(3, 0, 15)), Some(part(3, 20, 1)), Some(part(4, 21, 1))]);
    }
}
