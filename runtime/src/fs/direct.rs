//! Direct I/O: it bypasses the page cache, and needs aligned buffers, offsets and lengths.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::core::ask::ask;
use crate::op::statx::Statx;
use crate::{Error, ErrorKind};

/// The alignment that direct I/O on a file needs (`open(2)`, O_DIRECT; `statx(2)`, STATX_DIOALIGN, Linux
/// 6.1).
///
/// An empty [`Block`](crate::buf::Block) fits every alignment up to a page: it begins on a page, and its
/// capacity is a whole number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alignment {
    /// The buffer's address must be a multiple of this many bytes.
    pub memory: usize,
    /// Offset and length must be multiples of this many bytes.
    pub offset: u64,
}

/// Where the kernel does not say (a block device before 6.1, some file systems still), a page satisfies every
/// disk.
const PAGE: u32 = 4096;

impl Alignment {
    /// The alignment for a file that was opened with `O_DIRECT`.
    pub(super) async fn of(file: &Rc<OwnedFd>) -> io::Result<Self> {
        let stat = ask(Statx::new(Rc::clone(file))).await?;
        let told = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
        let (memory, offset) =
            if told { (stat.stx_dio_mem_align, stat.stx_dio_offset_align) } else { (PAGE, PAGE) };
        Ok(Self { memory: memory as usize, offset: u64::from(offset) })
    }

    /// Refuses what the kernel would refuse with a bare `EINVAL`.
    pub(super) fn check(self, what: &str, address: usize, offset: u64, len: usize) -> Result<(), Error> {
        let Self { memory, offset: unit } = self;
        let why = if !address.is_multiple_of(memory) {
            format!(
                "the buffer does not begin at a multiple of {memory} bytes; use an empty annulus::buf::Block"
            )
        } else if !offset.is_multiple_of(unit) {
            format!("offset {offset} is no multiple of {unit} bytes")
        } else if !(len as u64).is_multiple_of(unit) {
            format!("a length of {len} bytes is no multiple of {unit}")
        } else {
            return Ok(());
        };
        Err(Error::with_source(
            ErrorKind::Input,
            format!("misaligned direct {what}: {why}"),
            io::Error::from_raw_os_error(libc::EINVAL),
        ))
    }
}
