//! Calls on sockets that bypass the ring: options that rustix has no name for, and what never waits.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{RecvFlags, SendFlags};

use crate::error::os;

/// Sets an option whose value is an integer used as a flag (`setsockopt(2)`).
pub(super) fn set_flag(socket: impl AsFd, level: i32, option: i32, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    // SAFETY: the value is an integer on our stack, which the kernel only reads, and its size is told.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Who is at the other end of a Unix socket (`SO_PEERCRED`, `unix(7)`).
pub(super) fn peer_credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the value on our stack.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}

/// How many datagrams were discarded because a socket's queue was full (`SO_MEMINFO` of linux/sock_diag.h).
pub(super) fn dropped_datagrams(socket: impl AsFd) -> io::Result<u32> {
    let mut info = [0u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the array on our stack.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(info[libc::SK_MEMINFO_DROPS as usize]) } else { Err(io::Error::last_os_error()) }
}

/// How much of what was sent on a TCP connection has arrived (`TCP_INFO`, `tcp(7)`; Linux 4.6).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// The kernel has given the connection up: it was reset, or timed out, or both ends are acknowledged.
    pub(crate) is_closed: bool,
    /// Segments that were sent and are not acknowledged; a FIN is one.
    pub(crate) unacknowledged: u32,
    /// Bytes that wait to be sent.
    pub(crate) not_sent: u32,
    /// Bytes that the peer has acknowledged.
    pub(crate) acknowledged: u64,
}

impl Delivery {
    /// Whether bytes, or a FIN, are not acknowledged, or not even sent.
    pub(crate) fn is_under_way(self) -> bool {
        self.unacknowledged > 0 || self.not_sent > 0
    }
}

/// The [`Delivery`] of a socket. `None` for one that is not TCP.
pub(crate) fn delivery(socket: impl AsFd) -> Option<Delivery> {
    let info = tcp_info(socket)?;
    Some(Delivery {
        // TCP_CLOSE of include/net/tcp_states.h.
        is_closed: info.tcpi_state == 7,
        unacknowledged: info.tcpi_unacked,
        not_sent: info.tcpi_notsent_bytes,
        acknowledged: info.tcpi_bytes_acked,
    })
}

/// For how long nothing was sent on a TCP connection, and for how long nothing came, in milliseconds; since
/// the handshake where there was nothing. `None` for a socket that is not TCP.
pub(super) fn silence(socket: impl AsFd) -> Option<(u32, u32)> {
    tcp_info(socket).map(|info| (info.tcpi_last_data_sent, info.tcpi_last_data_recv))
}

/// `TCP_INFO` (`tcp(7)`); `None` for a socket that is not TCP.
fn tcp_info(socket: impl AsFd) -> Option<libc::tcp_info> {
    // SAFETY: tcp_info is plain data, for which all zeros is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the value on our stack.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (rc == 0).then_some(info)
}

/// Whether the peer's end (FIN) had come on a TCP connection that the kernel has given up; `None` for one
/// that is open, or no TCP. It takes no byte.
///
/// After a failure that the kernel has reported, receives find the same as after an orderly end. `TCP_INQ`
/// tells them apart (Linux 4.18): it counts the peer's end as a byte that can be read (`tcp_inq_hint()` in
/// net/ipv4/tcp.c), and `FIONREAD` does not.
pub(super) fn fin_has_come(fd: BorrowedFd<'_>) -> Option<bool> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.fin_has_come(fd.as_raw_fd())) {
        return answer;
    }
    if !delivery(fd)?.is_closed {
        return None;
    }
    let bytes = rustix::io::ioctl_fionread(fd).ok()?;
    tell_inq(fd, true)?;
    let with_end = inq(fd);
    tell_inq(fd, false)?;
    Some(with_end? > bytes)
}

/// Has receives tell what can be read behind what they return, or not.
fn tell_inq(fd: BorrowedFd<'_>, on: bool) -> Option<()> {
    let on = libc::c_int::from(on);
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads one integer, which lives across the call.
    let rc = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INQ, (&raw const on).cast(), len)
    };
    (rc == 0).then_some(())
}

/// What a receive tells of that, which takes nothing.
fn inq(fd: BorrowedFd<'_>) -> Option<u64> {
    let (mut byte, mut control) = ([0u8; 1], [0u64; 4]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: msghdr is plain integers and pointers, for which zeroes are a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the header points to a byte and control data on our stack, which live across the call.
    let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    if received < 0 {
        return None;
    }
    // SAFETY: the kernel has filled the control data of this header, and said how much of it; the pointers
    // that these macros of cmsg(3) give lie within.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header).as_ref()?;
        let is_it = (message.cmsg_level, message.cmsg_type) == (libc::IPPROTO_TCP, libc::TCP_INQ);
        let value = libc::CMSG_DATA(message).cast::<libc::c_int>();
        is_it.then(|| value.read_unaligned()).and_then(|bytes| u64::try_from(bytes).ok())
    }
}

/// Resets a TCP connection and discards its send queue, while the descriptor stays open. It does not wait.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.disconnect(fd.as_raw_fd())) {
        return answer;
    }
    rustix::net::connect_unspec(fd).map_err(os)
}

/// `shutdown(2)`: it never waits.
pub(super) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.shutdown(fd.as_raw_fd(), how)) {
        return answer;
    }
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    rustix::net::shutdown(fd, how).map_err(os)
}

/// `recv(2)` that does not wait: how many bytes at the beginning of `into` it has written.
pub(crate) fn recv_now(fd: BorrowedFd<'_>, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.recv(fd.as_raw_fd(), into.len())) {
        let came = answer?;
        for (to, byte) in into.iter_mut().zip(&came) {
            to.write(*byte);
        }
        return Ok(came.len());
    }
    rustix::net::recv(fd, into, RecvFlags::DONTWAIT).map(|((filled, _), _)| filled.len()).map_err(os)
}

/// `send(2)` that does not wait.
pub(super) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.send(fd.as_raw_fd(), bytes)) {
        return answer;
    }
    rustix::net::send(fd, bytes, flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(os)
}

/// Whether a connection has failed, or was closed in both directions (`poll(2)`: `POLLERR`, `POLLHUP`).
pub(super) fn is_gone(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = super::played::ask(|played| played.is_gone(fd.as_raw_fd())) {
        return answer;
    }
    let mut polled = [PollFd::new(&fd, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
