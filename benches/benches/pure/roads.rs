//! The choice of a file's road: is the next stretch in memory? Asked once per window, so it must be cheap
//! beside a splice. The one bench here that enters the kernel, because the page cache is there.

use crate::runtime::fs::residency::cached;
use criterion::{BenchmarkId, Criterion};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

pub(crate) fn bench(c: &mut Criterion) {
    let file = match written() {
        Ok(file) => file,
        Err(e) => return eprintln!("roads: left out: {e}"),
    };
    let mut group = c.benchmark_group("roads");
    for kib in [64_u64, 1024] {
        group.bench_function(BenchmarkId::new("is it in memory, KiB", kib), |b| {
            b.iter(|| cached(file.as_fd(), 0, kib << 10, 60 << 10));
        });
    }
    group.finish();
}

fn written() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("annulus-roads-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(&vec![7; 1 << 20])?;
    Ok(file)
}
