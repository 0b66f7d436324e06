//! Buffers that are lent to the kernel by value.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

use super::{Block, Lease};
use crate::Error;

/// Initialised bytes that stay where they are while their owner is moved about: what a send may take.
///
/// # Safety
/// [`bytes`](Self::bytes) must give the same address and length each time, whatever moves of `self` happen
/// between, until `self` is dropped or mutated by the one who holds it; and nothing may write those bytes
/// meanwhile.
pub unsafe trait IoBuf: 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

/// Room that the kernel may fill: what a read may take.
///
/// # Safety
/// As for [`IoBuf`]: [`spare_capacity`](Self::spare_capacity) stays at its place while `self` is moved about,
/// and nobody else touches it.
pub unsafe trait IoBufMut: 'static {
    /// The room to fill. It need not be initialised.
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>];

    /// The first `n` bytes of the room were filled.
    ///
    /// # Safety
    /// They were.
    unsafe fn filled(&mut self, n: usize);
}

macro_rules! heap_buffers {
    ($($type:ty),+) => {$(
        // SAFETY: the bytes lie in an allocation of their own, which moving the handle does not move.
        unsafe impl IoBuf for $type {
            fn bytes(&self) -> &[u8] {
                self.as_ref()
            }
        }
    )+};
}

heap_buffers!(Vec<u8>, Box<[u8]>, Arc<[u8]>, Rc<[u8]>, String);

// SAFETY: static memory does not move.
unsafe impl IoBuf for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: static memory does not move.
unsafe impl IoBuf for &'static str {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: a lease points into its core's region, and nobody writes the block while a lease on it is out.
unsafe impl IoBuf for Lease {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: a block points into its core's region and is the only handle to its bytes.
unsafe impl IoBuf for Block {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A `Vec` is filled behind what it holds: its spare capacity is the room, and its length grows by what came.
// SAFETY: the spare capacity lies in the vector's own allocation.
unsafe impl IoBufMut for Vec<u8> {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare_capacity_mut()
    }

    unsafe fn filled(&mut self, n: usize) {
        let len = self.len() + n;
        // SAFETY: the caller says that `n` bytes behind the old length are initialised.
        unsafe { self.set_len(len) };
    }
}

/// A [`Block`] is filled behind what it holds, as a `Vec` is.
// SAFETY: the room is the rest of the block, which only this handle names.
unsafe impl IoBufMut for Block {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare()
    }

    unsafe fn filled(&mut self, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { self.grow(n) };
    }
}

/// A buffer of which only the first so many bytes of its room are to be filled.
pub(crate) struct AtMost<B> {
    pub(crate) buf: B,
    pub(crate) len: usize,
}

// SAFETY: the room is the beginning of the buffer's own.
unsafe impl<B: IoBufMut> IoBufMut for AtMost<B> {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        let spare = self.buf.spare_capacity();
        let len = self.len.min(spare.len());
        &mut spare[..len]
    }

    unsafe fn filled(&mut self, n: usize) {
        self.len -= n;
        // SAFETY: handed on to the caller.
        unsafe { self.buf.filled(n) };
    }
}

/// The number of the buffer, registered with this core's ring, in which the memory of `buf` lies: only blocks
/// have one. By type, so that it is no method of a trait that others implement; the compiler knows the answer
/// for each type.
pub(crate) fn registered(buf: &impl Any) -> Option<u16> {
    let buf: &dyn Any = buf;
    let of_part = || buf.downcast_ref::<AtMost<Block>>().map(|part| &part.buf);
    buf.downcast_ref::<Block>().or_else(of_part)?.fixed_index()
}

/// An operation failed, and here is the buffer it was given.
#[non_exhaustive]
pub struct BufError<B> {
    /// Why.
    pub error: Error,
    /// The buffer, as it was handed in.
    pub buf: B,
}

impl<B> BufError<B> {
    pub(crate) fn new(error: Error, buf: B) -> Self {
        Self { error, buf }
    }

    pub(crate) fn io(what: &'static str, error: io::Error, buf: B) -> Self {
        Self { error: Error::io(what, error), buf }
    }
}

impl<B> fmt::Debug for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> std::error::Error for BufError<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl<B> From<BufError<B>> for Error {
    fn from(e: BufError<B>) -> Self {
        e.error
    }
}

/// Buffers that are sent one behind the other, as one: a head and a body, or any number of one kind.
///
/// # Safety
/// As for [`IoBuf`], for each of the buffers; and [`each`](Self::each) shows the same ones in the same order
/// each time.
pub unsafe trait IoBufs: 'static {
    /// Shows the bytes of each buffer, in order.
    fn each(&self, see: &mut dyn FnMut(&[u8]));

    /// Bytes of all of them.
    fn total(&self) -> usize {
        let mut total = 0;
        self.each(&mut |bytes| total += bytes.len());
        total
    }
}

// SAFETY: each is an `IoBuf`; the vector moves the handles, not the bytes.
unsafe impl<B: IoBuf> IoBufs for Vec<B> {
    fn each(&self, see: &mut dyn FnMut(&[u8])) {
        self.iter().for_each(|buf| see(buf.bytes()));
    }
}

// SAFETY: each is an `IoBuf`.
unsafe impl<B: IoBuf, const N: usize> IoBufs for [B; N] {
    fn each(&self, see: &mut dyn FnMut(&[u8])) {
        self.iter().for_each(|buf| see(buf.bytes()));
    }
}

// SAFETY: both are `IoBuf`s.
unsafe impl<A: IoBuf, B: IoBuf> IoBufs for (A, B) {
    fn each(&self, see: &mut dyn FnMut(&[u8])) {
        see(self.0.bytes());
        see(self.1.bytes());
    }
}

/// As long as a block is, about.
const COPIED_TO_HEAP: usize = 64 << 10;

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
                let total = slices.clone().map(<[u8]>::len).sum::<usize>().min(COPIED_TO_HEAP);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::{on_a_core, small};

    /// Seen to fail: without the look at a part of a block.
    #[test]
    fn blocks_and_parts_of_them_are_registered_and_nothing_else() {
        on_a_core(small(64), async || {
            let block = Block::take().expect("a block");
            let number = registered(&block);
            assert_eq!(number, block.fixed_index());
            assert!(number.is_some(), "the pool of a core is registered");
            let part = AtMost { buf: block, len: 10 };
            assert_eq!(registered(&part), number);
            assert_eq!(registered(&vec![1_u8]), None);
        });
    }
}
