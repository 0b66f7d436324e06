//! The mapping of a region, before any of its pages is there.

use std::{io, ptr::NonNull};

use crate::{
    Error, NodeId, Result,
    sys::{self, MPOL_PREFERRED_MANY, Policy},
};

/// A mapping that prefers `node`; or a plain one and the error with which the kernel refused the policy.
///
/// libnuma would print to stderr and hide a refusal, so the kernel is asked with a scratch page first.
#[cfg(feature = "libnuma")]
pub(super) fn preferring(len: usize, node: NodeId) -> Result<(NonNull<u8>, io::Result<()>)> {
    let failed = |e| no_address_space(len, e);
    let scratch = sys::map(sys::page_size()).map_err(failed)?;
    let page = scratch.as_ptr().addr()..scratch.as_ptr().addr() + sys::page_size();
    let mut asked = sys::mbind(page.clone(), &Policy::new(MPOL_PREFERRED_MANY, node), 0);
    // SAFETY: the scratch page was mapped here and nobody else knows it.
    unsafe { sys::unmap(page) }.map_err(failed)?;
    if asked.is_ok() && !sys::libnuma_works() {
        asked = Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let memory = match asked {
        Ok(()) => sys::libnuma_alloc(len, node).ok_or_else(|| failed(io::Error::last_os_error()))?,
        Err(_) => sys::map(len).map_err(failed)?,
    };
    Ok((memory, asked))
}

/// A mapping that prefers `node`; or a plain one and the error with which the kernel refused the policy.
#[cfg(not(feature = "libnuma"))]
pub(super) fn preferring(len: usize, node: NodeId) -> Result<(NonNull<u8>, io::Result<()>)> {
    let memory = sys::map(len).map_err(|e| no_address_space(len, e))?;
    let start = memory.as_ptr().addr();
    // What libnuma does for `numa_alloc_onnode` after `numa_set_bind_policy(0)` (libnuma.c, `dombind`).
    let asked = sys::mbind(start..start + len, &Policy::new(MPOL_PREFERRED_MANY, node), 0);
    Ok((memory, asked))
}

pub(super) fn no_address_space(len: usize, e: io::Error) -> Error {
    Error::io(
        format_args!("cannot map {len} bytes"),
        e,
        "ask for less or raise the address space limit (ulimit -v)",
    )
}
