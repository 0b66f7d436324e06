//! Several buffers that are lent to the kernel together, by value.

use super::IoBuf;

/// Buffers that are sent one behind the other, as one: a head and a body, or any number of one kind.
///
/// # Safety
/// As for [`IoBuf`], for each of the buffers; and [`each`](Self::each) shows the same ones in the same order each time.
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
