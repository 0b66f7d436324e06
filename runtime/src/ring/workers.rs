//! Which core an io-wq worker belongs to. The kernel names its threads inside our process `iou-wrk-N`, where
//! N is the thread that they work for: the core's, or its submission poller, which itself is named
//! `iou-sqp-N` after the core's.
//!
//! N is a number of the first PID namespace (io_uring/io-wq.c: `wq->task->pid`), and no call tells it to a
//! process in another namespace, as in every container. There a core gives a worker something to do and
//! checks which name appears.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use io_uring::{opcode, squeue};

use super::{Ring, Wait};
use crate::numa::CpuSet;
use crate::ring::user_data::Tag;

/// The inode of the first PID namespace (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// The number in the names of a core's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedAfter {
    /// The core's thread, or the poller that is named after it, by their numbers here.
    Thread(i32),
    /// A thread that has this number in the first PID namespace.
    Outside(i32),
    /// It could not be found out.
    Unknown,
}

/// A thread of the kernel's in this process.
#[derive(Debug, Clone)]
pub(crate) struct KernelThread {
    pub(crate) tid: i32,
    name: String,
}

impl KernelThread {
    /// All threads that io_uring has in this process now.
    pub(crate) fn all() -> Vec<Self> {
        // Threads may end while they are read. Those that have ended are left out.
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
        let threads = threads.filter_map(|thread| {
            let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
            let tid = thread.file_name().to_str()?.parse().ok()?;
            Some(Self { tid, name: name.trim_end().to_owned() }).filter(|it| it.name.starts_with("iou-"))
        });
        threads.collect()
    }

    fn number(&self, kind: &str) -> Option<i32> {
        self.name.strip_prefix(kind)?.parse().ok()
    }

    /// The thread that it works for, if it is a worker.
    fn works_for(&self) -> Option<i32> {
        self.number("iou-wrk-")
    }

    /// Whether it is a worker of the core whose workers are so named; `all` are the kernel's threads.
    pub(crate) fn belongs_to(&self, core: NamedAfter, all: &[Self]) -> bool {
        let Some(owner) = self.works_for() else { return false };
        match core {
            NamedAfter::Thread(tid) => {
                let poller = all.iter().find(|thread| thread.tid == owner);
                owner == tid || poller.and_then(|poller| poller.number("iou-sqp-")) == Some(tid)
            }
            NamedAfter::Outside(number) => owner == number,
            NamedAfter::Unknown => false,
        }
    }

    /// The CPUs that it may run on; None when it has gone.
    pub(crate) fn cpus(&self) -> Option<CpuSet> {
        let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", self.tid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.parse().ok()
    }
}

impl Ring {
    /// How the names of its workers are formed. The calling thread is the ring's own.
    pub(crate) fn workers_named_after(&self) -> NamedAfter {
        #[cfg(all(any(test, feature = "played"), not(loom)))]
        if super::played::is_on() {
            return NamedAfter::Unknown;
        }
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        if namespace.is_ok_and(|name| name.to_str() == Some(FIRST_NAMESPACE)) {
            return NamedAfter::Thread(rustix::thread::gettid().as_raw_nonzero().get());
        }
        self.find_out().map_or(NamedAfter::Unknown, NamedAfter::Outside)
    }

    /// The number that is new when a worker of this ring has done something. One core does this at a time.
    /// Two new numbers may still appear at once, where a ring that is not ours gets its first worker.
    fn find_out(&self) -> Option<i32> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let owners =
            || KernelThread::all().iter().filter_map(KernelThread::works_for).collect::<BTreeSet<i32>>();
        let before = owners();
        let entry = opcode::Nop::new().build().flags(squeue::Flags::ASYNC).user_data(Tag::Cancel.with(0));
        // SAFETY: it points to nothing.
        unsafe { self.push(&entry) };
        let mut done = false;
        while !done {
            self.enter(Wait::Forever).ok()?;
            self.reap(|_| done = true);
        }
        let after = owners();
        let mut new = after.difference(&before);
        new.next().copied().filter(|_| new.next().is_none())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn thread(tid: i32, name: &str) -> KernelThread {
        KernelThread { tid, name: name.to_owned() }
    }

    #[test]
    fn workers_are_those_of_the_core_or_of_its_poller() {
        let all = [
            thread(20, "iou-sqp-10"),
            thread(21, "iou-wrk-10"),
            thread(22, "iou-wrk-20"),
            thread(23, "iou-wrk-11"),
            thread(24, "iou-wrk-7010"),
        ];
        let of = |core| -> Vec<i32> {
            all.iter().filter(|it| it.belongs_to(core, &all)).map(|it| it.tid).collect()
        };
        assert_eq!(of(NamedAfter::Thread(10)), [21, 22]);
        assert_eq!(of(NamedAfter::Thread(11)), [23]);
        assert_eq!(of(NamedAfter::Outside(7010)), [24]);
        // A number of the first namespace says nothing of the numbers here.
        assert_eq!(of(NamedAfter::Outside(10)), [21]);
        assert!(of(NamedAfter::Unknown).is_empty());
    }
}
