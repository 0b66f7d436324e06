//! How the body of an answer is sent. That depends on where its bytes are, how many they are, and who gets
//! them.
//!
//! CPU for a request on a shared 2-core machine, loopback, 64 keep-alive connections, files in the page
//! cache, median of three: 8 KiB: read and sent 17 us, spliced inline 16; 16 KiB: 26 and 16; 32 KiB: 39 and
//! 19; 64 KiB: 47 and 24. By the ring a splice costs more: 8 KiB: sent 19 us, spliced 25; 64 KiB: 47 and 30.
//! So the two meet near 8 KiB by either. A system call is up to 0.8 us there, which is why what is in the
//! page cache goes by sendfile(2), one call where splice(2) takes two. `annulus roads` measures each
//! technique alone on any machine, `scripts/roads-veth` over veth with segments of 1,500 bytes.

use crate::log::access::Client;

/// Contents in memory up to this size, in bytes, are copied behind their head: a send of one place costs less
/// than one of two.
pub(super) const COPIED: u64 = 8 * 1024;

/// Files up to this size, in bytes, are read into memory and leave together with their head in one send.
/// Larger ones do not pass through user memory.
pub(super) const READ: u64 = 8 * 1024;

/// Files up to this size, in bytes, go the same way when they are not in memory: the ring reads them into a
/// block of the core, which takes no thread of the kernel's, where a splice from the disk would (README,
/// "Which road").
pub(super) const READ_COLD: u64 = 64 * 1024;

/// Blocks from this size on, in bytes, are sent without a copy where the peer's notifications say that it
/// pays.
pub(super) const ZERO_COPY: u64 = 16 * 1024;

/// How bytes get from where they are to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendMethod {
    /// From content in memory, copied behind its head, in one send.
    Copied,
    /// From content in memory where it lies, in one send with its head.
    TwoPlaces,
    /// Read into a block behind its head, in one send.
    Read,
    /// From the page cache, by one call for the head and one for the bytes (`sendfile(2)`); read into a block
    /// if they are not there, since a splice from the disk would take a thread of the kernel's.
    Cached,
    /// Without passing through user memory, as `--road` says. Bytes that are not in memory are spliced by the
    /// ring in any case.
    Spliced,
}

/// The method for `len` bytes, which are all of the content if `whole`. `held`: they are in memory of ours,
/// and not only in a file.
pub(super) fn choose(held: bool, whole: bool, len: u64) -> SendMethod {
    match held {
        true if whole && len > COPIED => SendMethod::TwoPlaces,
        true => SendMethod::Copied,
        false if len <= READ => SendMethod::Read,
        false if len <= READ_COLD => SendMethod::Cached,
        false => SendMethod::Spliced,
    }
}

/// Whether bytes in a block may go to `peer` without the copy into the kernel (SEND_ZC). A process of this
/// machine can receive bytes of our memory only by a copy.
pub(super) fn may_skip_copy(len: u64, peer: Client) -> bool {
    len >= ZERO_COPY && !matches!(peer, Client::Unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_road_has_its_case() {
        assert_eq!(choose(true, true, COPIED), SendMethod::Copied);
        assert_eq!(choose(true, true, COPIED + 1), SendMethod::TwoPlaces);
        assert_eq!(choose(true, false, COPIED + 1), SendMethod::Copied);
        assert_eq!(choose(false, true, READ), SendMethod::Read);
        assert_eq!(choose(false, true, READ + 1), SendMethod::Cached);
        assert_eq!(choose(false, true, READ_COLD), SendMethod::Cached);
        assert_eq!(choose(false, true, READ_COLD + 1), SendMethod::Spliced);
        let far = Client::Tcp(([192, 0, 2, 1], 1).into());
        assert!(may_skip_copy(ZERO_COPY, far));
        assert!(!may_skip_copy(ZERO_COPY - 1, far));
        assert!(!may_skip_copy(ZERO_COPY, Client::Unix));
    }
}
