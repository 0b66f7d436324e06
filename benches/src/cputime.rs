//! CPU time that another process has spent, to the nanosecond, over all its threads.

use std::{fs, io, mem::MaybeUninit, time::Duration};

/// Nanoseconds of CPU that process `pid` and its living descendants have spent since each began.
///
/// This reads the process CPU clock, not utime + stime: those come in ticks of 10 ms here. The clock sums the
/// run time of all threads of the group, those that ended as well, and io-wq workers (`iou-wrk-*`) are
/// threads of the group of the thread that submitted (tested by `tests/smoke.rs`). Source:
/// clock_getcpuclockid(3), proc(5).
///
/// # Errors
/// The process is gone, or its clock cannot be read.
pub fn process_tree_ns(pid: u32) -> io::Result<u64> {
    let mut total = process_ns(pid)?;
    for child in children(pid)? {
        total += process_tree_ns(child)?;
    }
    Ok(total)
}

/// Nanoseconds of CPU that process `pid` alone has spent, over all its threads.
///
/// # Errors
/// The process is gone, or its clock cannot be read.
pub fn process_ns(pid: u32) -> io::Result<u64> {
    let gone = |code: i32| {
        let why = io::Error::from_raw_os_error(code);
        io::Error::new(why.kind(), format!("cannot read the CPU clock of process {pid}: {why}"))
    };
    let mut clock = 0;
    // SAFETY: the call writes one clockid_t through a pointer to a live local.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if code != 0 {
        return Err(gone(code));
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes one timespec through a pointer to a live local.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(gone(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)));
    }
    // SAFETY: clock_gettime returned 0, so it has written the timespec.
    let time = unsafe { time.assume_init() };
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Nanoseconds of CPU that the calling thread has spent.
///
/// # Errors
/// Its clock says what no clock can.
pub fn thread_ns() -> io::Result<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).map_err(io::Error::other)
}

/// CPU that process `pid` has spent in user mode and in the kernel, in ticks of 10 ms. Source: proc(5),
/// `stat`.
///
/// # Errors
/// The process is gone.
pub fn user_and_system(pid: u32) -> io::Result<(Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; after it, the state is the third field, utime the 14th.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_ascii_whitespace().skip(11).map(|word| word.parse::<f64>());
    match (ticks.next(), ticks.next()) {
        (Some(Ok(user)), Some(Ok(system))) => {
            let time =
                |ticks: f64| Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64);
            Ok((time(user), time(system)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no CPU times"))),
    }
}

/// Living child processes, of any thread of `pid`.
fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok(list) = fs::read_to_string(task?.path().join("children")) {
            found.extend(list.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// Nanoseconds of run time per living thread of `pid`, with the thread's name. Source: proc(5), `schedstat`.
///
/// # Errors
/// The process is gone.
pub fn threads_ns(pid: u32) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        let (Ok(name), Ok(stat)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        if let Some(ns) = stat.split_ascii_whitespace().next().and_then(|word| word.parse().ok()) {
            found.push((name.trim_end().to_owned(), ns));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_clock_moves_on_with_our_work() {
        let me = std::process::id();
        let before = process_ns(me).unwrap();
        let mut x = 0;
        for i in 0..1_000_000_u64 {
            x ^= crate::pattern::mix(std::hint::black_box(i));
        }
        std::hint::black_box(x);
        assert!(process_ns(me).unwrap() > before);
    }

    #[test]
    fn user_and_system_time_add_up() {
        let me = std::process::id();
        let before = process_ns(me).unwrap();
        let (user, system) = user_and_system(me).unwrap();
        let after = process_ns(me).unwrap();
        // Each of the two is cut to whole ticks.
        let sum = (user + system).as_nanos() as u64;
        assert!(sum + 20_000_000 >= before && sum <= after + 20_000_000, "{before} {sum} {after}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(process_ns(pid).is_err());
    }
}
