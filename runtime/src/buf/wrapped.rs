//! The application's own types, lent to the kernel without unsafe code in the application.
//!
//! A type is asked for its bytes once, and the answer is kept. The value is on the heap, and nobody can
//! change it until it is given back. So a second, different answer cannot matter, although a safe trait does
//! not exclude one.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{IoBuf, IoBufMut};

/// A value on the heap, and the bytes that it showed.
///
/// The pointers are raw: moving a `Box` asserts unique access to its content, which would invalidate earlier
/// borrows of it.
struct Shown<T> {
    value: NonNull<T>,
    bytes: NonNull<[u8]>,
}

impl<T> Shown<T> {
    fn new(value: T, bytes: impl FnOnce(NonNull<T>) -> NonNull<[u8]>) -> Self {
        let value = NonNull::from(Box::leak(Box::new(value)));
        // The value is in its place before the application's code is called: a panic of `bytes` drops it.
        let mut shown = Self { value, bytes: NonNull::from(&mut [] as &mut [u8]) };
        shown.bytes = bytes(value);
        shown
    }

    fn into_inner(self) -> T {
        let value = std::mem::ManuallyDrop::new(self).value;
        // SAFETY: it came out of a box (`new`), and the bytes are not used any more.
        *unsafe { Box::from_raw(value.as_ptr()) }
    }
}

impl<T> Drop for Shown<T> {
    fn drop(&mut self) {
        // SAFETY: it came out of a box, and `into_inner` does not drop `self`.
        drop(unsafe { Box::from_raw(self.value.as_ptr()) });
    }
}

// SAFETY: it owns its value, as a box does, and the bytes are the value's.
unsafe impl<T: Send> Send for Shown<T> {}

// SAFETY: as for a box: a shared reference gives a shared value, and bytes that do not change.
unsafe impl<T: Sync> Sync for Shown<T> {}

/// A value of any type that shows bytes, as a buffer to send: a mapped file, a shared string, a type of your
/// own that is `AsRef<[u8]>`.
///
/// ```
/// use std::rc::Rc;
/// use annulus::buf::{IoBuf, Owned};
///
/// struct Line(Rc<String>);
///
/// impl AsRef<[u8]> for Line {
///     fn as_ref(&self) -> &[u8] {
///         self.0.as_bytes()
///     }
/// }
///
/// let buffer = Owned::new(Line(Rc::new("pong\n".to_owned())));
/// assert_eq!(buffer.bytes(), b"pong\n");
/// let line: Line = buffer.into_inner();
/// # assert_eq!(line.as_ref(), b"pong\n");
/// ```
///
/// It costs one allocation. `as_ref` is called once, here. Its result borrows the value until
/// [`into_inner`](Self::into_inner).
pub struct Owned<T>(Shown<T>);

impl<T: AsRef<[u8]> + 'static> Owned<T> {
    /// Puts `value` on the heap and asks for its bytes.
    ///
    /// # Panics
    /// When its `as_ref` does.
    pub fn new(value: T) -> Self {
        // SAFETY: the value exists, and from here on is only borrowed shared: `deref` and `bytes` do the
        // same.
        Self(Shown::new(value, |value| NonNull::from(unsafe { value.as_ref() }.as_ref())))
    }
}

impl<T> Owned<T> {
    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value exists, and nobody can change it.
        unsafe { self.0.value.as_ref() }
    }
}

// SAFETY: the bytes are a borrow of a value that lies on the heap and does not change before it is given
// back. The type itself has to keep such a borrow sound, however long it lasts.
unsafe impl<T: 'static> IoBuf for Owned<T> {
    fn bytes(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.0.bytes.as_ref() }
    }
}

/// Memory of a fixed size to be read into, from its beginning: an array, a boxed slice, or a type of your own
/// that is `AsMut<[u8]>`. The filled bytes can be sent on.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::buf::Filled;
///
/// let (reader, writer) = annulus::pipe::pipe()?;
/// writer.write_all("ping").await?;
/// let (n, buffer) = reader.read(Filled::new([0; 512])).await?;
/// assert_eq!((n, &*buffer), (4, &b"ping"[..]));
/// let array: [u8; 512] = buffer.into_inner();
/// # assert_eq!(array[..5], *b"ping\0");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// It costs one allocation. `as_mut` is called once, here.
pub struct Filled<T> {
    shown: Shown<T>,
    filled: usize,
}

impl<T: AsMut<[u8]> + 'static> Filled<T> {
    /// Puts `value` on the heap and asks for its bytes. None of them counts as filled.
    ///
    /// # Panics
    /// When its `as_mut` does.
    pub fn new(value: T) -> Self {
        // SAFETY: the value exists, and from here on is borrowed for these bytes alone: nobody else gets it.
        let shown = Shown::new(value, |mut value| NonNull::from(unsafe { value.as_mut() }.as_mut()));
        Self { shown, filled: 0 }
    }
}

impl<T> Filled<T> {
    /// The number of bytes that the value has.
    pub fn size(&self) -> usize {
        self.shown.bytes.len()
    }

    /// Counts no byte as filled.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Gives the value back. Bytes behind the filled ones are zero.
    pub fn into_inner(self) -> T {
        let mut this = std::mem::ManuallyDrop::new(self);
        this.zero_the_rest();
        // SAFETY: it is read once: `this` is not dropped.
        unsafe { std::ptr::read(&this.shown) }.into_inner()
    }

    /// All bytes. Those behind the filled ones may be uninitialised, because code that was given the spare
    /// capacity may have written anything there.
    fn all(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the bytes are a borrow of the value, which exists. As `MaybeUninit` they may be anything.
        unsafe { &mut *(self.shown.bytes.as_ptr() as *mut [MaybeUninit<u8>]) }
    }

    /// Initialises the bytes behind the filled ones, so that the value can be used as its own type again.
    fn zero_the_rest(&mut self) {
        let filled = self.filled;
        self.all()[filled..].fill(MaybeUninit::new(0));
    }
}

impl<T> Drop for Filled<T> {
    fn drop(&mut self) {
        self.zero_the_rest();
    }
}

/// The filled bytes.
impl<T> Deref for Filled<T> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `filled` bytes were filled (`IoBufMut::filled`), and nobody else has them.
        unsafe { std::slice::from_raw_parts(self.shown.bytes.as_ptr().cast(), self.filled) }
    }
}

// SAFETY: as for `Owned`: the filled bytes lie in the value, on the heap or elsewhere, and do not change.
unsafe impl<T: 'static> IoBuf for Filled<T> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: the spare capacity is a borrow of a value that lies on the heap, and nobody gets the value before
// the kernel's last CQE.
unsafe impl<T: 'static> IoBufMut for Filled<T> {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        let filled = self.filled;
        &mut self.all()[filled..]
    }

    unsafe fn filled(&mut self, n: usize) {
        self.filled += n;
    }
}

impl<T> fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("bytes", &self.0.bytes.len()).finish()
    }
}

impl<T> fmt::Debug for Filled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled").field("size", &self.size()).field("filled", &self.filled).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Shows other bytes each time, and counts.
    struct Fickle {
        said: Cell<usize>,
        bytes: [Vec<u8>; 2],
        dropped: Rc<Cell<u32>>,
    }

    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            self.said.set(self.said.get() + 1);
            &self.bytes[self.said.get() % 2]
        }
    }

    impl Drop for Fickle {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    #[test]
    fn a_type_that_changes_its_mind_is_asked_once_and_dropped_once() {
        let dropped = Rc::new(Cell::new(0));
        let fickle =
            || Fickle { said: Cell::new(0), bytes: [vec![0; 10], vec![1; 20]], dropped: Rc::clone(&dropped) };
        let buffer = Owned::new(fickle());
        let (at, len) = (buffer.bytes().as_ptr(), buffer.bytes().len());
        let moved = Box::new(buffer);
        assert_eq!((moved.bytes().as_ptr(), moved.bytes().len(), len), (at, len, 20));
        assert_eq!(moved.said.get(), 1);
        let fickle_again = moved.into_inner();
        assert_eq!(dropped.get(), 0);
        drop(fickle_again);
        drop(Owned::new(fickle()));
        assert_eq!(dropped.get(), 2);
    }

    /// Reads its bytes when it is dropped.
    struct Looks([u8; 8], Rc<Cell<[u8; 8]>>);

    impl AsMut<[u8]> for Looks {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            self.1.set(self.0);
        }
    }

    #[test]
    fn what_was_shown_as_room_is_initialised_when_the_value_is_its_own_again() {
        let seen = Rc::new(Cell::new([9; 8]));
        let mut buffer = Filled::new(Looks([7; 8], Rc::clone(&seen)));
        buffer.spare_capacity()[..2].write_copy_of_slice(&[1, 2]);
        // SAFETY: just written.
        unsafe { IoBufMut::filled(&mut buffer, 2) };
        buffer.spare_capacity().fill(MaybeUninit::uninit());
        assert_eq!((buffer.spare_capacity().len(), buffer.size()), (6, 8));
        assert_eq!(*buffer, [1, 2]);
        drop(buffer);
        assert_eq!(seen.get(), [1, 2, 0, 0, 0, 0, 0, 0]);
        let mut buffer = Filled::new([5; 4]);
        // SAFETY: they are initialised already.
        unsafe { IoBufMut::filled(&mut buffer, 3) };
        assert_eq!(buffer.bytes(), [5; 3]);
        assert_eq!(buffer.into_inner(), [5, 5, 5, 0]);
    }
}
