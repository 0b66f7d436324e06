//! The system calls that a serving process may make: those that serving needs, and no others (`seccomp(2)`).
//!
//! A call that is not listed fails with `EPERM`. clone3(2) is answered with `ENOSYS`, because a filter cannot
//! see what it makes. The C library then calls clone(2), which may make threads and no process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::note;
use crate::exit::{Failure, Kind};

/// cachestat(2) on every machine (Linux 6.5); not in libc.
const CACHESTAT: libc::c_long = 451;

/// Calls that are allowed with any arguments.
const CALLS: &[libc::c_long] = &[
    // Rings, and the calls beside them.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_splice,
    libc::SYS_sendfile,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    CACHESTAT,
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Memory and its placement.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    // Threads and time.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_prctl,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // The other filter answers it.
    libc::SYS_clone3,
];

/// From now on no thread of this process can make another call.
///
/// # Errors
/// [`Kind::Platform`] when the kernel has no seccomp.
pub(crate) fn restrict() -> Result<(), Failure> {
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Platform, format!("cannot restrict system calls (seccomp): {error}"))
    };
    for program in programs().map_err(|error| refused(&error))? {
        apply_filter_all_threads(&program).map_err(|error| refused(&error))?;
    }
    note(format!("system calls: {} that serving takes, all others fail by EPERM (seccomp)", CALLS.len() + 3));
    Ok(())
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let errno = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let first = SeccompFilter::new(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    let rest = SeccompFilter::new(rules()?, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok([first.try_into()?, rest.try_into()?])
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let when = |argument, len, op, value| -> Result<SeccompRule, seccompiler::BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(argument, len, op, value)?])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, Qword, MaskedEq(thread), thread)?]);
    let family = |family: i32| when(0, Dword, Eq, u64::from(family.unsigned_abs()));
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    rules.insert(libc::SYS_socket, families.into_iter().map(family).collect::<Result<_, _>>()?);
    // The limit may be read and not set: the third argument is the new limit.
    rules.insert(libc::SYS_prlimit64, vec![when(2, Qword, Eq, 0)?]);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;

    use super::*;

    /// The highest number of a system call that is known.
    const LAST: libc::c_long = 480;

    /// uretprobe(2) and uprobe(2) of x86_64 are for code that the kernel has put there (Linux 6.11). Any
    /// other caller gets SIGILL, whatever a filter says.
    const OF_PROBES: [libc::c_long; 2] = [335, 336];

    /// Not a test of its own: it is the process of the test below. It tries the calls that the filter does
    /// not list.
    #[test]
    #[ignore = "a process of another test"]
    fn as_a_confined_process() {
        restrict().unwrap();
        let allowed = rules().unwrap();
        let mut let_through = Vec::new();
        let others = (0..=LAST).filter(|number| !allowed.contains_key(number) && !OF_PROBES.contains(number));
        for number in others {
            // SAFETY: the filter refuses it before the kernel reads the arguments. Without the filter these
            // arguments would be invalid for every call that takes any.
            let result = unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
            if result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
                let_through.push(number);
            }
        }
        assert_eq!(let_through, [] as [libc::c_long; 0]);
        // SAFETY: no process comes of it. If a socket did, nobody would use it.
        let (fork, packet) = unsafe {
            (
                libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
                libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
            )
        };
        assert_eq!((fork, packet), (-1, -1));
        let limit = libc::rlimit { rlim_cur: 10, rlim_max: 10 };
        // SAFETY: it reads one limit, which lives across the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, -1);
        // The calls that serving needs still work: threads, files, sockets.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        assert!(std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2"));
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Command::new("/bin/true").status().is_err());
        println!("confined");
    }

    /// Seen to fail: with kill(2) among the calls.
    #[test]
    fn a_confined_process_makes_no_other_call() {
        let ended = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "--nocapture", "confine::filter::tests::as_a_confined_process"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(
            ended.status.success() && said.contains("confined"),
            "{said}\n{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}
