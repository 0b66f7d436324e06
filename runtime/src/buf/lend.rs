//! Buffers become leases: on a whole buffer, or on a fragment of one.

use super::chain::Chain;
use super::lease::Lease;
use super::ring::BufRing;

impl BufRing {
    /// A lease on `bytes` bytes of a buffer, beginning at `from`, that the kernel has just written. `ends`
    /// says that the kernel is done with the buffer.
    pub(super) fn lend(&self, index: u16, from: u16, bytes: u32, ends: bool) -> Lease {
        let shares = &self.owner.region().shares[usize::from(index)];
        if from == 0 {
            // The core's own share is the first.
            // SAFETY: the kernel had the buffer until this CQE, and does not write these bytes again.
            std::mem::forget(unsafe { self.owner.hand_out(index.into()) });
            shares.begin();
        }
        if ends {
            // The core's share passes to the lease.
            self.picked();
        } else {
            shares.add();
        }
        // SAFETY: the buffer has been out since its first bytes came, and the handle is a counted share.
        Lease::fragment(unsafe { self.owner.handle(index.into()) }, from.into(), bytes)
    }

    /// The oldest chunk of a chain, as a lease, and what is left of the chain.
    #[inline(always)]
    pub(crate) fn pop(&self, chain: Chain) -> Option<(Chain, Lease)> {
        let (rest, index, bytes) = self.next_of(chain)?;
        #[cfg(debug_assertions)]
        self.chained.set(self.chained.get() - 1);
        // SAFETY: the kernel's CQE has released the buffer, and it was in one chain only. It returns to the
        // kernel only through `recycle`, after it has come back.
        let block = unsafe { self.owner.hand_out(index.into()) };
        Some((rest, Lease::new(block, bytes)))
    }

    /// Whether a lease is on one of these buffers.
    pub(crate) fn has_lent(&self, lease: &Lease) -> bool {
        lease.is_of(&self.owner)
    }
}
