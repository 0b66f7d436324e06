//! What a child process is given between fork and exec: limits, signal settings, refused system calls.
//!
//! All of the unsafe code about processes is here. What runs in the child before exec makes system calls and
//! nothing else: no allocation, no locks (another thread of the test may hold them at the moment of the
//! fork).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What SIGPIPE does in the child when its program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sigpipe {
    /// It kills, as from a shell.
    Kills,
    /// It is ignored, as under some supervisors.
    Ignored,
}

/// System calls that the child is refused, as a container's seccomp profile refuses them.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Their numbers (`libc::SYS_...`).
    pub syscalls: Vec<libc::c_long>,
    /// What they return instead of running (`libc::EPERM`, ...).
    pub errno: i32,
}

/// The settings of one child. The default changes nothing but this: the child dies with the test that started
/// it.
#[derive(Clone, Debug, Default)]
pub struct Prepare {
    /// SIGPIPE; `None` leaves what `std::process::Command` sets (it kills).
    pub sigpipe: Option<Sigpipe>,
    /// Soft and hard RLIMIT_NOFILE, in descriptors.
    pub open_files: Option<u64>,
    /// Soft and hard RLIMIT_MEMLOCK, in bytes.
    pub locked_memory: Option<u64>,
    /// Whether SIGINT and SIGTERM come blocked, as some supervisors leave them.
    pub signals_blocked: bool,
    /// Refused system calls.
    pub refusal: Option<Refusal>,
    /// Whether it may start threads only, no process.
    pub no_processes: bool,
}

impl Prepare {
    /// Arranges for these settings to be made in the child that `command` starts.
    pub fn apply(&self, command: &mut Command) {
        let settings = self.clone();
        let filters: Vec<_> = self
            .refusal
            .as_ref()
            .map(filter)
            .into_iter()
            .chain(self.no_processes.then(threads_only))
            .collect();
        // SAFETY: the closure only makes system calls on memory that was allocated before the fork
        // (`settings`, `filters`).
        unsafe { command.pre_exec(move || settings.make(&filters)) };
    }

    fn make(&self, filters: &[Vec<libc::sock_filter>]) -> io::Result<()> {
        // SAFETY: plain system call; PDEATHSIG takes a signal number.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        if let Some(files) = self.open_files {
            limit(libc::RLIMIT_NOFILE, files)?;
        }
        if let Some(bytes) = self.locked_memory {
            limit(libc::RLIMIT_MEMLOCK, bytes)?;
        }
        if let Some(sigpipe) = self.sigpipe {
            let action = match sigpipe {
                Sigpipe::Kills => libc::SIG_DFL,
                Sigpipe::Ignored => libc::SIG_IGN,
            };
            // SAFETY: no handler of ours is installed, only one of the two built-in actions.
            if unsafe { libc::signal(libc::SIGPIPE, action) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        if self.signals_blocked {
            // SAFETY: sigset_t is plain data, for which all zeros is a valid value.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: `set` is ours and lives across the calls.
            unsafe {
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, libc::SIGINT);
                libc::sigaddset(&mut set, libc::SIGTERM);
                check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
            }
        }
        filters.iter().try_for_each(|filter| install(filter))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let both = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `both` is a valid rlimit that outlives the call.
    check(unsafe { libc::setrlimit(resource, &both) })
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// A classic BPF program after seccomp(2): load the call's number, compare it with each refused one, answer
/// with the errno.
fn filter(refusal: &Refusal) -> Vec<libc::sock_filter> {
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &number in &refusal.syscalls {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32, 0, 1));
        program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | refusal.errno as u32, 0, 0));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// clone(2) makes threads and no process. clone3(2) is not there, because a filter cannot see what it is to
/// make; the C library falls back to the former. fork(2) and vfork(2) are left, which the C library does not
/// call.
fn threads_only() -> Vec<libc::sock_filter> {
    // The low half of the first argument, the flags, in struct seccomp_data of a machine whose low bytes come
    // first.
    const FLAGS: u32 = 16;
    let answer = |errno: i32| step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0);
    let is =
        |number: libc::c_long, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32, 0, jf);
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(libc::SYS_clone3, 1),
        answer(libc::ENOSYS),
        is(libc::SYS_clone, 3),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, FLAGS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, libc::CLONE_THREAD as u32, 1, 0),
        answer(libc::EPERM),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: plain system call with integer arguments; an ordinary user may install a filter only with this
    // set.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `program` points at `filter`, which outlives the call; the kernel copies it and does not write
    // to it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) })
}
