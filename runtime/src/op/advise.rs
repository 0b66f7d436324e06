//! Tell the kernel how a file will be read. Linux 5.6; `posix_fadvise(2)`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One fadvise. The length is 32 bits wide in the entry; 0 means up to the end of the file.
pub(crate) struct Advise {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// `POSIX_FADV_*`.
    pub(crate) advice: i32,
}

// SAFETY: the entry points to nothing and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Advise {
    const NAME: &'static str = "fadvise";

    fn sqes(&mut self) -> Sqes {
        opcode::Fadvise::new(types::Fd(self.file.as_raw_fd()), i64::from(self.len), self.advice)
            .offset(self.offset)
            .build()
            .into()
    }

    fn runs_on_iowq(&self) -> bool {
        // As the kernel's `io_fadvise_force_async` has it: advice that only sets a flag of the file runs
        // inline.
        !matches!(
            self.advice,
            libc::POSIX_FADV_NORMAL | libc::POSIX_FADV_RANDOM | libc::POSIX_FADV_SEQUENTIAL
        )
    }
}
