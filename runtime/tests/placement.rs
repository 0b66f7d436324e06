//! Everything of a core is reported, and lies on its node; what the placement policies do about the rest.

mod common;

use std::collections::BTreeSet;

#[path = "../../numa/tests/common/seccomp.rs"]
mod seccomp;

use annulus::numa::region::Rung;
use annulus::{ErrorKind, PlacementPolicy, Report, Runtime};

/// Starts a runtime whose cores wait for the end, and looks at it.
fn look(policy: PlacementPolicy, pool_bytes: usize) -> annulus::Result<Report> {
    let runtime = Runtime::builder().placement(policy).pool_bytes(pool_bytes).build()?;
    common::report_of(runtime)
}

#[test]
fn everything_of_each_core_is_reported_and_at_home() {
    let report = look(PlacementPolicy::Require, 1 << 20).unwrap();
    println!("{report}");
    for core in &report.cores {
        let of_core = report.regions.iter().filter(|region| region.core == core.core.index);
        let names: BTreeSet<&str> = of_core.map(|region| region.name).collect();
        for name in [
            "pool",
            "completion ring",
            "submission ring",
            "buffer ring",
            "stack",
            "tls",
            "operations",
            "heap",
        ] {
            assert!(names.contains(name), "core {}: no {name} in {names:?}", core.core.index);
        }
        assert!(core.ring.iowq_pinned, "{core}");
    }
    assert_eq!(report.strays(), Vec::<String>::new());
    assert!(report.is_home());
}

#[test]
fn a_rings_pages_are_present_in_the_second_look() {
    let report = look(PlacementPolicy::Prefer, 1 << 20).unwrap();
    for region in report.regions.iter().filter(|region| region.name.ends_with("ion ring")) {
        let pages = region.pages.as_ref().unwrap();
        // Before Linux 6.10 a ring's mapping holds no pages that can be asked about.
        assert!(pages.on(region.node) == pages.pages() || pages.absent == pages.pages(), "{region}");
        assert!(pages.pages() >= 64, "{region}");
    }
}

#[test]
fn off_places_nothing_and_says_so() {
    let report = look(PlacementPolicy::Off, 1 << 20).unwrap();
    for core in &report.cores {
        assert_eq!(core.pool.rung, Rung::Unplaced, "{core}");
        assert!(core.thread.is_none() && core.to_string().contains("not placed"), "{core}");
    }
    let nodes: BTreeSet<_> = report.cores.iter().map(|core| core.core.memory).collect();
    if nodes.len() > 1 {
        assert!(!report.is_home(), "one thread made all pools, so some lie elsewhere: {report}");
    }
}

/// On one node the pages are where they should be all the same; on several nothing keeps them there.
#[test]
fn require_refuses_what_is_only_first_touch_where_there_are_several_nodes() {
    let under_a_filter = std::thread::spawn(|| {
        seccomp::refuse(&[seccomp::Deny::call(libc::SYS_mbind)]);
        look(PlacementPolicy::Require, 1 << 20)
    });
    match under_a_filter.join().unwrap() {
        Ok(report) => {
            let nodes: BTreeSet<_> = report.cores.iter().map(|core| core.core.memory).collect();
            assert_eq!(nodes.len(), 1, "{report}");
            assert!(report.cores.iter().all(|core| core.pool.rung == Rung::FirstTouch), "{report}");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Platform);
            let line = error.to_string();
            // Without mbind a thread's own memory may lie elsewhere too, and is then what is named.
            let named = line.contains("mbind") && line.contains("CAP_SYS_NICE");
            assert!(named || line.contains("annulus doctor"), "{line}");
        }
    }
}
