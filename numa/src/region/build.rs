//! The steps by which a region is placed on its node. [`Region::new`] gives the reasons for their order.

use std::{io, ops::Range, ptr::NonNull};

use libc::MPOL_BIND;

use super::{
    Backing, Placement, Region, Rung, backing, headroom,
    mapping::{no_address_space, preferring},
};
use crate::{
    Error, NodeId, Result,
    sys::{self, MPOL_MF_MOVE, Policy},
    thread::{self, InheritedPolicy},
    topology::sysfs::{self, Sysfs},
    verify,
};

/// How much is populated before free memory is checked again. It is small enough that a full node costs its
/// neighbours little, and large enough that a region of 16 MiB takes a handful of calls.
const STEP: usize = 4 << 20;

/// The length of a region of that many bytes, and how much to map so that the region can begin at a multiple
/// of `granule` between two fences.
fn lengths(len_bytes: usize, granule: usize) -> Result<(usize, usize)> {
    if len_bytes == 0 {
        return Err(Error::input("a region of 0 bytes is asked for; ask for at least one"));
    }
    let page = sys::page_size();
    let too_long =
        || Error::input(format!("a region of {len_bytes} bytes is longer than memory can be; ask for less"));
    let len = len_bytes.checked_next_multiple_of(granule).ok_or_else(too_long)?;
    let slack = granule - page + 2 * page;
    let whole = len.checked_add(slack).filter(|&n| isize::try_from(n).is_ok()).ok_or_else(too_long)?;
    Ok((len, whole))
}

/// Takes over a mapping of `whole` bytes and gives back what is before and after the region and its two
/// fences. Dropping the region unmaps it.
fn take_over(memory: NonNull<u8>, whole: usize, len: usize, granule: usize, node: NodeId) -> Result<Region> {
    let page = sys::page_size();
    let (start, end) = (memory.as_ptr().addr(), memory.as_ptr().addr() + whole);
    let first = (start + page).next_multiple_of(granule);
    let region = Region {
        // SAFETY: `lengths` allowed for a page and for rounding up before `len` bytes.
        memory: unsafe { memory.add(first - start) },
        len,
        mapping: first - page..first + len + page,
        placement: not_placed_yet(node),
    };
    let failed = |e| Error::io("cannot give back the ends of a mapping (munmap)", e, "see munmap(2)");
    // SAFETY: both ends belong to the mapping, lie outside of the region's part of it, and nobody has been
    // given them.
    unsafe {
        sys::unmap(start..region.mapping.start).map_err(failed)?;
        sys::unmap(region.mapping.end..end).map_err(failed)?;
    }
    fence(&region, page)?;
    Ok(region)
}

fn not_placed_yet(node: NodeId) -> Placement {
    Placement {
        rung: Rung::FirstTouch,
        node,
        backing: Backing::System,
        pages: verify::PageMap::new(verify::How::Blind),
        reason: None,
        remedy: None,
    }
}

pub(super) fn unplaced(node: NodeId, len_bytes: usize) -> Result<Region> {
    let page = sys::page_size();
    let (len, whole) = lengths(len_bytes, page)?;
    let memory = sys::map(whole).map_err(|e| no_address_space(whole, e))?;
    let mut region = take_over(memory, whole, len, page, node)?;
    region.placement.rung = Rung::Unplaced;
    let headroom = headroom::bytes()?;
    if headroom.bytes < len as u64 {
        let why = format!("only {} MiB can be taken safely {}", headroom.bytes >> 20, headroom.limit);
        return Err(Error::platform(format!("no memory for a region of {len} bytes: {why}; ask for less")));
    }
    let start = region.as_ptr().addr();
    populate(start..start + len)
        .map_err(|e| Error::io("cannot populate memory", e, "free memory or ask for smaller pools"))?;
    region.placement.pages = verify::where_pages_lie(region.as_ptr(), len)?;
    region.placement.reason = Some("placement is off, as was asked".into());
    Ok(region)
}

pub(super) fn region(node: NodeId, len_bytes: usize, wanted: Backing) -> Result<Region> {
    let page = sys::page_size();
    check_node(node)?;
    let (mut backing, mut instead) = wanted.on(node, len_bytes);
    if backing == Backing::Reserved {
        match reserved(node, len_bytes) {
            Ok(region) => return Ok(region),
            // Somebody else was faster, a filter refuses mbind, or the group may have none (hugetlb
            // controller).
            Err(e) => {
                let (_, remedy) = backing::lacking(node, len_bytes.div_ceil(backing::HUGE), 0);
                let why = format!("reserved huge pages cannot be had ({e}): transparent ones instead");
                (backing, instead) =
                    (Backing::Transparent, (wanted == Backing::Reserved).then_some((why, remedy)));
            }
        }
    }
    let granule = backing.granule(page);
    let (len, whole) = lengths(len_bytes, granule)?;
    let (memory, policy) = preferring(whole, node)?;
    // From here on dropping the region unmaps.
    let mut region = take_over(memory, whole, len, granule, node)?;
    region.placement.backing = backing;
    let range = region.as_ptr().addr()..region.as_ptr().addr() + len;
    let advised = match backing {
        Backing::Small => sys::advise(range, libc::MADV_NOHUGEPAGE),
        Backing::Transparent => sys::advise(range, libc::MADV_HUGEPAGE),
        _ => Ok(()),
    };
    if let Err(e) = advised {
        // EINVAL: a kernel without transparent huge pages has small ones only.
        region.placement.backing = Backing::Small;
        instead = (backing == Backing::Transparent).then(|| {
            (format!("no transparent huge pages: madvise: {e}"), "boot a kernel that has them".into())
        });
    }

    let settled = settle(&region, node)?;
    let shortened = settled.len < len;
    if shortened {
        shorten(&mut region, settled.len, page)?;
    }
    let bound = match &policy {
        Ok(()) => bind(&region, &settled, node).map_err(|e| (Rung::Preferred, "mbind(MPOL_BIND)", e)),
        Err(e) => {
            Err((Rung::FirstTouch, "mbind", io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0))))
        }
    };
    let (mut reasons, mut remedies): (Vec<_>, Vec<_>) = instead.into_iter().unzip();
    region.placement.rung = match bound {
        Ok(()) => Rung::Bound,
        Err((rung, call, error)) => {
            reasons.push(thread::refusal(call, &error));
            remedies.push(thread::remedy(&error));
            rung
        }
    };
    if let Some((why, what)) = settled.why {
        reasons.push(format!("{} of {len} bytes: {why}", region.len));
        remedies.push(what);
    }
    region.placement.pages = verify::where_pages_lie(region.as_ptr(), region.len)?;
    let off = region.placement.pages.off(node);
    if off > 0 {
        reasons.push(format!("{off} pages lie on other nodes"));
        remedies.push("start it on a thread pinned to the node, and give the node more free memory".into());
    }
    let absent = region.placement.pages.absent;
    if absent > 0 {
        reasons.push(format!("{absent} pages have lost their memory again (swapped out?)"));
        remedies.push("give the node more free memory".into());
    }
    region.placement.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    region.placement.remedy = (!remedies.is_empty()).then(|| remedies.join("; "));
    Ok(region)
}

/// A region of reserved huge pages, bound to the node before they are faulted in. Such pages have no fallback
/// to other nodes that could be verified and moved. Populating where there are none is an error here and
/// not a SIGBUS.
fn reserved(node: NodeId, len_bytes: usize) -> io::Result<Region> {
    let len = len_bytes.next_multiple_of(backing::HUGE);
    let memory = sys::map_huge(len)?;
    let start = memory.as_ptr().addr();
    // There are no fences: they would be huge pages too. Dropping the region unmaps it.
    let mut region = Region { memory, len, mapping: start..start + len, placement: not_placed_yet(node) };
    sys::mbind(start..start + len, &Policy::new(MPOL_BIND, node), MPOL_MF_MOVE)?;
    sys::populate(start..start + len)?;
    sys::dont_fork(start..start + len)?;
    let pages = verify::where_pages_lie(region.as_ptr(), len).map_err(io::Error::other)?;
    if pages.off(node) > 0 || pages.absent > 0 {
        return Err(io::Error::other(format!("they lie elsewhere: {pages}")));
    }
    region.placement =
        Placement { rung: Rung::Bound, backing: Backing::Reserved, pages, ..region.placement.clone() };
    Ok(region)
}

/// Refuses a node that cannot give memory, because a policy call would say no more than EINVAL.
fn check_node(node: NodeId) -> Result<()> {
    match Sysfs::at("/sys").nodes_with_memory()? {
        None if node.0 == 0 => {}
        None => {
            return Err(Error::input(format!(
                "node {node} does not exist: this kernel has node 0 only; use that"
            )));
        }
        Some(nodes) if !nodes.contains(node) => {
            return Err(Error::input(format!(
                "node {node} does not exist or has no memory; use one of nodes {nodes}"
            )));
        }
        Some(_) => {
            if let Some(allowed) = sysfs::allowed_memory_nodes()?.filter(|allowed| !allowed.contains(node)) {
                return Err(Error::input(format!(
                    "node {node} is outside of the cgroup's cpuset.mems ({allowed}); use one of those or widen it"
                )));
            }
        }
    }
    if let InheritedPolicy::Bind(nodes) = thread::inherited_policy()
        && !nodes.contains(node)
    {
        return Err(Error::input(format!(
            "node {node} is outside of the memory binding that the process was started with (nodes {nodes}); widen numactl --membind"
        )));
    }
    Ok(())
}

/// Seals the page before the region and the page after it. They catch accesses beyond its ends. They also
/// keep the region a mapping of its own, so that /proc/self/numa_maps has an account of it alone.
fn fence(region: &Region, page: usize) -> Result<()> {
    let all = &region.mapping;
    for range in [all.start..all.start + page, all.end - page..all.end] {
        // SAFETY: both pages belong to the region's mapping and lie outside of its usable part.
        unsafe { sys::seal(range) }
            .map_err(|e| Error::io("cannot fence a region (mprotect)", e, "see mprotect(2)"))?;
    }
    sys::dont_fork(all.clone())
        .map_err(|e| Error::io("cannot keep a region out of children (MADV_DONTFORK)", e, "see madvise(2)"))
}

struct Settled {
    /// How many bytes from the start are present and, as far as one can see, on the node.
    len: usize,
    /// Why that is not all, and what to do.
    why: Option<(String, String)>,
}

/// Populates step by step and stops when memory runs out.
fn settle(region: &Region, node: NodeId) -> Result<Settled> {
    let start = region.as_ptr().addr();
    let mut done = 0;
    while done < region.len {
        let step = start + done..start + (done + STEP).min(region.len);
        let headroom = headroom::bytes()?;
        if headroom.bytes < step.len() as u64 {
            let why =
                format!("only {} MiB more can be taken safely {}", headroom.bytes >> 20, headroom.limit);
            return stopped(done, node, (why, "ask for smaller pools or free memory".into()));
        }
        populate(step.clone()).map_err(|e| {
            Error::io(
                format_args!("cannot populate memory on node {node}"),
                e,
                "free memory or ask for smaller pools",
            )
        })?;
        if let Some(stray) = first_stray(region, step, node) {
            let why = format!("node {node} has no more free memory");
            let what = "ask for smaller pools or free memory on the node (numactl --hardware, drop caches)";
            return stopped(stray - start, node, (why, what.into()));
        }
        done += STEP.min(region.len - done);
    }
    Ok(Settled { len: done, why: None })
}

fn stopped(len: usize, node: NodeId, why: (String, String)) -> Result<Settled> {
    if len == 0 {
        return Err(Error::platform(format!("no memory for a region on node {node}: {}; {}", why.0, why.1)));
    }
    Ok(Settled { len, why: Some(why) })
}

fn populate(range: Range<usize>) -> io::Result<()> {
    match sys::populate(range.clone()) {
        // A kernel before 5.14.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            for page in range.step_by(sys::page_size()) {
                // SAFETY: the page is writable memory of a region that nobody else knows yet.
                unsafe { std::ptr::with_exposed_provenance_mut::<u8>(page).write_volatile(0) };
            }
            Ok(())
        }
        other => other,
    }
}

/// The lowest page of the step that is not on the node and cannot be moved there. Where pages cannot be asked
/// about one by one (move_pages is refused) the region's account as a whole is checked: all earlier steps
/// were clean, so a page elsewhere counts against this whole step.
fn first_stray(region: &Region, step: Range<usize>, node: NodeId) -> Option<usize> {
    let Ok(away) = away_from(node, step.clone()) else {
        let whole = verify::where_pages_lie(region.as_ptr(), region.len);
        return whole.is_ok_and(|pages| pages.off(node) > 0).then_some(step.start);
    };
    if away.is_empty() {
        return None;
    }
    // The result of the calls does not matter: the check afterwards decides.
    verify::move_home(&away, node);
    // A huge page for which the node has no space is split on its way. Since Linux 6.12 the kernel then
    // replaces those of its pages that are all zero by the shared page of zeroes, so they lie on no node at
    // all. If they were left so, a later access would fault them in under the binding, on a full node: an OOM
    // kill. (Seen in the guest 4odd: 3272 such pages.)
    let again = populate(step.clone());
    let left = away_from(node, step).ok()?.first().copied();
    if let (Err(error), None) = (&again, left) {
        tracing::debug!(%error, "populating again failed, yet every page is there");
    }
    left
}

/// The pages of the range that are not known to be on the node, in ascending order: on another one, or
/// nowhere.
fn away_from(node: NodeId, range: Range<usize>) -> io::Result<Vec<usize>> {
    let (_, placed) = verify::ask_each_page(range.clone())?;
    let mut home = placed.into_iter().filter(|(_, at)| *at == node).map(|(page, _)| page).peekable();
    Ok(range.step_by(sys::page_size()).filter(|page| home.next_if_eq(page).is_none()).collect())
}

/// Gives everything after the first `len` bytes back, except for the page that becomes the new fence.
fn shorten(region: &mut Region, len: usize, page: usize) -> Result<()> {
    let end = region.as_ptr().addr() + len;
    let failed = |e| Error::io("cannot give back the end of a region (munmap)", e, "see munmap(2)");
    // SAFETY: the pages from `end` belong to the region's mapping and nobody has been given them.
    unsafe {
        sys::seal(end..end + page).map_err(failed)?;
        sys::unmap(end + page..region.mapping.end).map_err(failed)?;
    }
    region.mapping.end = end + page;
    region.len = len;
    Ok(())
}

/// Binds the region, after it has settled. Every page is present and, as far as one can see, on the node, so
/// nothing is faulted in under the binding, and there is no OOM kill.
fn bind(region: &Region, settled: &Settled, node: NodeId) -> io::Result<()> {
    debug_assert!(region.len <= settled.len, "pages that were not populated are bound");
    let range = region.as_ptr().addr()..region.as_ptr().addr() + region.len;
    sys::mbind(range, &Policy::new(MPOL_BIND, node), MPOL_MF_MOVE)
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// Seen to fail: without the assertion.
    #[test]
    fn what_was_not_populated_is_not_bound() {
        let node = Topology::discover().unwrap().memory_nodes().first().unwrap();
        let region = Region::new(node, 2 * sys::page_size()).unwrap();
        let settled = Settled { len: sys::page_size(), why: None };
        assert!(std::panic::catch_unwind(|| bind(&region, &settled, node)).is_err());
    }
}
