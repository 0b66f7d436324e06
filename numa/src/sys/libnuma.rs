//! libnuma's allocator (feature `libnuma`).

use std::ffi::c_void;
use std::ptr::NonNull;

use libc::c_int;

use crate::NodeId;

// `build.rs` links it.
unsafe extern "C" {
    fn numa_available() -> c_int;
    fn numa_set_bind_policy(strict: c_int);
    fn numa_alloc_onnode(size: usize, node: c_int) -> *mut c_void;
}

/// Whether libnuma finds a kernel with NUMA (numa(3), `numa_available`). A seccomp filter does not change the
/// answer.
pub(crate) fn libnuma_works() -> bool {
    // SAFETY: no arguments; must be called before other libnuma functions, which `libnuma_alloc` does.
    unsafe { numa_available() >= 0 }
}

/// `numa_alloc_onnode` with the "preferred" policy of `numa_set_bind_policy(0)`. libnuma keeps that choice
/// per thread and has no function to read it, so this sets it back to libnuma's default (strict) rather than
/// to what it was.
///
/// When the kernel refuses the policy, libnuma prints to stderr and returns memory *without* a policy. The
/// caller therefore asks the kernel first.
pub(crate) fn libnuma_alloc(len: usize, node: NodeId) -> Option<NonNull<u8>> {
    debug_assert!(libnuma_works(), "the caller has checked that");
    let node = c_int::try_from(node.0).ok()?;
    // SAFETY: the caller has checked `libnuma_works`; the functions take plain numbers and return a fresh
    // mapping or null.
    unsafe {
        numa_set_bind_policy(0);
        let memory = numa_alloc_onnode(len, node);
        numa_set_bind_policy(1);
        NonNull::new(memory.cast())
    }
}
