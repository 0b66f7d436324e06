//! `recvmmsg(2)` and `sendmsg(2)` with the control messages of UDP, which rustix has no name for.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::sockaddr::{self, SockAddr};

/// The most receives of one call.
pub(super) const AT_ONCE: usize = 32;
/// The most datagrams that the kernel makes of one send (`UDP_MAX_SEGMENTS` of linux/udp.h before Linux 6.9).
pub(super) const SEGMENTS: usize = 64;

/// Space for one control message with an integer, aligned as `cmsghdr` is.
type Control = [u64; 4];

/// The result of one receive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Got {
    pub(super) source: SocketAddr,
    /// The index of the piece of memory that it lies in.
    pub(super) place: usize,
    pub(super) len: usize,
    /// The length of each of its datagrams, but for the last; at least 1.
    pub(super) segment: usize,
}

/// Receives into pieces of `bytes`, of `piece_len` bytes each, without waiting.
///
/// # Errors
/// What `recvmmsg(2)` says.
pub(super) fn receive(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    piece_len: usize,
    into: &mut Vec<Got>,
) -> io::Result<()> {
    let mut names = [[0u8; sockaddr::MAX]; AT_ONCE];
    let mut controls = [Control::default(); AT_ONCE];
    let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    let mut vectors = [none; AT_ONCE];
    // SAFETY: mmsghdr is plain integers and pointers, for which zeroes are a value.
    let mut messages: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for (at, piece) in bytes.chunks_exact_mut(piece_len).take(AT_ONCE).enumerate() {
        vectors[at] = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
        let header = &mut messages[at].msg_hdr;
        header.msg_name = names[at].as_mut_ptr().cast();
        header.msg_namelen = sockaddr::MAX as libc::socklen_t;
        header.msg_iov = &raw mut vectors[at];
        header.msg_iovlen = 1;
        header.msg_control = controls[at].as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        count = at + 1;
    }
    // SAFETY: each of the `count` headers points to a name, a vector and control data of its own on our
    // stack, and the vectors to pieces of `bytes`, which is borrowed for writing; all live across the call.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (place, message) in messages[..received].iter().enumerate() {
        let len = message.msg_len as usize;
        let is_whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let Some(source) = sockaddr::parse(&names[place]).filter(|_| is_whole) else { continue };
        let segment = segment(&message.msg_hdr).unwrap_or(len).max(1);
        into.push(Got { source, place, len, segment });
    }
    Ok(())
}

/// The length of the datagrams that the kernel has put together (`UDP_GRO`), if it says one.
fn segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled the control data of this header, and said how much of it; the pointers
    // that these macros of cmsg(3) give lie within.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            if (message.cmsg_level, message.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
                let size = libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(size).ok().filter(|size| *size > 0);
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    None
}

/// Sends `parts` as one datagram, or as datagrams of `segment` bytes each, without waiting.
///
/// # Errors
/// What `sendmsg(2)` says.
pub(super) fn send(
    fd: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    segment: Option<usize>,
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let name = to.map(SockAddr::from);
    let mut control = Control::default();
    // SAFETY: msghdr is plain integers and pointers, for which zeroes are a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(name) = &name {
        header.msg_name = name.as_ptr().cast_mut();
        header.msg_namelen = name.len();
    }
    // An IoSlice is an iovec (std::io::IoSlice), and is only read.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    if let Some(segment) = segment.and_then(|segment| u16::try_from(segment).ok()) {
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control data has space for one message with a 16-bit number, as these macros of cmsg(3)
        // count it: 18 bytes, padded to 24, of 32.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to an address, parts and control data that live across the call, which only
    // reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
