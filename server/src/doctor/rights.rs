//! What the kernel has to take rights away with: seccomp and Landlock, for `--confine`.

use super::facts::Facts;
use super::finding::Finding;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![filter(facts), files(facts)]
}

/// `/proc/sys/kernel/seccomp/actions_avail` of seccomp(2), Linux 4.14.
fn filter(facts: &Facts) -> Finding {
    let what = "seccomp, for --confine";
    match facts.files.read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Finding::good(what, "system calls can be restricted")
        }
        _ => Finding::note(what, "this kernel has no filters of system calls, or hides them")
            .costs("--confine does not start"),
    }
}

/// The names of the security modules in force (`landlock(7)`), which only root may read on some machines.
fn files(facts: &Facts) -> Finding {
    let what = "Landlock, for --confine";
    match facts.files.read("/sys/kernel/security/lsm") {
        Some(modules) if modules.trim().split(',').any(|module| module == "landlock") => {
            Finding::good(what, "files can be restricted")
        }
        Some(modules) => Finding::note(what, format!("not among the security modules: {}", modules.trim()))
            .costs("--confine restricts system calls only")
            .mend("Linux 5.13 or later, and lsm=landlock,... on the kernel's command line"),
        None => Finding::note(what, "cannot tell; the report of a program with --confine says it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Machine;

    #[test]
    fn what_there_is_is_named() {
        let machine = |modules: &str| {
            Machine::new(&format!("rights-{}", modules.len()), 1)
                .file("/proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n")
                .file("/sys/kernel/security/lsm", modules)
        };
        let found = check(&machine("lockdown,capability,landlock,yama").facts);
        assert!(found.iter().all(|finding| finding.found.contains("can be restricted")), "{found:#?}");
        assert!(check(&machine("capability,yama").facts)[1].found.contains("capability,yama"));
    }
}
