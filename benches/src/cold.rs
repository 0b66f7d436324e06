//! Files that are not in memory: dropped from the page cache, and seen to be gone.

use rustix::fs::{Advice, fadvise};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a page may still be in use somewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drops `file` from the page cache and returns when none of its pages is there.
///
/// The kernel keeps pages that somebody holds, such as those in a send queue whose last bytes were not
/// acknowledged yet: then it is tried again, after a nudge to every CPU. Source: posix_fadvise(2),
/// mincore(2).
///
/// # Errors
/// Pages are still there after ten seconds; the file cannot be mapped.
pub fn drop_pages(file: &File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        fadvise(file, 0, None, Advice::DontNeed)?;
        let left = resident(file)?;
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let text = format!("{left} pages of the file do not leave memory: is it on tmpfs, or dirty?");
            return Err(io::Error::other(text));
        }
        nudge()?;
        // An acknowledgement comes within 40 ms by itself; nothing tells us of it.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has every CPU that we may use receive a packet.
///
/// A packet that was read on another CPU than the one that made it is given back to that CPU, which frees it,
/// and the file's pages in it, when it next receives something: an idle one never does. Source: kernel,
/// net/core/skbuff.c, `skb_attempt_defer_free` (Linux 5.19).
fn nudge() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    let ours = sched_getaffinity(None)?;
    for cpu in 0..CpuSet::MAX_CPU {
        let mut only = CpuSet::new();
        only.set(cpu);
        // Refused for CPUs that there are not, or that are not for us.
        if sched_setaffinity(None, &only).is_ok() {
            // A packet of loopback is received where it is sent; how that goes does not matter.
            let _ = socket.send(&[0]).and_then(|_| socket.recv(&mut [0]));
        }
    }
    Ok(sched_setaffinity(None, &ours)?)
}

/// Opens a file that will be dropped, and has its dirty pages written: only clean ones can leave.
///
/// # Errors
/// It cannot be opened or written.
pub fn open(path: &Path) -> io::Result<File> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    // For writing, because mincore(2) tells the truth only to those who may write or own the file.
    let file = File::options().read(true).write(true).open(path).map_err(named)?;
    file.sync_all().map_err(named)?;
    Ok(file)
}

/// How many pages of `file` are in memory.
///
/// # Errors
/// It cannot be mapped.
pub fn resident(file: &File) -> io::Result<usize> {
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(0);
    }
    let mut pages = vec![0_u8; len.div_ceil(rustix::param::page_size())];
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is ours and `len` long, and `pages` has a byte for each of its pages.
    let code = unsafe { libc::mincore(at, len, pages.as_mut_ptr()) };
    let told = if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: nothing points into the mapping, which was made above.
    unsafe { libc::munmap(at, len) };
    told.map(|()| pages.iter().filter(|page| **page & 1 == 1).count())
}
