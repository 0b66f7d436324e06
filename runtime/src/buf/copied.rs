//! Bytes that were copied to be lent to the kernel: into a block of the core's pool, or onto its heap when all are out.

use super::{Block, IoBuf};

/// As long as a block is, about.
const HEAP: usize = 64 << 10;

/// What a borrowed buffer was copied to.
pub(crate) enum Copied {
    Block(Block),
    Heap(Vec<u8>),
}

impl Copied {
    /// As much of `slices`, one behind the other, as one block holds.
    pub(crate) fn of<'a>(slices: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        match Block::take() {
            Some(mut block) => {
                for slice in slices {
                    if block.extend_from_slice(slice) < slice.len() {
                        break;
                    }
                }
                Self::Block(block)
            }
            None => {
                let total = slices.clone().map(<[u8]>::len).sum::<usize>().min(HEAP);
                let mut heap = Vec::with_capacity(total);
                for slice in slices {
                    heap.extend_from_slice(&slice[..slice.len().min(total - heap.len())]);
                }
                Self::Heap(heap)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }
}

// SAFETY: each kind promises it for itself, and a value does not change its kind.
unsafe impl IoBuf for Copied {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Block(block) => block.bytes(),
            Self::Heap(heap) => heap.bytes(),
        }
    }
}
