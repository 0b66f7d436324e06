//! What the program does where the platform refuses something, as containers do by seccomp: it says so in one
//! line and exits with 3, or goes on with less and says so.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, curl};
use std::path::Path;

#[test]
fn no_io_uring_is_exit_code_3_and_one_line() {
    let tree = Tree::new();
    let upstream = Upstream::echo();
    let all = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    // EPERM is what Docker's profile and the sysctl kernel.io_uring_disabled give, ENOSYS what older kernels
    // and gVisor do.
    for (calls, errno) in [
        (&all[..1], libc::EPERM),
        (&all[..], libc::EPERM),
        (&all[..], libc::ENOSYS),
        (&all[..], libc::EACCES),
    ] {
        for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
            let ended = launch.refused(calls, errno).run();
            let line = ended.one_line(3);
            assert!(line.contains("io_uring"), "{line:?} names what is missing");
        }
    }
}

#[test]
fn an_io_uring_that_may_not_be_set_up_further_is_exit_code_3_and_one_line() {
    let tree = Tree::new();
    let ended = Launch::serve(tree.root()).refused(&[libc::SYS_io_uring_register], libc::EPERM).run();
    let line = ended.one_line(3).to_lowercase();
    assert!(line.contains("io_uring") || line.contains("ioring"), "{line:?} names what is missing");
}

#[test]
fn bad_input_is_told_before_a_bad_platform() {
    let ended = Launch::serve(Path::new("/no/such/directory"))
        .refused(&[libc::SYS_io_uring_setup], libc::EPERM)
        .run();
    ended.one_line(2);
}

/// What would be found out with the first client is found out at the start.
///
/// Seen to fail: without the look, where the program starts, and answers with heads and no bodies.
#[test]
fn a_call_that_serving_takes_and_a_filter_refuses_is_exit_code_3_and_named() {
    let tree = Tree::new();
    let upstream = Upstream::echo();
    let calls = [
        (libc::SYS_splice, "splice"),
        (libc::SYS_sendfile, "sendfile"),
        (libc::SYS_pipe2, "pipe2"),
        (libc::SYS_openat2, "openat2"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
    ];
    for (call, name) in calls {
        for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
            let ended = launch.refused(&[call], libc::EPERM).run();
            let line = ended.one_line(3);
            assert!(line.contains(name) && line.contains("seccomp profile"), "{name}: {line:?}");
        }
        let doctor = Launch::new().arg("doctor").refused(&[call], libc::EPERM).run();
        assert_eq!(doctor.code(), 3, "{doctor:#?}");
        let said = doctor.out.iter().any(|line| line.starts_with("FAIL") && line.contains(name));
        assert!(said, "{name}: {doctor:#?}");
    }
}

/// Docker's default profile without CAP_SYS_NICE, but for io_uring.
#[test]
fn refused_memory_policies_cost_placement_and_nothing_else() {
    let tree = Tree::new();
    let sample = tree.file("large.bin", 10 << 20);
    let policies = [libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy, libc::SYS_move_pages];
    let server = Launch::serve(tree.root()).refused(&policies, libc::EPERM).start();
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    let ended = server.stop();
    let noise = ["mbind: Operation not permitted", "set_mempolicy: Operation not permitted"];
    assert!(
        !ended.err.iter().any(|line| noise.contains(&line.as_str())),
        "libnuma's own bare messages are not for our users: {ended:#?}"
    );
    // Nothing is downgraded in silence: the report names the rung.
    let report = Launch::new().arg("topology").arg("--verify").refused(&policies, libc::EPERM).run();
    let said = report
        .out
        .iter()
        .chain(&report.err)
        .any(|line| line.to_lowercase().replace(['-', '_'], " ").contains("first touch"));
    assert!(said, "the rung first touch is named: {report:#?}");
}

/// Kernels before 5.12 and after 6.13 charge the memory of rings to RLIMIT_MEMLOCK, for everybody but root.
#[test]
fn no_locked_memory_is_enough_or_is_named_with_its_remedy() {
    let tree = Tree::new();
    let sample = tree.file("large.bin", 10 << 20);
    match Launch::serve(tree.root()).locked_memory(0).start_or_end() {
        Ok(server) => {
            assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
            server.stop();
        }
        Err(ended) => {
            let line = ended.one_line(3);
            assert!(line.contains("RLIMIT_MEMLOCK") && line.contains("ulimit -l"), "{line:?}");
        }
    }
}

/// The profile that the docs and `annulus doctor` hand to people refuses nothing that Annulus calls.
#[test]
fn the_reference_seccomp_profile_lets_through_what_is_needed() {
    let text = include_str!("../../scripts/seccomp/annulus.json");
    let profile: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
    let needed = [
        ["io_uring_setup", "io_uring_enter", "io_uring_register"].as_slice(),
        &["mbind", "set_mempolicy", "get_mempolicy", "move_pages", "sched_setaffinity", "madvise", "splice"],
    ]
    .concat();
    for rule in profile["syscalls"].as_array().expect("rules") {
        let names: Vec<_> =
            rule["names"].as_array().expect("names").iter().filter_map(|n| n.as_str()).collect();
        if rule["action"] != "SCMP_ACT_ALLOW" {
            assert!(needed.iter().all(|name| !names.contains(name)), "{rule}");
        }
    }
}

/// The number of a system call that the reference profile names. Some are of other machines or of kernels of
/// old.
fn number_of(name: &str) -> Option<libc::c_long> {
    macro_rules! numbers {
        ($($name:ident)*) => { [$((&stringify!($name)[4..], libc::$name)),*] };
    }
    #[rustfmt::skip]
    let known = numbers! {
        SYS_acct SYS_add_key SYS_bpf SYS_clock_adjtime SYS_clock_settime SYS_delete_module
        SYS_fanotify_init SYS_finit_module SYS_init_module SYS_ioperm SYS_iopl SYS_kcmp
        SYS_kexec_file_load SYS_kexec_load SYS_keyctl SYS_lookup_dcookie SYS_migrate_pages SYS_mount SYS_mount_setattr
        SYS_move_mount SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_open_tree SYS_name_to_handle_at SYS_nfsservctl
        SYS_open_by_handle_at SYS_perf_event_open SYS_personality SYS_pivot_root SYS_process_vm_readv
        SYS_process_vm_writev SYS_ptrace SYS_quotactl SYS_quotactl_fd SYS_reboot SYS_request_key
        SYS_setns SYS_settimeofday SYS_swapoff SYS_swapon SYS_sysfs SYS__sysctl SYS_umount2 SYS_unshare SYS_uselib
        SYS_userfaultfd SYS_ustat SYS_vhangup
    };
    const NONE_HERE: [&str; 7] =
        ["create_module", "get_kernel_syms", "query_module", "stime", "umount", "vm86", "vm86old"];
    let number = known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    assert!(number.is_some() || NONE_HERE.contains(&name), "{name} is not in this test's table");
    number
}

/// The profile at work: all that it refuses is refused, and everything is placed, bound and proven, and files
/// are served. Seen to fail: with mbind among what it refuses.
#[test]
#[cfg(target_arch = "x86_64")]
fn under_the_reference_seccomp_profile_everything_is_in_force() {
    let text = include_str!("../../scripts/seccomp/annulus.json");
    let profile: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    let refusing = profile["syscalls"]
        .as_array()
        .expect("rules")
        .iter()
        .filter(|rule| rule["action"] == "SCMP_ACT_ERRNO");
    let names = refusing.flat_map(|rule| rule["names"].as_array().expect("names"));
    let refused: Vec<_> = names.filter_map(|name| number_of(name.as_str().expect("a name"))).collect();
    assert!(refused.len() > 40, "{refused:?}");
    all_in_force_without(&refused);
}

/// What systemd 252 leaves out of `SystemCallFilter=@system-service` (systemd-analyze syscall-filter) of all
/// that a trace of the program shows: cachestat(2), which is newer. With the locked memory that units have
/// and no privileges.
#[test]
fn under_a_systemd_units_filter_everything_is_in_force() {
    all_in_force_without(&[CACHESTAT]);
}

/// cachestat(2) on every machine; not in libc.
const CACHESTAT: libc::c_long = 451;

#[track_caller]
fn all_in_force_without(refused: &[libc::c_long]) {
    let verify = Launch::new().args(["topology", "--verify", "--placement", "require"]);
    let report = verify.refused(refused, libc::EPERM).locked_memory(8 << 20).run();
    assert_eq!(report.code(), 0, "{report:#?}");
    let cores: Vec<_> = report.out.iter().filter(|line| line.contains("; pool node ")).collect();
    assert_eq!(cores.len(), cpus::allowed().len(), "{report:#?}");
    if Path::new("/sys/devices/system/node/has_memory").exists() {
        assert!(cores.iter().all(|line| line.contains(", bound")), "{cores:#?}");
        assert!(report.out.iter().any(|line| line.contains("by move_pages")), "{report:#?}");
    }
    let tree = Tree::new();
    let (small, large) = (tree.file("small.bin", 5000), tree.file("large.bin", 3 << 20));
    let server = Launch::serve(tree.root()).refused(refused, libc::EPERM).locked_memory(8 << 20).start();
    for sample in [&small, &large] {
        assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    }
    server.stop();
}

/// Docker's default profile as it is: no rings, and no memory policies without CAP_SYS_NICE. Doctor names
/// both.
#[test]
fn under_dockers_default_profile_nothing_runs_and_doctor_says_what_it_takes() {
    let refused = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_get_mempolicy,
        libc::SYS_move_pages,
        libc::SYS_userfaultfd,
    ];
    let tree = Tree::new();
    let ended = Launch::serve(tree.root()).refused(&refused, libc::EPERM).run();
    let line = ended.one_line(3);
    assert!(line.contains("io_uring"), "{line}");
    let ended = Launch::new().arg("doctor").refused(&refused, libc::EPERM).run();
    assert_eq!(ended.code(), 3, "{ended:#?}");
    assert!(ended.out.iter().any(|line| line.starts_with("FAIL") && line.contains("io_uring")), "{ended:#?}");
    assert!(ended.out.iter().any(|line| line.contains("refused: mbind")), "{ended:#?}");
}

/// Seen to fail: when the cores that had started waited for those that could not, the program hung until it
/// was killed.
#[test]
fn too_few_threads_allowed_is_an_end_and_not_a_wait() {
    if cpus::allowed().len() < 2 {
        println!("one CPU: there is no second core that could fail to start");
        return;
    }
    let tree = Tree::new();
    // The build may lie where only root can read.
    let place = std::env::temp_dir().join(format!("annulus-threads-{}", std::process::id()));
    std::fs::create_dir(&place).expect("a directory of our own");
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let program = place.join("annulus");
    std::fs::copy(annulus_integration_tests::bin::annulus(), &program).expect("copying the program");
    let mut command = std::process::Command::new("timeout");
    command.arg("60");
    if rustix::process::geteuid().is_root() {
        // The limit counts all processes of the user, and does not bind root: a user who has no others.
        command.args(["setpriv", "--reuid=65531", "--regid=65531", "--clear-groups"]);
    }
    let ended = command
        .args(["prlimit", "--nproc=2"])
        .arg(&program)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .arg(tree.root())
        .output()
        .expect("timeout, setpriv and prlimit are in coreutils and util-linux");
    std::fs::remove_dir_all(&place).expect("removing our directory");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("thread"), "{said}");
}
