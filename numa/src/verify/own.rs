//! The calling thread's own memory: stack, thread descriptor, thread-local storage.

use std::ops::Range;

use super::{ask_each_page, numa_maps};
use crate::{
    Error, NodeId, Result,
    sys::{self, Policy},
};

/// The touched part of the calling thread's stack: from the page of the current frame to the highest address.
/// The descriptor and the TLS of a spawned thread lie at the top of this range too, because glibc puts them
/// there.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when glibc cannot tell. On the main thread glibc reads
/// /proc/self/maps.
pub fn stack_of_current_thread() -> Result<Range<usize>> {
    let bounds = bounds()?;
    let here = std::hint::black_box(0_u8);
    let page = (&raw const here).addr() & !(sys::page_size() - 1);
    Ok(page.clamp(bounds.start, bounds.end)..bounds.end)
}

/// The calling thread's thread-local storage: one range for each loaded object that has some here.
pub fn tls_of_current_thread() -> Vec<Range<usize>> {
    sys::tls_blocks()
}

/// The address of glibc's descriptor of the calling thread (`struct pthread`). It serves to ask where its
/// page lies.
pub fn thread_descriptor_of_current_thread() -> usize {
    sys::thread_descriptor()
}

/// The mapping from which the calling thread's small allocations come. glibc gives every thread an arena of
/// its own, and what a core allocates (tasks, timers, tables) lies there. The mapping grows: [`mapping_of`]
/// has its extent at a later time. None where /proc/self/maps does not say.
pub fn heap_of_current_thread() -> Option<Range<usize>> {
    // The sample is larger than what glibc caches for each thread (tcache, up to 1 KiB). A small piece may be
    // one that another thread allocated and this one freed, and would lie in the other's arena.
    let sample = std::hint::black_box(vec![0_u8; 8192]);
    mapping_of(sample.as_ptr().addr())
}

/// The mapping of this process that holds an address.
pub fn mapping_of(address: usize) -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().filter_map(numa_maps::mapping).find(|mapping| mapping.contains(&address))
}

fn bounds() -> Result<Range<usize>> {
    sys::stack_bounds().map_err(|e| {
        Error::io("cannot find the thread's stack (pthread_getattr_np)", e, "is /proc mounted and readable?")
    })
}

/// Moves the calling thread's stack and heap to `node` and keeps them there. Returns how many pages had to
/// move. A refusal is no failure: the report inspects both again and shows what lies elsewhere.
///
/// Moving is not enough where NUMA balancing runs: memory without a policy of its own may follow the thread
/// that touches it next, and the thread that made us reads what we sent it. So both get an explicit
/// preference, which the balancer respects (mm/mempolicy.c, `vma_policy_mof`).
pub(crate) fn bring_own_home(node: NodeId) -> usize {
    let stack = sys::stack_bounds().ok();
    stack.into_iter().chain(whole_heap()).map(|range| bring_home(range, node)).sum()
}

/// Moves memory of this process, which may have been touched from elsewhere, to `node`, with a preference for
/// that node from then on (`mbind(2)`, `MPOL_PREFERRED` with `MPOL_MF_MOVE`). Returns how many pages had to
/// move. Whole pages are moved, so everything on a page of `range` moves with it. A refusal is no failure:
/// the pages stay, and [`where_pages_lie`](super::where_pages_lie) shows it.
pub fn bring_home(range: Range<usize>, node: NodeId) -> usize {
    let page = sys::page_size();
    let range = range.start / page * page..range.end.next_multiple_of(page);
    let strays = |range| {
        let placed = ask_each_page(range).map(|(_, placed)| placed).unwrap_or_default();
        placed.iter().filter(|(_, at)| *at != node).map(|(page, _)| *page).collect::<Vec<_>>()
    };
    let before = strays(range.clone());
    if let Err(error) = sys::mbind(range.clone(), &Policy::new(libc::MPOL_PREFERRED, node), sys::MPOL_MF_MOVE)
    {
        tracing::debug!(%error, "a thread's own memory has no policy of its own");
    }
    move_home(&strays(range.clone()), node);
    before.len().saturating_sub(strays(range).len())
}

/// The calling thread's malloc arena with the part that it will grow into. glibc reserves 64 MiB at a
/// multiple of 64 MiB and opens them bit by bit. It is only the sample's mapping where that lies in no such
/// reservation (the main arena).
fn whole_heap() -> Option<Range<usize>> {
    let open = heap_of_current_thread()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    Some(reservation(&maps, open.end - 1).unwrap_or(open))
}

/// The reservation that holds `address`. The mappings alone do not show its borders: the kernel merges its
/// closed end with the guard page of a stack that follows, and its open part falls into several mappings when
/// only some of it has a policy.
fn reservation(maps: &str, address: usize) -> Option<Range<usize>> {
    const RESERVED: usize = 64 << 20;
    let start = address / RESERVED * RESERVED;
    let mut covered = start;
    for line in maps.lines() {
        let mapping = numa_maps::mapping(line).filter(|mapping| mapping.contains(&covered));
        if mapping.as_ref().is_some_and(|mapping| mapping.contains(&address)) && line.ends_with("[heap]") {
            return None;
        }
        covered = mapping.map_or(covered, |mapping| mapping.end);
    }
    (covered >= start + RESERVED).then_some(start..start + RESERVED)
}

/// Asks the kernel to move pages to `node` and returns how many are there afterwards.
pub(crate) fn move_home(pages: &[usize], node: NodeId) -> usize {
    let mut status = vec![-1; pages.len()];
    if pages.is_empty() || sys::move_pages_to(pages, node, &mut status).is_err() {
        return 0;
    }
    status.iter().filter(|&&at| u32::try_from(at) == Ok(node.0)).count()
}

#[cfg(test)]
mod tests {
    use super::reservation;

    /// Seen to fail: with `==` for `>=` at the end, a guard page that the kernel merged with the reservation
    /// hides it.
    #[test]
    fn a_reservation_is_found_however_the_kernel_cuts_its_mappings() {
        let whole = Some(0x7f00_0000_0000..0x7f00_0400_0000);
        let maps = "7f0000000000-7f0000030000 rw-p 00000000 00:00 0\n7f0000030000-7f0004001000 ---p 00000000 00:00 0\n";
        assert_eq!(reservation(maps, 0x7f00_0000_1000), whole);
        let cut = "7effffe00000-7f0000021000 rw-p 00000000 00:00 0\n7f0000021000-7f0000030000 rw-p 00000000 00:00 0\n\
                   7f0000030000-7f0004000000 ---p 00000000 00:00 0\n";
        assert_eq!(reservation(cut, 0x7f00_0002_2000), whole);
        let gap = "7f0000000000-7f0000030000 rw-p 00000000 00:00 0\n7f0000031000-7f0004000000 ---p 00000000 00:00 0\n";
        assert_eq!(reservation(gap, 0x7f00_0000_1000), None);
        let main = "555550000000-555558000000 rw-p 00000000 00:00 0                          [heap]\n";
        assert_eq!(reservation(main, 0x5555_5400_0000), None);
    }
}
