//! What the kernel writes to is not in a child that the process forks: neither copied at each write, nor kept
//! alive.

use std::ops::Range;

use annulus::buf::Block;
use annulus::{Result, Runtime};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus, setrlimit, waitpid};

use crate::things::pair;
use crate::{alone, common, is_child};

/// The mappings of this process: its line in /proc/self/smaps, its addresses, and its flags (`VmFlags` of
/// proc(5)).
fn mappings() -> Vec<(String, Range<usize>, String)> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut of, mut found) = (None, Vec::new());
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-')).and_then(|(from, to)| {
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        });
        if let Some(range) = range {
            of = Some((line.to_owned(), range));
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some((line, range)) = of.take()
        {
            found.push((line, range, format!("{flags} ")));
        }
    }
    found
}

/// Runs `look` on a core whose pool has grown, with an address in each of: the pool it began with, what it
/// grew by, each mapping of its ring.
fn with_memory<T: Send + 'static>(look: impl FnOnce(&[(&'static str, usize)]) -> T + Send + 'static) -> T {
    let settings = Runtime::builder().pool_bytes(256 << 10).pool_limit(1 << 20).ring_entries(64);
    common::on_one_core_of(settings, || async move {
        let mut block = Block::take().expect("a block is free");
        block.extend_from_slice(b"x");
        let mut addresses = vec![("pool", block.as_ptr().addr())];
        let (_listener, connected, accepted) = pair().await?;
        let mut leases = Vec::new();
        // A lease keeps its buffer: soon there is none left, and the next is of what the pool grew by.
        while annulus::cores::counters().pool_grown_bytes == 0 {
            connected.send_all("x").await?;
            leases.push(accepted.recv().await?.expect("a byte"));
        }
        addresses.push(("pool", leases.first().expect("one at least").as_ptr().addr()));
        addresses.push(("grown pool", leases.last().expect("one at least").as_ptr().addr()));
        let rings = mappings().into_iter().filter(|(line, ..)| line.contains("io_uring"));
        addresses.extend(rings.map(|(_, range, _)| ("ring", range.start)));
        assert!(addresses.len() > 3, "no mapping of a ring was found: {addresses:?}");
        let seen = look(&addresses);
        drop((block, leases));
        Result::Ok(seen)
    })
}

/// Seen to fail: with the ring built without `dontfork()`, and with the `madvise` of a region or of a ring's
/// view left out.
#[test]
fn rings_and_regions_are_not_copied_into_children() {
    if is_child() {
        return;
    }
    let _turn = alone();
    with_memory(|addresses| {
        let mappings = mappings();
        for (what, address) in addresses {
            let (line, _, flags) =
                mappings.iter().find(|(_, range, _)| range.contains(address)).expect("it is mapped");
            assert!(flags.contains(" dc "), "{what} would be copied by fork(2): {line} ({flags})");
        }
    });
}

/// How a forked child fares that reads a byte at `address`.
fn read_in_a_child(address: usize) -> WaitStatus {
    // SAFETY: the child makes system calls and reads one byte, which is all that a child of many threads may
    // do. What it reads is its own copy of memory that is mapped and initialised in the parent, or is not
    // there: then it is killed, which is asked.
    let pid = unsafe {
        match libc::fork() {
            0 => {
                // A death by the signal leaves neither a message nor a core file.
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
                std::hint::black_box(std::ptr::with_exposed_provenance::<u8>(address).read_volatile());
                libc::_exit(0)
            }
            pid => pid,
        }
    };
    let pid = Pid::from_raw(pid).expect("fork(2) made a child");
    waitpid(Some(pid), WaitOptions::empty()).unwrap().expect("it has ended").1
}

/// Seen to fail as above: the child reads on.
#[test]
fn a_forked_child_that_touches_them_is_killed() {
    if is_child() {
        return;
    }
    let _turn = alone();
    with_memory(|addresses| {
        let ours = Box::new(7_u8);
        let control = read_in_a_child(std::ptr::from_ref(&*ours).expose_provenance());
        assert_eq!(
            control.exit_status(),
            Some(0),
            "a child cannot even read what it has a copy of: {control:?}"
        );
        for (what, address) in addresses {
            let status = read_in_a_child(*address);
            assert_eq!(status.terminating_signal(), Some(libc::SIGSEGV), "{what}: {status:?}");
        }
    });
}
