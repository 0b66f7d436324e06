//! What the kernel lacks is done without, and said. The guests of `scripts/numa-vm` run this, and all the
//! other tests, on 6.1 and 6.12; there every line below is seen from both sides.

mod common;

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
    let report = common::report_of(Runtime::builder().pool_bytes(1 << 20).build().unwrap()).unwrap();
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
        ];
        for (name, has, since) in features {
            assert_eq!(has, kernel() >= since, "{name} on {:?}", kernel());
            let line = if has { format!(", {name}") } else { format!(", no {name}") };
            assert!(text.contains(&line), "{name} is not told: {text}");
        }
    }
}

/// Seen to fail: with the kernel's word not asked for.
#[test]
fn a_minimum_wait_follows_the_kernel() {
    let builder = Runtime::builder().pool_bytes(1 << 20).min_wait(std::time::Duration::from_micros(50), 8);
    let report = common::report_of(builder.build().unwrap()).unwrap();
    let text = report.to_string();
    assert!(text.contains("options: min_wait 50 us for 8 completions"), "{text}");
    for core in &report.cores {
        let has = core.ring.min_wait;
        assert_eq!(has, kernel() >= (6, 12), "on {:?}", kernel());
        assert_eq!(core.ring.lacks.iter().any(|lack| lack.starts_with("a minimum wait")), !has, "{text}");
    }
    let is_told = [text.contains("; sleeps gather completions"), text.contains("; without a minimum wait")];
    assert_eq!(is_told, [kernel() >= (6, 12), kernel() < (6, 12)], "{text}");
}

/// Bundles are left out of 6.13 to 6.15, and before 6.16 beside incremental buffers, where kernels lose
/// bytes.
#[test]
fn ways_to_receive_follow_the_kernel() {
    for (incremental, bundles) in [(false, false), (true, false), (false, true), (true, true)] {
        let builder =
            Runtime::builder().pool_bytes(1 << 20).incremental_buffers(incremental).bundles(bundles);
        let report = common::report_of(builder.build().unwrap()).unwrap();
        let text = report.to_string();
        let ring = &report.cores[0].ring;
        let beside = incremental && kernel() >= (6, 12);
        let safe =
            kernel() >= if beside { (6, 16) } else { (6, 10) } && !((6, 13)..=(6, 15)).contains(&kernel());
        for (name, asked, has, can) in [
            ("incremental buffers", incremental, ring.incremental_buffers, kernel() >= (6, 12)),
            ("bundles", bundles, ring.bundles, safe),
        ] {
            assert_eq!(has, asked && can, "{name} on {:?}: {text}", kernel());
            let lacks = ring.lacks.iter().any(|lack| lack.starts_with(name));
            assert_eq!(lacks, asked && !can, "{name}: {text}");
            assert_eq!(text.contains(&format!("; without {name}")), lacks, "{name}: {text}");
        }
        assert_eq!(
            text.contains("; receive buffers are used up incrementally"),
            ring.incremental_buffers,
            "{text}"
        );
        assert_eq!(text.contains("; receives are bundled"), ring.bundles, "{text}");
    }
}
