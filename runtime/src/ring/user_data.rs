//! The tags of `user_data`, which say what a CQE is for, and the flags of zero-copy sends that the io_uring
//! crate lacks.
//!
//! `user_data` is `tag (8 bits) | generation (32) | index (24)`.

/// What a CQE is for: the top 8 bits of its `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// An operation of the table.
    Op = 0,
    /// The poll at the head of a linked pair. It is silent when it succeeds (`IOSQE_CQE_SKIP_SUCCESS`), and
    /// then the operation after it answers. When it fails, the kernel silences everything after it instead
    /// (5.17, seen on 6.18: no CQE ever came for a splice whose poll had been cancelled), so its CQE is the
    /// pair's only one.
    LinkHead = 1,
    /// A cancel. The cancelled operation's own CQE has the outcome.
    Cancel = 2,
    /// The close of a descriptor. Nobody waits for it.
    Close = 3,
    /// The doorbell: the eventfd's poll, or a message from another core's ring.
    Doorbell = 4,
    /// Another core's ring did not take a message.
    Signal = 5,
}

impl Tag {
    /// `bits` (56 of them) with this tag.
    pub(crate) fn with(self, bits: u64) -> u64 {
        debug_assert!(bits >> 56 == 0);
        (self as u64) << 56 | bits
    }

    /// The rest, if the tag is `Op` or `LinkHead`: the usual CQEs.
    #[inline(always)]
    pub(crate) fn operation(user_data: u64) -> Option<u64> {
        const { assert!(Tag::Op as u8 == 0 && Tag::LinkHead as u8 == 1) }
        (user_data >> 57 == 0).then_some(user_data & ((1 << 56) - 1))
    }

    /// Splits a `user_data` into its tag and the rest. `None` for a tag that is never sent.
    pub(crate) fn split(user_data: u64) -> Option<(Self, u64)> {
        let tag = match (user_data >> 56) as u8 {
            0 => Tag::Op,
            1 => Tag::LinkHead,
            2 => Tag::Cancel,
            3 => Tag::Close,
            4 => Tag::Doorbell,
            5 => Tag::Signal,
            _ => return None,
        };
        Some((tag, user_data & ((1 << 56) - 1)))
    }
}

// Not exported by the io_uring crate (linux/io_uring.h).
/// In the SQE of a zero-copy send: the notification reports whether the bytes were copied (Linux 6.2).
pub(crate) const REPORT_USAGE: u16 = 1 << 3;
/// In the notification's result: the bytes were copied.
pub(crate) const COPIED: i32 = 1 << 31;
