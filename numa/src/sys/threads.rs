//! Threads: where they may run, and where their memory lies.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use libc::c_int;

use super::{check, page_size};
use crate::CpuSet;
use crate::set::{IdSet, Word};

/// The CPUs that a thread may run on; 0 is the calling one.
pub(crate) fn affinity(tid: i32) -> io::Result<CpuSet> {
    // The kernel answers EINVAL while the mask is smaller than its own, so the mask grows until it fits.
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

/// Lets the calling thread run on the CPUs of `mask`, in the form that the kernel takes. It is a system call
/// and nothing else.
pub(crate) fn set_affinity_mask(mask: &[Word]) -> io::Result<()> {
    // SAFETY: the kernel reads the given length of `mask`, which lives across the call.
    let rc = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    check(rc).map(drop)
}

/// A thread of [`wait_on_a_thread`]. If it is not joined, only the thread itself is lost.
pub(crate) struct Waiting(libc::pthread_t);

impl Waiting {
    /// Waits for the thread's end, which must be near.
    pub(crate) fn join(self) {
        // SAFETY: a thread that pthread_create has made, joined once, because `self` is given up.
        unsafe { libc::pthread_join(self.0, std::ptr::null_mut()) };
    }
}

/// Starts a thread that locks `gate` and ends. It allocates nothing, so that glibc makes no heap for it, and
/// its stack is too small to be given to a thread of Rust's later.
pub(crate) fn wait_on_a_thread(gate: &Arc<Mutex<()>>) -> io::Result<Waiting> {
    const STACK: usize = 64 << 10;
    extern "C" fn wait(gate: *mut c_void) -> *mut c_void {
        // SAFETY: the pointer is of `Arc::into_raw` below, and nobody else takes it back.
        let gate = unsafe { Arc::from_raw(gate.cast_const().cast::<Mutex<()>>()) };
        drop(gate.lock());
        std::ptr::null_mut()
    }
    let for_it = Arc::into_raw(Arc::clone(gate));
    // SAFETY: the attribute object is initialised before its use and destroyed once, and `thread` is written
    // where 0 is returned.
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

/// The calling thread's stack as glibc knows it: lowest address to just above the highest
/// (pthread_getattr_np(3)).
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

/// The calling thread's thread-local storage, one range for each loaded object that has some here
/// (dl_iterate_phdr(3)).
pub(crate) fn tls_blocks() -> Vec<Range<usize>> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, size: usize, out: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid record of `size` bytes, whose headers stay mapped while it
        // runs, and our own vector; pushing may allocate, which is allowed under the loader's lock.
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

/// The ranges to which the loader mapped what it loaded: the pages of the loadable segments of the program,
/// its libraries and the loader itself. Segments that touch are one range (dl_iterate_phdr(3)).
pub(crate) fn loaded_segments() -> Vec<Range<usize>> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid record, whose headers stay mapped while it runs, and our own
        // vector; pushing may allocate, which is allowed under the loader's lock.
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
