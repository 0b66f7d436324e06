//! All system calls and libnuma calls of this crate, each behind a function that is as safe as its signature says.
//!
//! The libc crate has the numbers but no wrappers for the memory policy calls; libnuma has wrappers, but they print to stderr on
//! failure, so only its allocator is used. Sources: mbind(2), set_mempolicy(2), get_mempolicy(2), move_pages(2),
//! sched_setaffinity(2), madvise(2), numa(3).
//!
//! `maxnode` in the policy calls counts one more than the highest bit that the kernel looks at (mm/mempolicy.c, `get_nodes`:
//! `--maxnode`): for one word pass 65, not 64, else node 63 is cut off.

use std::{
    ffi::c_void,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::{Arc, Mutex},
};

use libc::{c_int, c_long};

use crate::{
    CpuSet, NodeId, NodeSet,
    set::{IdSet, Word},
};

/// Absent from libc: Linux 5.15, mbind(2).
pub(crate) const MPOL_PREFERRED_MANY: c_int = 5;
/// Absent from libc: Linux 6.9.
pub(crate) const MPOL_WEIGHTED_INTERLEAVE: c_int = 6;
/// `MPOL_MF_MOVE` of mbind(2), absent from libc: move the process's own pages to where the policy wants them.
pub(crate) const MPOL_MF_MOVE: c_int = 2;
/// The bits above the mode in the value that get_mempolicy(2) gives: static, relative, NUMA balancing.
const MODE_FLAGS: c_int = (1 << 15) | (1 << 14) | (1 << 13);
/// `MAX_NUMNODES` is `1 << NODES_SHIFT` and NODES_SHIFT at most 10: get_mempolicy(2) wants room for all of them.
const MAX_NODES: usize = 1024;

#[link(name = "numa")]
unsafe extern "C" {
    fn numa_available() -> c_int;
    fn numa_set_bind_policy(strict: c_int);
    fn numa_alloc_onnode(size: usize, node: c_int) -> *mut c_void;
}

fn check(rc: c_long) -> io::Result<c_long> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// Bytes in a page.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// The CPUs that a thread may run on; 0 is the calling one.
pub(crate) fn affinity(tid: i32) -> io::Result<CpuSet> {
    // The kernel answers EINVAL while the mask is smaller than its own: grow until it fits.
    let mut mask: Vec<Word> = vec![0; 1024 / Word::BITS as usize];
    loop {
        // SAFETY: the kernel writes at most the given length into `mask`, which lives across the call.
        let rc = unsafe {
            libc::syscall(libc::SYS_sched_getaffinity, tid, size_of_val(mask.as_slice()), mask.as_mut_ptr())
        };
        match check(rc) {
            Ok(_) => return Ok(IdSet::from_mask(&mask)),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && mask.len() < 4096 => {
                mask.resize(mask.len() * 2, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Lets the calling thread run on `cpus` only. When it returns, the thread runs on one of them.
pub(crate) fn set_affinity(cpus: &CpuSet) -> io::Result<()> {
    set_affinity_mask(&cpus.to_mask())
}

/// The same, with the set as the kernel takes it. Nothing but a system call.
pub(crate) fn set_affinity_mask(mask: &[Word]) -> io::Result<()> {
    // SAFETY: the kernel reads the given length of `mask`, which lives across the call.
    let rc = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    check(rc).map(drop)
}

/// A memory policy as the kernel gives and takes it: mode, mode flags, nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    mode: c_int,
    flags: c_int,
    pub(crate) nodes: NodeSet,
}

impl Policy {
    pub(crate) fn new(mode: c_int, nodes: impl Into<NodeSet>) -> Self {
        Self { mode, flags: 0, nodes: nodes.into() }
    }

    /// The mode without its flags: one of `MPOL_*`.
    pub(crate) fn mode(&self) -> c_int {
        self.mode
    }
}

/// A node mask as the policy calls take it.
struct Nodemask(Vec<Word>);

impl Nodemask {
    fn new(nodes: &NodeSet) -> Self {
        Self(nodes.to_mask())
    }

    /// Null for the empty set: with a pointer and `maxnode` 0 the kernel counts down from 0 and answers EINVAL.
    fn as_ptr(&self) -> *const Word {
        if self.0.is_empty() { std::ptr::null() } else { self.0.as_ptr() }
    }

    fn maxnode(&self) -> usize {
        self.0.len() * Word::BITS as usize + 1
    }
}

/// The calling thread's memory policy.
pub(crate) fn policy() -> io::Result<Policy> {
    let mut mode: c_int = 0;
    let mut mask = [0 as Word; MAX_NODES / Word::BITS as usize];
    // SAFETY: the kernel writes one int and at most `maxnode - 1` bits, which is the size of `mask`; both live across the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            mask.as_mut_ptr(),
            MAX_NODES + 1,
            std::ptr::null_mut::<c_void>(),
            0,
        )
    };
    check(rc)?;
    Ok(Policy { mode: mode & !MODE_FLAGS, flags: mode & MODE_FLAGS, nodes: IdSet::from_mask(&mask) })
}

/// Sets the calling thread's memory policy.
pub(crate) fn set_policy(policy: &Policy) -> io::Result<()> {
    PolicyToSet::new(policy).set()
}

/// A memory policy in the form that the kernel takes, so that setting it is a system call and nothing else.
pub(crate) struct PolicyToSet {
    mode: c_int,
    mask: Nodemask,
}

impl PolicyToSet {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { mode: policy.mode | policy.flags, mask: Nodemask::new(&policy.nodes) }
    }

    /// Makes it the calling thread's.
    pub(crate) fn set(&self) -> io::Result<()> {
        let mask = &self.mask;
        // SAFETY: the kernel reads `maxnode - 1` bits of `mask`, which is its size, and nothing through a null pointer.
        let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, mask.as_ptr(), mask.maxnode()) };
        check(rc).map(drop)
    }
}

/// Sets the memory policy of a range of pages. A policy changes where pages lie, never what they hold, so any range is safe: the
/// kernel answers EFAULT for one that is not mapped.
pub(crate) fn mbind(range: Range<usize>, policy: &Policy, flags: c_int) -> io::Result<()> {
    let mask = Nodemask::new(&policy.nodes);
    // SAFETY: the kernel reads `maxnode - 1` bits of `mask`, and neither reads nor changes the bytes of `range`.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            range.start,
            range.len(),
            policy.mode | policy.flags,
            mask.as_ptr(),
            mask.maxnode(),
            flags,
        )
    };
    check(rc).map(drop)
}

/// For each page address the node it lies on, or a negative errno (`-ENOENT`: never touched). Looks only.
pub(crate) fn look_at_pages(pages: &[usize], status: &mut [c_int]) -> io::Result<()> {
    assert_eq!(pages.len(), status.len());
    // SAFETY: the kernel reads `pages` and writes as many ints into `status`; with nodes = NULL it moves nothing.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    check(rc).map(drop)
}

/// Asks the kernel to move each page to `node`; `status` then says where each lies, or a negative errno. The kernel takes memory
/// of that node only and fails when there is none: it never starts an OOM kill.
pub(crate) fn move_pages_to(pages: &[usize], node: NodeId, status: &mut [c_int]) -> io::Result<()> {
    assert_eq!(pages.len(), status.len());
    let nodes = vec![node.0 as c_int; pages.len()];
    // SAFETY: the kernel reads `pages` and `nodes` and writes `status`, all of one length; moving a page keeps its bytes and address.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MPOL_MF_MOVE,
        )
    };
    check(rc).map(drop)
}

/// Does libnuma find a kernel with NUMA (numa(3), `numa_available`)? A seccomp filter does not change the answer.
pub(crate) fn libnuma_works() -> bool {
    // SAFETY: no arguments; must be called before other libnuma functions, which `libnuma_alloc` does.
    unsafe { numa_available() >= 0 }
}

/// `numa_alloc_onnode` with the "preferred" policy of `numa_set_bind_policy(0)`. libnuma keeps that choice per thread and has no
/// way to read it, so it is put back to libnuma's default (strict) rather than to what it was.
///
/// Trap: when the kernel refuses the policy libnuma prints to stderr and returns memory *without* a policy: ask the kernel first.
pub(crate) fn libnuma_alloc(len: usize, node: NodeId) -> Option<NonNull<u8>> {
    let node = c_int::try_from(node.0).ok()?;
    // SAFETY: the caller has checked `libnuma_works`; the functions take plain numbers and return a fresh mapping or null.
    unsafe {
        numa_set_bind_policy(0);
        let memory = numa_alloc_onnode(len, node);
        numa_set_bind_policy(1);
        NonNull::new(memory.cast())
    }
}

/// A fresh private mapping of zeroes, of the calling thread's policy.
pub(crate) fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// A fresh private mapping of reserved huge pages of 2 MiB, of the calling thread's policy (MAP_HUGETLB). `len` is a
/// multiple of that. ENOMEM when not so many are free in the machine.
pub(crate) fn map_huge(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// Asks for huge pages or against them (MADV_HUGEPAGE, MADV_NOHUGEPAGE): changes no byte.
pub(crate) fn advise(range: Range<usize>, advice: c_int) -> io::Result<()> {
    assert!(matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE));
    // SAFETY: the two pieces of advice allowed above change the size of pages, not what they hold.
    check(unsafe { libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), advice) }.into())
        .map(drop)
}

/// Makes a mapping read-only and moves it over another of the same length, which is gone then (mprotect(2), mremap(2)). Whoever
/// reads there sees either the one or the other, never nothing: the kernel does it under the lock that page faults take.
///
/// The kernel unmaps what is there before it moves, and can run out of memory in between (mm/mremap.c, `mremap_to`). Then nothing is there
/// any more, and the process is ended.
///
/// # Safety
/// `fresh` is a private anonymous mapping of `range.len()` bytes that nobody else uses. `range` is pages of a mapping that nobody can
/// write to, and `fresh` holds the same bytes. No other thread maps, unmaps or protects anything in `range` meanwhile.
pub(crate) unsafe fn put_in_place(fresh: NonNull<u8>, range: Range<usize>) -> io::Result<()> {
    // SAFETY: the caller owns `fresh`, and what is replaced held the same bytes under the same rights, so no reference notices.
    unsafe {
        check(libc::mprotect(fresh.as_ptr().cast(), range.len(), libc::PROT_READ).into())?;
        let at = std::ptr::without_provenance_mut::<c_void>(range.start);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // Made before: the constants may be what is gone then.
        let last_words = Vec::from(b"annulus: out of memory while the program's constants were moved\n");
        if libc::mremap(fresh.as_ptr().cast(), range.len(), range.len(), flags, at) == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            if !is_mapped(range) {
                libc::write(libc::STDERR_FILENO, last_words.as_ptr().cast(), last_words.len());
                libc::abort();
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Whether all pages of a range are mapped, whatever is there (mincore(2)).
pub(crate) fn is_mapped(range: Range<usize>) -> bool {
    let mut resident = vec![0; range.len().div_ceil(4096)];
    // SAFETY: a byte is written for each page of the range, whose pages are at least that large.
    let looked = unsafe {
        libc::mincore(std::ptr::without_provenance_mut(range.start), range.len(), resident.as_mut_ptr())
    };
    looked == 0
}

/// Writes memory to a descriptor without looking at it, and returns how much. EFAULT where nothing is mapped (write(2)). Not by
/// the C library's function, for which the address sanitizer forbids to read between variables.
pub(crate) fn write_from(to: impl AsFd, range: Range<usize>) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel checks the addresses that it reads; nothing of ours is written.
        let rc = unsafe { libc::syscall(libc::SYS_write, to.as_fd().as_raw_fd(), range.start, range.len()) };
        match check(rc) {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            other => return other.map(|n| n as usize),
        }
    }
}

/// Unmaps pages.
///
/// # Safety
/// The range is pages of one mapping of the caller's, and nobody uses them any more.
pub(crate) unsafe fn unmap(range: Range<usize>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    // SAFETY: the caller promises that the range is its own and unused.
    check(unsafe { libc::munmap(std::ptr::without_provenance_mut(range.start), range.len()) }.into())
        .map(drop)
}

/// Makes pages inaccessible and gives their memory back.
///
/// # Safety
/// The range is pages of a private anonymous mapping of the caller's, and nobody uses them any more.
pub(crate) unsafe fn seal(range: Range<usize>) -> io::Result<()> {
    // SAFETY: the caller promises that the range is its own and unused.
    unsafe {
        check(
            libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), libc::MADV_DONTNEED)
                .into(),
        )?;
        check(
            libc::mprotect(std::ptr::without_provenance_mut(range.start), range.len(), libc::PROT_NONE)
                .into(),
        )
        .map(drop)
    }
}

/// Keeps a range out of children of fork(2), in which a write to a page under I/O would be copied away from the device.
pub(crate) fn dont_fork(range: Range<usize>) -> io::Result<()> {
    // SAFETY: MADV_DONTFORK changes nothing in this process.
    check(
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), libc::MADV_DONTFORK)
        }
        .into(),
    )
    .map(drop)
}

/// Gives every page of a range memory, as a write would, without changing a byte (MADV_POPULATE_WRITE, Linux 5.14).
pub(crate) fn populate(range: Range<usize>) -> io::Result<()> {
    loop {
        // SAFETY: MADV_POPULATE_WRITE faults pages in and keeps their contents.
        let rc = unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(range.start),
                range.len(),
                libc::MADV_POPULATE_WRITE,
            )
        };
        match check(rc.into()) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
            other => return other.map(drop),
        }
    }
}

/// A thread of [`wait_on_a_thread`]. One that is not joined is lost, and nothing else.
pub(crate) struct Waiting(libc::pthread_t);

impl Waiting {
    /// Waits for its end, which it must be near.
    pub(crate) fn join(self) {
        // SAFETY: a thread that pthread_create has made, joined once, because `self` is given up.
        unsafe { libc::pthread_join(self.0, std::ptr::null_mut()) };
    }
}

/// Starts a thread that waits until it gets `gate`, and ends. It allocates nothing, so that glibc makes no heap for it, and its stack
/// is too small to be given to a thread of Rust's later.
pub(crate) fn wait_on_a_thread(gate: &Arc<Mutex<()>>) -> io::Result<Waiting> {
    const STACK: usize = 64 << 10;
    extern "C" fn wait(gate: *mut c_void) -> *mut c_void {
        // SAFETY: the pointer is of `Arc::into_raw` below, and nobody else takes it back.
        let gate = unsafe { Arc::from_raw(gate.cast_const().cast::<Mutex<()>>()) };
        drop(gate.lock());
        std::ptr::null_mut()
    }
    let for_it = Arc::into_raw(Arc::clone(gate));
    // SAFETY: the attribute object is initialised before its use and destroyed once, and `thread` is written where 0 is returned.
    let (rc, thread) = unsafe {
        let (mut attr, mut thread) = (std::mem::zeroed(), std::mem::zeroed());
        let mut rc = libc::pthread_attr_init(&raw mut attr);
        if rc == 0 {
            rc = libc::pthread_attr_setstacksize(&raw mut attr, STACK);
            if rc == 0 {
                rc = libc::pthread_create(&raw mut thread, &raw const attr, wait, for_it.cast_mut().cast());
            }
            libc::pthread_attr_destroy(&raw mut attr);
        }
        (rc, thread)
    };
    if rc != 0 {
        // SAFETY: no thread was started that would take it.
        drop(unsafe { Arc::from_raw(for_it) });
        return Err(io::Error::from_raw_os_error(rc));
    }
    Ok(Waiting(thread))
}

/// The calling thread's stack as glibc knows it: lowest address to just above the highest (pthread_getattr_np(3)).
pub(crate) fn stack_bounds() -> io::Result<Range<usize>> {
    let mut base = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attribute object is written by pthread_getattr_np before it is read, and destroyed once.
    let rc = unsafe {
        let mut attr = std::mem::zeroed();
        let mut rc = libc::pthread_getattr_np(libc::pthread_self(), &raw mut attr);
        if rc == 0 {
            rc = libc::pthread_attr_getstack(&raw const attr, &raw mut base, &raw mut size);
            libc::pthread_attr_destroy(&raw mut attr);
        }
        rc
    };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    Ok(base.addr()..base.addr() + size)
}

/// The thread descriptor that glibc keeps at the thread pointer.
pub(crate) fn thread_descriptor() -> usize {
    // SAFETY: pthread_self takes nothing and always succeeds.
    unsafe { libc::pthread_self() as usize }
}

/// The calling thread's thread-local storage, one range for each loaded object that has some here (dl_iterate_phdr(3)).
pub(crate) fn tls_blocks() -> Vec<Range<usize>> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, size: usize, out: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid record of `size` bytes, whose headers stay mapped while it runs, and our own
        // vector; pushing may allocate, which is allowed under the loader's lock.
        unsafe {
            if size < size_of::<libc::dl_phdr_info>() || (*info).dlpi_tls_data.is_null() {
                return 0;
            }
            let headers = std::slice::from_raw_parts((*info).dlpi_phdr, (*info).dlpi_phnum.into());
            let start = (*info).dlpi_tls_data.addr();
            let blocks = headers.iter().filter(|h| h.p_type == libc::PT_TLS && h.p_memsz > 0);
            (*out.cast::<Vec<Range<usize>>>()).extend(blocks.map(|h| start..start + h.p_memsz as usize));
        }
        0
    }
    let mut blocks: Vec<Range<usize>> = Vec::new();
    // SAFETY: `each` is called only while this call runs and gets the pointer to `blocks` back.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut blocks).cast()) };
    blocks
}

/// Where the loader mapped what it loaded: the pages of the loadable segments of the program, its libraries and the loader itself, those
/// that touch as one range (dl_iterate_phdr(3)).
pub(crate) fn loaded_segments() -> Vec<Range<usize>> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid record, whose headers stay mapped while it runs, and our own vector; pushing may
        // allocate, which is allowed under the loader's lock.
        unsafe {
            let base = (*info).dlpi_addr as usize;
            let headers = std::slice::from_raw_parts((*info).dlpi_phdr, (*info).dlpi_phnum.into());
            let loaded = headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_memsz > 0);
            (*out.cast::<Vec<Range<usize>>>()).extend(loaded.map(|h| {
                let start = base.wrapping_add(h.p_vaddr as usize);
                start / page_size() * page_size()
                    ..start.wrapping_add(h.p_memsz as usize).next_multiple_of(page_size())
            }));
        }
        0
    }
    let mut segments: Vec<Range<usize>> = Vec::new();
    // SAFETY: `each` is called only while this call runs and gets the pointer to `segments` back.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut segments).cast()) };
    segments.sort_by_key(|segment| segment.start);
    segments.dedup_by(|next, earlier| {
        let touches = next.start <= earlier.end;
        earlier.end = if touches { earlier.end.max(next.end) } else { earlier.end };
        touches
    });
    segments
}
