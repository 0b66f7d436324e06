//! What a sealed ring may do: the operations of this library and nothing else, for as long as it lives.
//!
//! A seccomp filter sees no operation of a ring, so the ring itself is restricted
//! (`IORING_REGISTER_RESTRICTIONS`, Linux 5.10). It is made disabled, restricted, and then enabled. From then
//! on a forbidden operation completes with `EACCES`. The kernel checks each SQE against a bitmap.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode};

/// The codes of operations, and their names.
macro_rules! operations {
    ($($name:ident)*) => {
        const OPERATIONS: &[u8] = &[$(opcode::$name::CODE),*];
        #[cfg(all(test, not(loom)))]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

// Every operation that a file of `op/` or `net/op/` asks for, and what a ring asks for by itself. For a
// message to another ring the sender's list counts.
operations! {
    Accept AsyncCancel Close Connect Fadvise Fallocate Fsync Ftruncate MkDirAt MsgRingData Nop OpenAt2 PollAdd
    Read ReadFixed Recv RecvMsg RenameAt Send SendMsg SendZc Splice Statx UnlinkAt Write WriteFixed Writev
}

/// `enum io_uring_register_op` of linux/io_uring.h: buffers and their end, what the kernel knows, io-wq's
/// CPUs and bounds, the ring's descriptor and its end, buffer rings and their end, polling of devices.
const REGISTRATIONS: [u8; 11] = [0, 1, 8, 17, 19, 20, 21, 22, 23, 27, 28];

/// `IOSQE_*` of linux/io_uring.h: links, a worker at once, a provided buffer, no CQE for success.
const FLAGS: u8 = 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6;

/// Restricts a ring that is disabled.
///
/// # Errors
/// What the kernel says to the restrictions. The ring is as it was then.
pub(super) fn seal(ring: &IoUring) -> io::Result<()> {
    let operations = OPERATIONS.iter().copied().map(Restriction::sqe_op);
    let registrations = REGISTRATIONS.into_iter().map(Restriction::register_op);
    let flags = [Restriction::sqe_flags_allowed(FLAGS)];
    let mut all: Vec<Restriction> = operations.chain(registrations).chain(flags).collect();
    ring.submitter().register_restrictions(&mut all)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use io_uring::types;

    use super::*;

    /// A ring that is sealed.
    fn sealed() -> IoUring {
        let ring = IoUring::builder().setup_r_disabled().build(8).unwrap();
        seal(&ring).unwrap();
        ring.submitter().register_enable_rings().unwrap();
        ring
    }

    fn result(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> i32 {
        // SAFETY: the operations of these tests name no memory, or memory that outlives the wait.
        unsafe { ring.submission().push(entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    /// Files that name operations of others: those that are refused here, and examples of one's own.
    const NOT_OURS: [&str; 2] = ["ring/seal.rs", "src/operation.rs"];

    /// The names of operations behind `opcode::` in the files below `folder`.
    fn asked_for(folder: &std::path::Path, into: &mut std::collections::BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                asked_for(&path, into);
            } else if path.extension().is_some_and(|it| it == "rs")
                && !NOT_OURS.iter().any(|it| path.ends_with(it))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text
                    .split("opcode::")
                    .skip(1)
                    .map(|rest| rest.chars().take_while(char::is_ascii_alphanumeric).collect::<String>());
                into.extend(names.filter(|name| !name.is_empty()));
            }
        }
    }

    /// An operation that is added is added to the list. Seen to fail: without Writev.
    #[test]
    fn no_operation_is_forgotten() {
        let mut names = std::collections::BTreeSet::new();
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        // The tests may run where the source is not.
        if !source.exists() {
            return;
        }
        asked_for(&source, &mut names);
        assert!(names.len() > 20, "{names:?}");
        // Variants of one operation of the kernel's.
        let plain = |name: &str| match name {
            "OpenAt2" => name.to_owned(),
            _ => name.trim_end_matches('2').trim_end_matches("Bundle").trim_end_matches("Multi").to_owned(),
        };
        let missing: Vec<_> = names.iter().filter(|name| !NAMES.contains(&plain(name).as_str())).collect();
        assert!(missing.is_empty(), "not in seal.rs: {missing:?}");
    }

    /// Seen to fail: without the restrictions.
    #[test]
    fn what_the_library_does_not_ask_for_is_refused() {
        let mut ring = sealed();
        let flags = types::FsyncFlags::empty();
        assert_eq!(result(&mut ring, &opcode::Nop::new().build()), 0);
        assert_eq!(result(&mut ring, &opcode::Fsync::new(types::Fd(-1)).flags(flags).build()), -libc::EBADF);
        let path = c"/";
        let others = [
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build(),
            opcode::SymlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr(), path.as_ptr()).build(),
            opcode::Shutdown::new(types::Fd(0), 0).build(),
            opcode::Nop::new().build().flags(io_uring::squeue::Flags::IO_DRAIN),
        ];
        for entry in &others {
            assert_eq!(result(&mut ring, entry), -libc::EACCES, "{entry:?}");
        }
        let refused = ring.submitter().register_eventfd(0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let again = ring.submitter().register_restrictions(&mut [Restriction::sqe_op(opcode::Socket::CODE)]);
        assert!(again.is_err(), "no restriction is taken back");
    }
}
