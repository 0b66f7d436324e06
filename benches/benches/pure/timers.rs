//! The timer wheel: arming and disarming must cost the same however many timers there are.

use crate::runtime::time::wheel::Wheel;
use annulus_benches::pattern::mix;
use criterion::{BatchSize, BenchmarkId, Criterion};

/// Deadlines lie within so many ticks, a minute of microseconds.
const SPAN: u64 = 60_000_000;

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for pending in [0, 1_000, 1_000_000] {
        let mut wheel = full(pending);
        let mut n = 0;
        group.bench_function(BenchmarkId::new("insert and cancel beside", pending), |b| {
            b.iter(|| {
                n += 1;
                let key = wheel.insert(mix(n) % SPAN, n);
                wheel.cancel(key)
            });
        });
    }
    group.bench_function("a thousand fire", |b| {
        let fire = |mut wheel: Wheel<u64>| {
            let mut fired = 0;
            while wheel.expire(SPAN).is_some() {
                fired += 1;
            }
            assert_eq!(fired, 1_000);
            wheel
        };
        b.iter_batched(|| full(1_000), fire, BatchSize::SmallInput);
    });
    group.finish();
}

fn full(pending: u64) -> Wheel<u64> {
    let mut wheel = Wheel::new(0);
    for n in 0..pending {
        wheel.insert(mix(n) % SPAN, n);
    }
    wheel
}
