//! The slot table: what every operation of the ring goes through.

use crate::runtime::op::slots::{Outcome, Shots, Slots};
use criterion::{BenchmarkId, Criterion};

/// Of an operation that is over: where it lay.
fn value(index: usize, _: u32) -> usize {
    index
}

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("operations");
    let outcome = Outcome { result: 1, flags: 0 };
    for in_flight in [0_usize, 10_000] {
        let mut slots = Slots::<u32, u32>::with_capacity(in_flight + 1);
        for n in 0..in_flight {
            assert!(slots.submit(Shots::Multi, None, |_, _| n as u32).is_some());
        }
        group.bench_function(BenchmarkId::new("submit, complete, look beside", in_flight), |b| {
            b.iter(|| {
                let Some(key) = slots.submit(Shots::Single, Some(1), |_, _| 7) else { return };
                slots.complete(key, outcome, false, false, value);
                slots.poll(key, |_| {}, value);
            });
        });
    }
    let mut slots = Slots::<u32, u32>::with_capacity(1);
    if let Some(key) = slots.submit(Shots::Multi, None, |_, _| 7) {
        group.bench_function("one of many results", |b| {
            b.iter(|| slots.complete(key, outcome, true, false, value))
        });
    }
    group.finish();
}
