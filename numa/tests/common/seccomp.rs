//! A seccomp filter that refuses chosen system calls with EPERM on the calling thread and the threads it
//! starts, as the default profiles of containers do. seccomp(2), bpf(4).

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, c_long,
    sock_filter,
};

/// A call to refuse.
#[derive(Clone, Copy)]
pub(crate) struct Deny {
    call: c_long,
    /// Only when this argument has this value (compared in its low 32 bits).
    only_if: Option<(u32, u32)>,
}

#[allow(dead_code, reason = "not every test that takes this file in refuses both ways")]
impl Deny {
    pub(crate) fn call(call: c_long) -> Self {
        Self { call, only_if: None }
    }

    pub(crate) fn when(call: c_long, argument: u32, value: u32) -> Self {
        Self { call, only_if: Some((argument, value)) }
    }
}

/// Offset of the call's number in struct seccomp_data; the arguments begin at 16, eight bytes each, low half
/// first.
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = 16;

/// Puts the filter in force for the calling thread, for good: use a thread that ends after the test.
pub(crate) fn refuse(calls: &[Deny]) {
    let op = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| op(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
    let skip_unless = |value, skip| op(BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
    let eperm = op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut program = Vec::new();
    for deny in calls {
        program.push(load(NUMBER));
        let number = u32::try_from(deny.call).unwrap();
        match deny.only_if {
            None => program.extend([skip_unless(number, 1), eperm]),
            Some((argument, value)) => program.extend([
                skip_unless(number, 3),
                load(ARGUMENTS + 8 * argument),
                skip_unless(value, 1),
                eperm,
            ]),
        }
    }
    program.push(op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no_new_privs takes plain numbers; the filter and its program live across the call, which copies
    // them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter);
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}
