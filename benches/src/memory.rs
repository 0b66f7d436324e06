//! Memory of another process and of the kernel, for what a connection costs that does nothing.

use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// Bytes in use at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// The process's own: anonymous, shared anonymous (rings and regions are) and huge pages. Programs and
    /// libraries on disk are not counted.
    pub user: u64,
    /// The kernel's, of the whole machine: objects in slabs, buffers of TCP, stacks, page tables.
    pub kernel: u64,
}

/// What process `pid` and the kernel have now. Source: proc(5), `smaps_rollup`, `meminfo`; slabinfo(5);
/// `sockstat` counts pages.
///
/// # Errors
/// The process is gone, or /proc does not have the figures.
pub fn measure(pid: u32) -> io::Result<Memory> {
    let user = user(&read(&format!("/proc/{pid}/smaps_rollup"))?);
    // For root only; without it, slabs that are kept empty for later are counted as in use.
    let slabs = fs::read_to_string("/proc/slabinfo").ok();
    let kernel = kernel(&read("/proc/meminfo")?, slabs.as_deref(), &read("/proc/net/sockstat")?);
    let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} has no figures"));
    Ok(Memory {
        user: user.ok_or_else(|| missing("smaps_rollup"))?,
        kernel: kernel.ok_or_else(|| missing("meminfo"))?,
    })
}

/// What they have once the process gives nothing back any more: when two measurements in a row find the same,
/// or two seconds are over.
///
/// # Errors
/// As for [`measure`].
pub fn measure_when_settled(pid: u32) -> io::Result<Memory> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut last = measure(pid)?;
    loop {
        // Nothing tells of memory that another process gives back.
        thread::sleep(Duration::from_millis(100));
        let now = measure(pid)?;
        if now.user == last.user || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

/// Bytes in lines such as `Pss_Anon:   123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn user(rollup: &str) -> Option<u64> {
    let huge = |name| kib(rollup, name).unwrap_or(0);
    // Nobody else maps what is shared here, so proportional is whole.
    let own = kib(rollup, "Pss_Anon")? + kib(rollup, "Pss_Shmem")?;
    Some(own + huge("Private_Hugetlb") + huge("Shared_Hugetlb"))
}

/// Bytes of the objects that are in use, from lines of name, objects in use, objects, bytes of one.
fn objects(slabinfo: &str) -> u64 {
    let of_line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (active, _, size) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(active * size)
    };
    // The two lines of the head hold no numbers there.
    slabinfo.lines().filter_map(of_line).sum()
}

fn kernel(meminfo: &str, slabinfo: Option<&str>, sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    let mut words = tcp.split_ascii_whitespace().skip_while(|word| *word != "mem").skip(1);
    let pages: u64 = words.next()?.parse().ok()?;
    let slabs = slabinfo.map(objects).filter(|bytes| *bytes > 0).or_else(|| kib(meminfo, "Slab"));
    let sum = slabs? + kib(meminfo, "KernelStack")? + kib(meminfo, "PageTables")?;
    Some(sum + pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_prints_them() {
        let rollup = "55d-7ff ---p 00000000 00:00 0    [rollup]\nRss:   9 kB\nPss_Anon:   5 kB\nPss_File: 7 kB\n\
                      Pss_Shmem:  2 kB\nPrivate_Hugetlb:  2048 kB\n";
        assert_eq!(user(rollup), Some((5 + 2 + 2048) << 10));
        assert_eq!(user("Rss: 9 kB"), None);
        let sockstat = "sockets: used 9\nTCP: inuse 4 orphan 0 tw 0 alloc 8 mem 3\nUDP: inuse 0 mem 8\n";
        let meminfo = "MemTotal: 99 kB\nSlab:   40 kB\nKernelStack:   4 kB\nPageTables:   6 kB\n";
        let page = rustix::param::page_size() as u64;
        assert_eq!(kernel(meminfo, None, sockstat), Some((50 << 10) + 3 * page));
        let slabinfo = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab>\n\
                        TCP                  3      8   2432   13    8 : tunables    0    0    0\n\
                        kmalloc-8            5      9      8  512    1 : tunables    0    0    0\n";
        assert_eq!(kernel(meminfo, Some(slabinfo), sockstat), Some((10 << 10) + 3 * 2432 + 40 + 3 * page));
    }

    #[test]
    fn memory_that_is_written_to_is_counted() {
        let me = std::process::id();
        let before = measure(me).unwrap();
        let pages = vec![1_u8; 64 << 20];
        let after = measure(me).unwrap();
        assert!(after.user >= before.user + (48 << 20), "{before:?} {after:?}");
        assert!(after.kernel > 0 && std::hint::black_box(&pages)[7] == 1);
    }
}
