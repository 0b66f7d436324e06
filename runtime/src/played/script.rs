//! A peer that sends given bytes, in its own time, and keeps what it receives.

use std::cell::Cell;
use std::rc::Rc;

/// How many of its bytes a peer would have sent by now, after it has received these.
pub(super) type UpTo = Box<dyn Fn(&[u8]) -> u64>;

/// What a peer sends and has received.
pub(super) struct Script {
    pub(super) says: Rc<[u8]>,
    /// All that was sent to it, also what it has not taken yet.
    pub(super) heard: Vec<u8>,
    up_to: UpTo,
    /// The last answer of `up_to`, and after how many bytes.
    known: Cell<(u64, u64)>,
}

impl Script {
    pub(super) fn new(says: Rc<[u8]>, up_to: UpTo) -> Self {
        let known = Cell::new((0, up_to(&[])));
        Self { says, heard: Vec::new(), up_to, known }
    }

    /// How many bytes it would have sent after it has taken `read`.
    pub(super) fn up_to(&self, read: u64) -> u64 {
        if self.known.get().0 != read {
            self.known.set((read, (self.up_to)(&self.heard[..read as usize])));
        }
        self.known.get().1.min(self.says.len() as u64)
    }
}
