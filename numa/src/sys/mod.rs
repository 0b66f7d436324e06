//! All system calls and libnuma calls of this crate, each behind a function that is as safe as its signature
//! says.
//!
//! The libc crate has the numbers but no wrappers for the memory policy calls; libnuma has wrappers, but they
//! print to stderr on failure, so only its allocator is used, with the feature `libnuma`. Sources: mbind(2),
//! set_mempolicy(2), get_mempolicy(2), move_pages(2), sched_setaffinity(2), madvise(2), numa(3).
//!
//! `maxnode` in the policy calls counts one more than the highest bit that the kernel reads
//! (mm/mempolicy.c, `get_nodes`: `--maxnode`): for one word pass 65, not 64, else node 63 is cut off.

#[cfg(feature = "libnuma")]
mod libnuma;
mod mappings;
mod policy;
mod threads;

use std::io;

use libc::c_long;

#[cfg(feature = "libnuma")]
pub(crate) use libnuma::*;
pub(crate) use mappings::*;
pub(crate) use policy::*;
pub(crate) use threads::*;

fn check(rc: c_long) -> io::Result<c_long> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// Bytes in a page.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}
