//! Buffers that are lent to the kernel by value.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;

use super::Block;
use crate::Error;

/// Initialised bytes that stay in place while their owner is moved: what a send may take.
///
/// It is implemented for types that own their bytes on the heap, alone or shared: `Vec<u8>`, `String`, `Box`,
/// `Rc` and `Arc` of slices, strings and arrays, [`Lease`](super::Lease), [`Block`](super::Block),
/// `bytes::Bytes` and `BytesMut` (feature `bytes`). It is also implemented for static data: `b"..."`,
/// `"..."`, `Cow<'static, _>`. For a type of your own use [`Owned`](super::Owned), which needs no unsafe
/// code.
///
/// Borrowed bytes cannot be lent: a future may be dropped or forgotten at any time, and the borrow would then
/// end while the kernel may still use it:
///
/// ```compile_fail
/// async fn reply(stream: &annulus::net::TcpStream, line: &mut Vec<u8>) -> annulus::Result<()> {
///     stream.send_all(&*line).await?; // give it: `std::mem::take(line)`, and have it back
///     annulus::Ok(())
/// }
/// ```
///
/// An array moves with its bytes, so it is lent in a box:
///
/// ```compile_fail
/// # async fn reply(stream: &annulus::net::TcpStream) -> annulus::Result<()> {
/// stream.send_all([1_u8, 2, 3]).await?;
/// # annulus::Ok(())
/// # }
/// ```
///
/// ```
/// # async fn reply(stream: &annulus::net::TcpStream) -> annulus::Result<()> {
/// stream.send_all(Box::new([1_u8, 2, 3])).await?;
/// stream.send_all(b"static").await?;
/// # annulus::Ok(())
/// # }
/// ```
///
/// # Safety
/// [`bytes`](Self::bytes) must give the same address and length each time, however `self` is moved between,
/// until `self` is dropped or its holder mutates it. Nothing may write those bytes meanwhile.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent to the kernel, because it does not own bytes that stay in place",
    label = "not a buffer that the kernel can read from",
    note = "give a buffer by value and have it back: `Vec<u8>` (`slice.to_vec()`, `std::mem::take(&mut vec)`), `String`, \
            `Arc<[u8]>`, `b\"...\"`, a `Lease` or a `Block`",
    note = "an array is lent as `Box::new(array)`, a type of your own as `annulus::buf::Owned::new(value)`, and \
            `bytes::Bytes` with the feature `bytes`"
)]
pub unsafe trait IoBuf: 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

/// Memory that the kernel may fill: what a read may take.
///
/// `Vec<u8>`, [`Block`](super::Block) and `bytes::BytesMut` (feature `bytes`) are filled behind what they
/// hold. Memory of a fixed size, such as an array, `Box<[u8]>` or a mapping, is filled from its beginning in
/// a [`Filled`](super::Filled).
///
/// ```compile_fail
/// async fn read(file: &annulus::fs::File, into: &mut [u8]) -> annulus::Result<usize> {
///     Ok(file.read_at(into, 0).await?.0) // give a `Vec::with_capacity(n)`
/// }
/// ```
///
/// # Safety
/// As for [`IoBuf`]: [`spare_capacity`](Self::spare_capacity) stays in place while `self` is moved, and
/// nobody else touches it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent to the kernel to be filled, because it does not own memory that stays in place",
    label = "not a buffer that the kernel can fill",
    note = "give `Vec::with_capacity(n)` or a `Block` by value and have it back; a `Vec` without spare capacity takes nothing",
    note = "an array, a boxed slice, or a type of your own is given as `annulus::buf::Filled::new(value)`, and \
            `bytes::BytesMut` with the feature `bytes`"
)]
pub unsafe trait IoBufMut: 'static {
    /// The memory to fill. It need not be initialised.
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>];

    /// The first `n` bytes of the spare capacity were filled.
    ///
    /// # Safety
    /// They are initialised.
    unsafe fn filled(&mut self, n: usize);
}

/// A buffer that is to be filled with at most `max` bytes.
pub(crate) struct AtMost<B> {
    pub(crate) buf: B,
    pub(crate) len: usize,
}

// SAFETY: its spare capacity is the beginning of the buffer's own.
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

/// The number of the registered buffer of this core's ring in which the memory of `buf` lies. Only blocks
/// have one. It is looked up by type, so that it is no method of a trait that others implement; the compiler
/// resolves it for each type.
pub(crate) fn registered(buf: &impl Any) -> Option<u16> {
    let buf: &dyn Any = buf;
    let of_prefix = || buf.downcast_ref::<AtMost<Block>>().map(|prefix| &prefix.buf);
    buf.downcast_ref::<Block>().or_else(of_prefix)?.fixed_index()
}

/// The error of a failed operation, with the buffer that it was given.
#[non_exhaustive]
pub struct BufError<B> {
    /// Why it failed.
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

/// Several buffers that are sent as one, in order: a head and a body, or any number of one kind.
///
/// # Safety
/// As for [`IoBuf`], for each of the buffers. [`each`](Self::each) shows the same buffers in the same order
/// each time.
pub unsafe trait IoBufs: 'static {
    /// Shows the bytes of each buffer, in order.
    fn each(&self, see: &mut dyn FnMut(&[u8]));

    /// The sum of their lengths.
    fn total(&self) -> usize {
        let mut total = 0;
        self.each(&mut |bytes| total += bytes.len());
        total
    }
}

/// The most buffers that one call may take (`IOV_MAX`, `writev(2)`). The others go with the next call.
const MAX_VECTORS: usize = 1024;

/// Where the bytes lie that come after the first `skip` bytes of all buffers together. `vectors` is emptied
/// first. The addresses are valid for as long as `bufs` is ([`IoBufs`]).
pub(crate) fn vectors_of<V: IoBufs>(bufs: &V, mut skip: usize, vectors: &mut Vec<libc::iovec>) {
    vectors.clear();
    bufs.each(&mut |bytes| {
        let gone = skip.min(bytes.len());
        skip -= gone;
        let rest = &bytes[gone..];
        if !rest.is_empty() && vectors.len() < MAX_VECTORS {
            // The kernel only reads them.
            vectors.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        }
    });
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

/// About as long as a block.
const COPIED_TO_HEAP: usize = 64 << 10;

/// The copy of a borrowed buffer.
pub(crate) enum Copied {
    Block(Block),
    Heap(Vec<u8>),
}

impl Copied {
    /// A copy of as much of `slices`, in order, as one block holds.
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

    /// Seen to fail: without the case of `AtMost`.
    #[test]
    fn blocks_and_their_prefixes_are_registered_and_nothing_else() {
        on_a_core(small(64), async || {
            let block = Block::take().expect("a block");
            let number = registered(&block);
            assert_eq!(number, block.fixed_index());
            assert!(number.is_some(), "the pool of a core is registered");
            let prefix = AtMost { buf: block, len: 10 };
            assert_eq!(registered(&prefix), number);
            assert_eq!(registered(&vec![1_u8]), None);
        });
    }
}
