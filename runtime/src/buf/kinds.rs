//! The types that are buffers.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

use super::{Block, IoBuf, IoBufMut, Lease};

macro_rules! heap_buffers {
    ($([$($generics:tt)*] $type:ty: $bytes:ident),+ $(,)?) => {$(
        // SAFETY: the bytes lie in an allocation of their own. Moving the handle does not move it, and nobody
        // writes it: the handle owns it, or shares it with others that read.
        unsafe impl<$($generics)*> IoBuf for $type {
            fn bytes(&self) -> &[u8] {
                self.$bytes()
            }
        }
    )+};
}

heap_buffers!(
    [] Vec<u8>: as_ref, [] String: as_bytes,
    [] Box<[u8]>: as_ref, [] Box<str>: as_bytes, [const N: usize] Box<[u8; N]>: as_slice,
    [] Rc<[u8]>: as_ref, [] Rc<str>: as_bytes, [const N: usize] Rc<[u8; N]>: as_slice,
    [] Arc<[u8]>: as_ref, [] Arc<str>: as_bytes, [const N: usize] Arc<[u8; N]>: as_slice,
    [] Rc<Vec<u8>>: as_slice, [] Rc<String>: as_bytes,
    [] Arc<Vec<u8>>: as_slice, [] Arc<String>: as_bytes,
);

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

// SAFETY: static memory does not move.
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn bytes(&self) -> &[u8] {
        *self
    }
}

// SAFETY: static, or a `Vec`.
unsafe impl IoBuf for Cow<'static, [u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: static, or a `String`.
unsafe impl IoBuf for Cow<'static, str> {
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

/// A `Vec` is filled behind what it holds: its spare capacity is filled, and its length grows by what came.
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
// SAFETY: the spare bytes are the rest of the block, which only this handle can reach.
unsafe impl IoBufMut for Block {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare()
    }

    unsafe fn filled(&mut self, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { self.grow(n) };
    }
}

// SAFETY: the bytes lie on the heap or are static (the crate keeps none inline; for an owner that it was
// given it keeps the slice that the owner had when it was boxed). No handle can write them.
#[cfg(feature = "bytes")]
unsafe impl IoBuf for bytes::Bytes {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes lie on the heap, and only this handle has this range of them.
#[cfg(feature = "bytes")]
unsafe impl IoBuf for bytes::BytesMut {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Filled behind what it holds, as a `Vec` is.
// SAFETY: the spare capacity lies on the heap, behind the bytes, and is this handle's alone.
#[cfg(feature = "bytes")]
unsafe impl IoBufMut for bytes::BytesMut {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare_capacity_mut()
    }

    unsafe fn filled(&mut self, n: usize) {
        let len = self.len() + n;
        // SAFETY: the caller says that `n` bytes behind the old length are initialised.
        unsafe { self.set_len(len) };
    }
}
