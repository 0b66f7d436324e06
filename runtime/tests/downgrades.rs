//! What the kernel lacks is done without, and said. The guests of `scripts/numa-vm` run this, and all the other tests,
//! on 6.1 and 6.12; there every line below is seen from both sides.

use annulus::Runtime;

/// The kernel's version as the package of a distribution may report it: 6.1, 6.12, 6.18.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Seen to fail: with any of the probes answering the opposite.
#[test]
fn features_follow_the_kernel() {
    let running =
        Runtime::builder().pool_bytes(1 << 20).incremental_buffers(true).build().unwrap().start(|| async {
            annulus::core::stopping().await;
            annulus::Ok(())
        });
    let running = running.unwrap();
    let report = running.report();
    running.stop();
    running.wait().unwrap();
    let text = report.to_string();
    for core in &report.cores {
        let ring = &core.ring;
        assert!(ring.registered_fd && ring.iowq_pinned, "older than the oldest kernel: {text}");
        let features = [
            ("NO_SQARRAY", ring.no_sqarray, (6, 6)),
            ("NO_IOWAIT", ring.no_iowait, (6, 15)),
            // In 6.2 first, and in the later 6.1 too.
            ("zero-copy reports", ring.zc_report, (6, if ring.zc_report { 1 } else { 2 })),
            ("cachestat", core.cachestat, (6, 5)),
            ("incremental buffers", ring.incremental_buffers, (6, 12)),
        ];
        for (name, has, since) in features {
            assert_eq!(has, kernel() >= since, "{name} on {:?}", kernel());
            let line = if has { format!(", {name}") } else { format!(", no {name}") };
            assert!(text.contains(&line), "{name} is not told: {text}");
        }
    }
}
