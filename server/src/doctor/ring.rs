//! Kernel and ring: whether a core can come up at all, and with what.

use annulus::RingProbe;

use super::facts::Facts;
use super::finding::Finding;
use crate::filters::REMEDY;

/// The oldest kernel with `DEFER_TASKRUN`.
const FLOOR: (u32, u32) = (6, 1);
/// `CAP_SYS_ADMIN` of capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![kernel(facts)];
    found.extend(switched_off(facts));
    found.push(filter(facts));
    found.push(calls(facts));
    match &facts.ring {
        Ok(probe) => found.extend([ring(probe), operations(probe), receiving(probe)]),
        // The error has its remedy already.
        Err(error) => found.push(Finding::fatal("io_uring", error.to_string())),
    }
    found
}

fn kernel(facts: &Facts) -> Finding {
    let Some(release) = facts.files.read("/proc/sys/kernel/osrelease") else {
        return Finding::note("kernel", "cannot tell its version (/proc/sys/kernel/osrelease)");
    };
    match version(&release) {
        Some(version) if version < FLOOR => {
            Finding::fatal("kernel", format!("Linux {release}")).mend("boot Linux 6.1 or later (Debian 12)")
        }
        // cachestat(2), which tells in half a microsecond whether a file is in memory.
        Some(version) if version < (6, 5) => Finding::note("kernel", format!("Linux {release}"))
            .costs("no cachestat (6.5): whether a file is in memory is found out by trial reads")
            .mend("boot Linux 6.5 or later (Debian 12: linux-image-amd64 of bookworm-backports)"),
        Some(_) => Finding::good("kernel", format!("Linux {release}")),
        None => Finding::note("kernel", format!("a version that cannot be read: {release}")),
    }
}

/// `6.12.117-cloud-amd64` is (6, 12).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The administrator's switch (kernel.io_uring_disabled, Linux 6.6); nothing on kernels that have none.
fn switched_off(facts: &Facts) -> Option<Finding> {
    let what = "kernel.io_uring_disabled";
    let mend = "sysctl -w kernel.io_uring_disabled=0";
    Some(match facts.files.number("/proc/sys/kernel/io_uring_disabled")? {
        0 => Finding::good(what, "0: everyone may make rings"),
        1 if facts.has_capability(CAP_SYS_ADMIN) => {
            Finding::note(what, "1: allowed to this process as it is privileged")
                .costs("the same program fails as another user")
                .mend(mend)
        }
        1 => {
            let group = facts.files.read("/proc/sys/kernel/io_uring_group").unwrap_or_default();
            let told = format!("1: only for CAP_SYS_ADMIN and group {group}");
            if facts.ring.is_ok() { Finding::note(what, told) } else { Finding::fatal(what, told).mend(mend) }
        }
        other => Finding::fatal(what, format!("{other}: nobody may make rings")).mend(mend),
    })
}

fn filter(facts: &Facts) -> Finding {
    let status = facts.files.read("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match field("Seccomp:") {
        Some("0") => Finding::good("seccomp", "no filter"),
        Some("2") => {
            let count = field("Seccomp_filters:").unwrap_or("some");
            let refused =
                if facts.ring.is_ok() { "let io_uring through" } else { "may be what refuses io_uring" };
            Finding::note("seccomp", format!("filters in force: {count}; they {refused}"))
        }
        Some(_) => Finding::fatal("seccomp", "strict mode").mend("start Annulus without it"),
        None => Finding::note("seccomp", "cannot tell (/proc/self/status)"),
    }
}

/// The calls beside those of io_uring, without which a server would start and then fail its clients.
fn calls(facts: &Facts) -> Finding {
    let what = "system calls";
    match facts.refused_calls.as_slice() {
        [] => Finding::good(what, "all that serving takes are let through"),
        refused => Finding::fatal(what, format!("refused by a filter: {}", refused.join(", "))).mend(REMEDY),
    }
}

fn ring(probe: &RingProbe) -> Finding {
    let features = &probe.features;
    let size =
        format!("a ring of {} submissions and {} completions", features.sq_entries, features.cq_entries);
    let optional = [
        (features.no_sqarray, "NO_SQARRAY (6.6)"),
        (features.registered_fd, "a registered descriptor (5.18)"),
        (features.no_iowait, "NO_IOWAIT (6.15)"),
    ];
    let name = |wanted: bool| {
        let names: Vec<_> = optional.iter().filter(|(on, _)| *on == wanted).map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let (on, off) = (name(true), name(false));
    let on = if on.is_empty() { String::new() } else { format!(", {on}") };
    let found = format!("{size} with SINGLE_ISSUER, DEFER_TASKRUN{on}");
    if off.is_empty() {
        return Finding::good("io_uring", found);
    }
    Finding::note("io_uring", format!("{found}; without {off}"))
        .costs(
            "a few instructions per request; without NO_IOWAIT an idle core is counted as waiting for a disk",
        )
        .mend("boot the kernel named in brackets or a later one")
}

fn operations(probe: &RingProbe) -> Finding {
    if probe.missing.is_empty() {
        return Finding::good("ring operations", "all that Annulus uses");
    }
    Finding::fatal("ring operations", format!("missing: {}", probe.missing.join(", ")))
        .mend("boot Linux 6.1 or later")
}

/// Options that are off unless asked for. Whether they would work is no advice.
fn receiving(probe: &RingProbe) -> Finding {
    let options = [
        (probe.incremental_buffers, "--incremental-buffers (6.12)"),
        (probe.bundles, "--bundles (6.10 to 6.12, and from 6.16 on)"),
    ];
    let name = |wanted: bool| {
        let names: Vec<_> = options.iter().filter(|(on, _)| *on == wanted).map(|(_, name)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    if probe.incremental_buffers && probe.bundles {
        return Finding::good("receive options", format!("this kernel has {}", name(true)));
    }
    let found =
        format!("this kernel has {}; without {}, which would change nothing", name(true), name(false));
    Finding::note("receive options", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Machine;
    use crate::doctor::finding::Verdict;

    /// Seen to fail: with the names left out.
    #[test]
    fn a_refused_call_is_named_with_its_remedy() {
        let mut machine = Machine::new("calls", 1);
        assert_eq!(calls(&machine.facts).verdict, Verdict::Good);
        machine.facts.refused_calls = vec!["pipe2", "splice"];
        let found = calls(&machine.facts);
        assert_eq!(
            (found.verdict, found.found.as_str()),
            (Verdict::Fatal, "refused by a filter: pipe2, splice")
        );
        assert!(found.mend.unwrap().contains("seccomp profile"));
    }

    #[test]
    fn kernels() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("six"), None);
        for (release, verdict) in [
            ("5.10.0-30-amd64", Verdict::Fatal),
            ("6.1.0-56-cloud-amd64", Verdict::Note),
            ("6.12.1", Verdict::Good),
            ("7.0-rc1", Verdict::Good),
        ] {
            let machine =
                Machine::new(release, 1).file("/proc/sys/kernel/osrelease", &format!("{release}\n"));
            assert_eq!(kernel(&machine.facts).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn the_switch() {
        for (value, capabilities, verdict) in [
            ("0", "0", Verdict::Good),
            ("1", "0000000000200000", Verdict::Note),
            ("1", "0", Verdict::Fatal),
            ("2", "000001ffffffffff", Verdict::Fatal),
        ] {
            let machine = Machine::new(&format!("switch-{value}-{capabilities}"), 1)
                .file("/proc/sys/kernel/io_uring_disabled", value)
                .file(
                    "/proc/self/status",
                    &format!("Name:\tannulus\nCapEff:\t{capabilities}\nSeccomp:\t0\n"),
                );
            assert_eq!(switched_off(&machine.facts).unwrap().verdict, verdict, "{value} {capabilities}");
        }
        assert_eq!(switched_off(&Machine::new("no-switch", 1).facts), None);
    }

    #[test]
    fn no_ring_is_fatal_and_a_ring_of_this_machine_is_told() {
        let mut machine =
            Machine::new("no-ring", 1).file("/proc/self/status", "Seccomp:\t2\nSeccomp_filters:\t1\n");
        assert_eq!(check(&machine.facts).iter().map(|f| f.verdict).max(), Some(Verdict::Fatal));
        machine.facts.ring = annulus::probe_ring(64);
        let found = check(&machine.facts);
        assert!(found.iter().all(|f| f.verdict < Verdict::Fatal), "{found:?}");
        assert!(found.iter().any(|f| f.found.contains("DEFER_TASKRUN")), "{found:?}");
    }
}
