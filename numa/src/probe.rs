//! Which memory calls the kernel, or a container's filter, lets this process make. They are tried on a
//! scratch page, and nothing stays changed.
//!
//! libnuma's `numa_available` and hwloc's "supported" say yes under a seccomp filter that refuses every call,
//! so only trying tells.

use std::io;

use libc::MPOL_DEFAULT;

use crate::{
    NodeSet,
    sys::{self, MPOL_PREFERRED_MANY, Policy},
    topology::sysfs::Sysfs,
};

/// The errno with which each memory policy call was refused; None where it works. ENOSYS means a kernel
/// without NUMA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyCalls {
    /// mbind(2): without it regions are placed by first touch.
    pub mbind: Option<i32>,
    /// set_mempolicy(2): without it threads rely on first touch.
    pub set_mempolicy: Option<i32>,
    /// get_mempolicy(2): without it an inherited binding cannot be seen.
    pub get_mempolicy: Option<i32>,
    /// move_pages(2): without it pages are looked up in /proc/self/numa_maps, and pages on a wrong node
    /// cannot be moved.
    pub move_pages: Option<i32>,
}

impl PolicyCalls {
    /// The refused calls by name, with their errno.
    pub fn refused(&self) -> Vec<(&'static str, i32)> {
        [
            ("mbind", self.mbind),
            ("set_mempolicy", self.set_mempolicy),
            ("get_mempolicy", self.get_mempolicy),
            ("move_pages", self.move_pages),
        ]
        .into_iter()
        .filter_map(|(name, errno)| Some((name, errno?)))
        .collect()
    }
}

/// Tries each memory policy call of the calling thread.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when not even one page can be mapped to try them on.
pub fn policy_calls() -> crate::Result<PolicyCalls> {
    let no_page =
        |e| crate::Error::io("cannot map a page to try mbind on", e, "free memory or raise ulimit -v");
    let page = sys::map(sys::page_size()).map_err(no_page)?.as_ptr().addr();
    let range = page..page + sys::page_size();
    let node = Sysfs::at("/sys").nodes_with_memory()?.and_then(|nodes| nodes.first());
    // Without a node to name it is the default policy. That is enough to learn whether the call is let
    // through.
    let policy = node.map_or_else(
        || Policy::new(MPOL_DEFAULT, NodeSet::new()),
        |node| Policy::new(MPOL_PREFERRED_MANY, node),
    );
    let before = sys::policy();
    let calls = PolicyCalls {
        mbind: errno(sys::mbind(range.clone(), &policy, 0)),
        // It sets the policy that the thread has already, so nothing changes. Where that policy cannot be
        // read, a call that the kernel must refuse as invalid shows whether a filter refuses it first.
        set_mempolicy: match &before {
            Ok(policy) => errno(sys::set_policy(policy)),
            Err(_) => errno(sys::set_policy(&Policy::new(i32::from(u8::MAX), NodeSet::new())))
                .filter(|&e| e != libc::EINVAL),
        },
        get_mempolicy: errno(before),
        move_pages: errno(sys::query_pages(&[page], &mut [0])),
    };
    // SAFETY: the page was mapped here and nobody else knows it.
    unsafe { sys::unmap(range) }.map_err(no_page)?;
    Ok(calls)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().map(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;

    #[test]
    fn trying_changes_nothing() {
        let before = (thread::inherited_policy(), thread::affinity_of_current().unwrap());
        let calls = policy_calls().unwrap();
        println!("{calls:?}");
        assert_eq!((thread::inherited_policy(), thread::affinity_of_current().unwrap()), before);
    }

    #[test]
    fn refusals_are_named() {
        let calls = PolicyCalls {
            mbind: Some(libc::EPERM),
            set_mempolicy: None,
            get_mempolicy: None,
            move_pages: Some(libc::ENOSYS),
        };
        assert_eq!(calls.refused(), [("mbind", libc::EPERM), ("move_pages", libc::ENOSYS)]);
    }
}
