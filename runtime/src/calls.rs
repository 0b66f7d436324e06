//! Which system calls a filter refuses. Each call is tried with arguments that the kernel rejects.
//!
//! A filter (`seccomp(2)`) does not apply to what the ring does, but a core makes these calls itself. Some
//! refusals would be noticed late: a server would start, and send heads without bodies.

use libc::c_long;

/// A call, and arguments with which it does nothing: a descriptor or flags that cannot exist.
type Call = (&'static str, c_long, [c_long; 6]);

const NONE: c_long = -1;

/// The calls by which connections, files and pipes are used. `io_uring_*` are tried by
/// [`probe_ring`](crate::probe_ring), the memory policy calls by [`numa::probe`](crate::numa::probe).
const CALLS: [Call; 17] = [
    ("accept4", libc::SYS_accept4, [NONE, 0, 0, 0, 0, 0]),
    ("bind", libc::SYS_bind, [NONE, 0, 0, 0, 0, 0]),
    ("eventfd2", libc::SYS_eventfd2, [0, NONE, 0, 0, 0, 0]),
    ("fcntl", libc::SYS_fcntl, [NONE, libc::F_GETFD as c_long, 0, 0, 0, 0]),
    ("getsockname", libc::SYS_getsockname, [NONE, 0, 0, 0, 0, 0]),
    ("getsockopt", libc::SYS_getsockopt, [NONE, 0, 0, 0, 0, 0]),
    ("listen", libc::SYS_listen, [NONE, 0, 0, 0, 0, 0]),
    ("openat2", libc::SYS_openat2, [NONE, 0, 0, 0, 0, 0]),
    ("pipe2", libc::SYS_pipe2, [0, NONE, 0, 0, 0, 0]),
    ("preadv2", libc::SYS_preadv2, [NONE, 0, 0, 0, 0, 0]),
    ("recvfrom", libc::SYS_recvfrom, [NONE, 0, 0, 0, 0, 0]),
    ("sendfile", libc::SYS_sendfile, [NONE, NONE, 0, 1, 0, 0]),
    ("sendto", libc::SYS_sendto, [NONE, 0, 0, 0, 0, 0]),
    ("setsockopt", libc::SYS_setsockopt, [NONE, 0, 0, 0, 0, 0]),
    ("shutdown", libc::SYS_shutdown, [NONE, 0, 0, 0, 0, 0]),
    ("socket", libc::SYS_socket, [NONE, NONE, NONE, 0, 0, 0]),
    ("splice", libc::SYS_splice, [NONE, 0, NONE, 0, 1, 0]),
];

/// The names of the system calls that this library makes on a core, beside those of `io_uring`, and that are
/// refused here: the answer was `EPERM`, `EACCES` or `ENOSYS`, as from a container's seccomp profile. It is
/// empty where none is refused. `sendfile`, `splice` and `pipe2` move bulk ([`transfer`](crate::transfer)),
/// `openat2` and `preadv2` are for files, and the others are for sockets. `seccomp(2)`.
///
/// ```
/// assert_eq!(annulus::refused_calls(), Vec::<&str>::new());
/// ```
pub fn refused_calls() -> Vec<&'static str> {
    let is_refused = |(_, number, [a, b, c, d, e, f]): &Call| {
        // SAFETY: the kernel rejects each for its descriptor or its flags, before it accesses memory: there
        // is no descriptor -1, and no call has all flags.
        let rc = unsafe { libc::syscall(*number, *a, *b, *c, *d, *e, *f) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        rc == -1 && matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
    };
    CALLS.iter().filter(|call| is_refused(call)).map(|(name, ..)| *name).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// No call may succeed: one that did would have had an effect.
    #[test]
    fn each_try_is_turned_down_by_the_kernel_itself() {
        for (name, number, [a, b, c, d, e, f]) in CALLS {
            // SAFETY: as in `refused_calls`.
            let rc = unsafe { libc::syscall(number, a, b, c, d, e, f) };
            let errno = std::io::Error::last_os_error().raw_os_error();
            let expected = [libc::EBADF, libc::EINVAL, libc::EAFNOSUPPORT, libc::EFAULT];
            assert!(rc == -1 && expected.contains(&errno.unwrap()), "{name}: {rc}, {errno:?}");
        }
        assert!(refused_calls().is_empty());
    }
}
