//! Limits of the process: descriptors, locked memory, pipes.

use super::facts::{Facts, Limit, mebibytes};
use super::finding::Finding;

/// Descriptors that a server of some size needs: one for each client, another for each upstream, two for each
/// pipe.
const ENOUGH_FILES: u64 = 16_384;
/// Descriptors that the program itself has open.
const FILES_OF_PROGRAM: u64 = 10;
/// Bytes of the pipes through which bulk moves.
const PIPE: u64 = 1 << 20;
/// Pipes that a core keeps.
const PIPES_PER_CORE: u64 = 16;
/// Bytes that a core registers with its ring, half of the default pool, and the ring itself.
const LOCKED_PER_CORE: u64 = (8 << 20) + (1 << 20);
/// `CAP_IPC_LOCK` of capabilities(7): the limit of locked memory does not bind who has it.
const CAP_IPC_LOCK: u32 = 14;
/// `CAP_SYS_RESOURCE` of capabilities(7): the pipe limits do not bind who has it.
const CAP_SYS_RESOURCE: u32 = 24;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![descriptors(facts.open_files, facts.cores.len()), locked(facts), pipe_size(facts), pipe_pages(facts)]
}

/// The hard limit counts: servers raise the soft one to it when they start.
fn descriptors(limit: Limit, cores: usize) -> Finding {
    let what = "open files (ulimit -Hn)";
    // Beside a quarter that is left to files: the program's own, and a ring, its doorbell, a listener and a
    // client for each core.
    let least = (FILES_OF_PROGRAM + 4 * cores as u64) * 4 / 3;
    match limit.hard {
        Some(hard) if hard < least => {
            Finding::fatal(what, format!("{hard}: not one client of each core can be served"))
                .mend("as root: prlimit --nofile=65536 annulus ... (systemd: LimitNOFILE=65536)")
        }
        None => Finding::good(what, "unlimited"),
        Some(hard) if hard >= ENOUGH_FILES => Finding::good(what, hard.to_string()),
        Some(hard) => Finding::advice(what, hard.to_string())
            .costs(format!("at most some {hard} clients of serve, {} of proxy", hard / 4))
            .mend("as root: prlimit --nofile=65536 annulus ... (systemd: LimitNOFILE=65536)"),
    }
}

/// What is registered with a ring is charged to this limit, the blocks of each core; since Linux 6.14 the
/// rings are as well.
fn locked(facts: &Facts) -> Finding {
    let what = "locked memory (ulimit -l)";
    let wanted = facts.cores.len() as u64 * LOCKED_PER_CORE;
    match facts.locked_memory.soft {
        None => Finding::good(what, "unlimited"),
        Some(soft) if soft >= wanted => Finding::good(what, mebibytes(soft)),
        Some(soft) if facts.has_capability(CAP_IPC_LOCK) => {
            Finding::good(what, format!("{}, which do not bind this process", mebibytes(soft)))
        }
        Some(soft) => {
            let found =
                format!("{}; registered blocks and rings may take {}", mebibytes(soft), mebibytes(wanted));
            Finding::advice(what, found)
                .costs("zero-copy sends pin their pages each time; from Linux 6.14 on rings may not be had at all")
                .mend(format!("as root: prlimit --memlock={wanted} annulus ... (systemd: LimitMEMLOCK={wanted})"))
        }
    }
}

fn pipe_size(facts: &Facts) -> Finding {
    let what = "fs.pipe-max-size";
    match facts.files.number("/proc/sys/fs/pipe-max-size") {
        None => Finding::note(what, "cannot tell"),
        Some(size) if size >= PIPE || facts.has_capability(CAP_SYS_RESOURCE) => {
            Finding::good(what, mebibytes(size))
        }
        Some(size) => Finding::advice(what, format!("{size} bytes"))
            .costs("bulk moves in smaller steps, hence more system calls per byte")
            .mend(format!("sysctl -w fs.pipe-max-size={PIPE}")),
    }
}

/// Past this many pages of all of a user's pipes, new ones get two pages.
fn pipe_pages(facts: &Facts) -> Finding {
    let what = "fs.pipe-user-pages-soft";
    let wanted = facts.cores.len() as u64 * PIPES_PER_CORE * PIPE / 4096;
    match facts.files.number("/proc/sys/fs/pipe-user-pages-soft") {
        None => Finding::note(what, "cannot tell"),
        Some(0) => Finding::good(what, "0: no limit"),
        Some(pages) if facts.has_capability(CAP_SYS_RESOURCE) => {
            Finding::good(what, format!("{pages} pages, which do not bind this process"))
        }
        Some(pages) if pages >= wanted => Finding::good(what, format!("{pages} pages")),
        Some(pages) => Finding::advice(what, format!("{pages} pages; the cores' pipes may take {wanted}"))
            .costs(format!(
                "after {} pipes of 1 MiB the next ones hold 8 KiB: slower bulk",
                pages * 4096 / PIPE
            ))
            .mend(format!("sysctl -w fs.pipe-user-pages-soft={wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Machine;
    use crate::doctor::finding::Verdict;

    #[test]
    fn few_descriptors_are_told() {
        let limit = |hard| descriptors(Limit { soft: Some(1024), hard }, 2);
        assert_eq!(limit(None).verdict, Verdict::Good);
        assert_eq!(limit(Some(524_288)).verdict, Verdict::Good);
        let few = limit(Some(4096));
        assert_eq!(few.verdict, Verdict::Advice);
        assert!(few.mend.unwrap().contains("prlimit"));
        assert_eq!(limit(Some(16)).verdict, Verdict::Fatal);
    }

    #[test]
    fn locked_memory_binds_users_and_not_root() {
        for (capabilities, soft, verdict) in [
            ("0", Some(8 << 20), Verdict::Advice),
            ("0", Some(64 << 20), Verdict::Good),
            ("0", None, Verdict::Good),
            ("4000", Some(8 << 20), Verdict::Good),
        ] {
            let mut machine = Machine::new(&format!("locked-{capabilities}-{soft:?}"), 1)
                .file("/proc/self/status", &format!("CapEff:\t{capabilities}\n"));
            machine.facts.locked_memory = Limit { soft, hard: soft };
            assert_eq!(locked(&machine.facts).verdict, verdict, "{capabilities} {soft:?}");
        }
    }

    #[test]
    fn pipes_bind_users_and_not_root() {
        let pipes = |name, capabilities: &str, pages: &str| {
            let machine = Machine::new(name, 2)
                .file("/proc/self/status", &format!("CapEff:\t{capabilities}\n"))
                .file("/proc/sys/fs/pipe-max-size", "65536\n")
                .file("/proc/sys/fs/pipe-user-pages-soft", pages);
            (pipe_size(&machine.facts).verdict, pipe_pages(&machine.facts).verdict)
        };
        assert_eq!(pipes("user", "0", "1024"), (Verdict::Advice, Verdict::Advice));
        assert_eq!(pipes("user-large", "0", "16384"), (Verdict::Advice, Verdict::Good));
        assert_eq!(pipes("user-free", "0", "0").1, Verdict::Good);
        assert_eq!(pipes("root", "1000000", "1024"), (Verdict::Good, Verdict::Good));
        assert_eq!(pipe_pages(&Machine::new("none", 1).facts).verdict, Verdict::Note);
    }
}
