//! The wake path: what it costs to wake a task of another core, apart from the other core.

use crate::sync::mailbox::{Doorbell, Link, Node, WakeList};
use criterion::{BatchSize, Criterion};
use std::ptr::NonNull;

struct Task(Box<Link>);

// SAFETY: the box is the only owner of its allocation, which does not move, and comes back from its own raw
// pointer.
unsafe impl Node for Task {
    fn link(&self) -> &Link {
        &self.0
    }

    fn into_raw(self) -> NonNull<()> {
        NonNull::from(Box::leak(self.0)).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller says that `raw` came from `into_raw`, and that no other owner is used.
        Task(unsafe { Box::from_raw(raw.cast().as_ptr()) })
    }
}

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("wakes");
    let (list, doorbell) = (WakeList::new(), Doorbell::new());
    let tasks = |n: usize| (0..n).map(|_| Task(Box::default())).collect::<Vec<Task>>();
    for n in [1, 64] {
        let wake = |tasks: Vec<Task>| {
            for task in tasks {
                if list.push(task).is_ok() && doorbell.notify() {
                    unreachable!("nobody sleeps here");
                }
            }
            list.take_all().collect::<Vec<Task>>()
        };
        group.bench_function(format!("push, ring and take {n}"), |b| {
            b.iter_batched(|| tasks(n), wake, BatchSize::SmallInput);
        });
    }
    group.bench_function("prepare to sleep and think better of it", |b| {
        b.iter(|| {
            doorbell.prepare_sleep();
            doorbell.cancel_sleep()
        });
    });
    group.finish();
}
