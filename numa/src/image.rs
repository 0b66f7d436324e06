//! The program's own image: the loader's mappings of its files, copied to the node that the process runs on.
//!
//! A file's pages lie in the page cache, on the node of the process that read the file first. Every process
//! that maps them reads them there: constants, jump tables, unwind tables. A process that runs on one node
//! can have a copy of what is only read, at the same addresses, so that pointers to it stay valid. Code stays
//! where it is: fetching it is no load, cores run it from their caches, and profilers, debuggers and uprobes
//! find it by its file.

use std::{io, io::Read, ops::Range, path::Path};

use crate::region::headroom::{self, Headroom};
use crate::{Error, Result, sys, verify};

/// One mapping of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The file's name, without its folder.
    pub file: String,
    /// What may be done with it.
    pub kind: Kind,
    /// Where it is mapped.
    pub addresses: Range<usize>,
}

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Read: constants, and what the loader wrote before it made it read-only (RELRO).
    Constants,
    /// Read and written: variables that have an initial value in the file.
    Variables,
    /// Run.
    Code,
}

/// Gives the process copies of its own of everything in its image that is read or written, and returns the
/// mappings that the image consists of. They are the mappings that the loader made of the program, its
/// libraries and itself (dl_iterate_phdr(3)), and no other file's. The calling thread's CPU and memory policy
/// decide where the copies lie; [`where_pages_lie`](crate::verify::where_pages_lie) tells. What cannot be
/// copied stays as it is, with a line in the log.
///
/// The kernel may have no memory left when it moves a copy to its place, after it has unmapped what was
/// there. Then the process ends by SIGABRT, with a line on stderr, or by SIGSEGV where the C library needs
/// the lost memory to write that line. mremap(2), madvise(2) (MADV_POPULATE_WRITE, Linux 5.14), proc(5).
///
/// Call it first in `main`.
///
/// # Safety
/// Until it returns nothing else in the process maps, unmaps or protects memory, or loads a library: no
/// signal handler, and no thread that is not in /proc/self/task (a child of vfork(2)). The loader's mappings
/// are as the loader left them: nobody has put memory of a device, or memory that is to be seen in the file,
/// in the place of a part of them.
///
/// # Errors
/// - [`ErrorKind::Input`](crate::ErrorKind::Input) when the process has other threads, which might change the
///   mappings meanwhile.
/// - [`ErrorKind::Platform`](crate::ErrorKind::Platform) when the machine or a control group has less memory
///   left than the copies take. Nothing was copied then.
/// - [`ErrorKind::Io`](crate::ErrorKind::Io) when /proc cannot be read.
pub unsafe fn bring_here() -> Result<Vec<Segment>> {
    const PROC: &str = "is /proc mounted and readable?";
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|e| Error::io(format_args!("cannot read {path}"), e, PROC))
    };
    let threads =
        std::fs::read_dir("/proc/self/task").map_err(|e| Error::io("cannot count threads", e, PROC))?;
    if threads.count() != 1 {
        return Err(Error::input(
            "the image can be copied only before the process has other threads; do it first in main",
        ));
    }
    let loaded = sys::loaded_segments();
    let maps = read("/proc/self/maps")?;
    let image: Vec<_> = maps.lines().filter_map(segment).filter(|s| is_loaded(s, &loaded)).collect();
    fits(&image, &headroom::bytes()?)?;
    for segment in &image {
        let range = segment.addresses.clone();
        let copied = match segment.kind {
            // SAFETY: the mapping is private and nobody can write to it, so it holds the same afterwards; the
            // loader made it. This is the only thread, and the caller promises that nobody maps or protects
            // anything else there meanwhile.
            Kind::Constants => unsafe { copy(range) },
            Kind::Variables => sys::populate(range),
            Kind::Code => Ok(()),
        };
        if let Err(error) = copied {
            tracing::warn!(file = segment.file, kind = ?segment.kind, %error, "a part of the program stays where its file is cached");
        }
    }
    Ok(image)
}

/// Whether a mapping is a part of what the loader mapped. The kernel merges neighbours of one file and one
/// protection into one mapping.
fn is_loaded(segment: &Segment, loaded: &[Range<usize>]) -> bool {
    let Range { start, end } = segment.addresses;
    loaded.iter().any(|range| range.start <= start && end <= range.end)
}

/// Checks that copies of all that is copied fit into the memory that can still be taken.
fn fits(image: &[Segment], headroom: &Headroom) -> Result<()> {
    let wanted: usize = image.iter().filter(|s| s.kind != Kind::Code).map(|s| s.addresses.len()).sum();
    if wanted as u64 <= headroom.bytes {
        return Ok(());
    }
    Err(Error::platform(format!(
        "copies of the program's constants and variables take {wanted} bytes, and {} are left {}; free memory or raise the limit",
        headroom.bytes, headroom.limit
    )))
}

/// # Safety
/// As for [`sys::put_in_place`], for a mapping that may be read.
unsafe fn copy(range: Range<usize>) -> io::Result<()> {
    let fresh = sys::map(range.len())?;
    // SAFETY: a mapping of this length that is ours alone; all zeroes are valid bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(fresh.as_ptr(), range.len()) };
    let moved = read(range.clone(), bytes).and_then(|()| {
        // SAFETY: the copy is a whole mapping of ours that nobody uses beside this; for the rest the caller
        // answers.
        unsafe { sys::put_in_place(fresh, range.clone()) }
    });
    if moved.is_err() {
        let start = fresh.as_ptr().addr();
        // SAFETY: it was not moved, and is nobody's but ours.
        unsafe { sys::unmap(start..start + range.len()) }?;
    }
    moved
}

/// Reads memory of ours by way of the kernel. The kernel answers with EFAULT where a load would end in a
/// signal: the file has become shorter. It goes through a pipe, because a pipe needs no privilege:
/// /proc/self/mem belongs to root when the program's file has capabilities, and filters refuse
/// process_vm_readv(2).
fn read(range: Range<usize>, mut bytes: &mut [u8]) -> io::Result<()> {
    // Every pipe holds that much, so that no write waits.
    const AT_ONCE: usize = 4096;
    let (mut reader, writer) = io::pipe()?;
    let mut from = range.start;
    while !bytes.is_empty() {
        let moved = sys::write_from(&writer, from..range.end.min(from + AT_ONCE))?;
        let (part, rest) = bytes.split_at_mut(moved);
        reader.read_exact(part)?;
        (from, bytes) = (from + moved, rest);
    }
    Ok(())
}

/// A line of /proc/self/maps that is a private mapping of a file, such as
/// `55d0a000-55d0c000 r--p 00002000 08:01 131 /usr/bin/annulus`.
fn segment(line: &str) -> Option<Segment> {
    let addresses = verify::mapping(line)?;
    let mut words = line.split_ascii_whitespace().skip(1);
    let rights = words.next()?;
    let path = words.nth(3).filter(|path| path.starts_with('/'))?;
    let kind = match rights {
        "r--p" => Kind::Constants,
        "rw-p" => Kind::Variables,
        "r-xp" => Kind::Code,
        _ => return None,
    };
    let file = Path::new(path).file_name()?.to_string_lossy().into_owned();
    Some(Segment { file, kind, addresses })
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Constants => "constants",
            Kind::Variables => "variables",
            Kind::Code => "code",
        };
        write!(f, "{kind} of {}", self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_way_of_the_kernel() {
        let original: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        let start = original.as_ptr().addr();
        let mut copy = vec![0; original.len()];
        read(start..start + original.len(), &mut copy).unwrap();
        assert_eq!(copy, original);
        // What is not there is an error and no signal.
        let gap = sys::map(8192).unwrap().as_ptr().addr();
        // SAFETY: the second page is this test's and unused.
        unsafe { sys::unmap(gap + 4096..gap + 8192) }.unwrap();
        let error = read(gap..gap + 8192, &mut vec![0; 8192]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    fn constants(addresses: Range<usize>) -> Segment {
        Segment { file: "x".to_owned(), kind: Kind::Constants, addresses }
    }

    /// Seen to fail: with `is_loaded` true for everything.
    #[test]
    fn what_the_loader_did_not_map_is_no_part_of_the_image() {
        let loaded = sys::loaded_segments();
        static CONSTANT: u64 = 7;
        let page = (&raw const CONSTANT).addr() / 4096 * 4096;
        assert!(is_loaded(&constants(page..page + 4096), &loaded), "{page:x}: {loaded:x?}");
        // A mapping that no library is in.
        let other = sys::map(8192).unwrap().as_ptr().addr();
        assert!(!is_loaded(&constants(other..other + 8192), &loaded));
        // Nor one that goes beyond what was loaded.
        let last = loaded.iter().map(|range| range.end).max().unwrap();
        assert!(!is_loaded(&constants(last - 4096..last + 4096), &loaded));
        // SAFETY: the mapping is this test's.
        unsafe { sys::unmap(other..other + 8192) }.unwrap();
    }

    #[test]
    fn an_image_that_memory_is_too_small_for_is_refused_whole() {
        let image = [constants(0..4096), Segment { kind: Kind::Code, ..constants(4096..1 << 30) }];
        let headroom = |bytes| Headroom { bytes, limit: "on a machine".to_owned() };
        fits(&image, &headroom(4096)).unwrap();
        let refused = fits(&image, &headroom(4095)).unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Platform);
        assert!(refused.to_string().contains("4095 are left on a machine"), "{refused}");
    }

    #[test]
    fn only_private_mappings_of_files_are_the_image() {
        let kinds = [("r--p", Kind::Constants), ("rw-p", Kind::Variables), ("r-xp", Kind::Code)];
        for (rights, kind) in kinds {
            let line = format!("55d0a000-55d0c000 {rights} 00002000 08:01 131        /usr/bin/annulus");
            let file = "annulus".to_owned();
            assert_eq!(segment(&line), Some(Segment { file, kind, addresses: 0x55d0_a000..0x55d0_c000 }));
        }
        for other in [
            "55d0a000-55d0c000 r--s 00002000 08:01 131 /var/cache/table",
            "55d0a000-55d0c000 ---p 00002000 08:01 131 /usr/bin/annulus",
            "55d0a000-55d0c000 rw-p 00000000 00:00 0 [heap]",
            "7ffc1000-7ffc5000 r--p 00000000 00:00 0 [vvar]",
            "7f00a000-7f00c000 rw-p 00000000 00:00 0 ",
        ] {
            assert_eq!(segment(other), None, "{other}");
        }
    }
}
