//! What stands beside the program, in deploy/.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::{cpus, curl};
use rustix::process::Signal;

/// The highest number of a system call on the kernels that we know of.
#[cfg(target_arch = "x86_64")]
const LAST: libc::c_long = 480;

/// The system calls of this machine that the profile for kubelet does not name.
#[cfg(target_arch = "x86_64")]
fn refused_by_the_profile() -> Vec<libc::c_long> {
    let profile = include_str!("../../deploy/seccomp/annulus.json");
    let profile: serde_json::Value = serde_json::from_str(profile).expect("it is JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], libc::ENOSYS);
    let header = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
        .expect("the numbers of system calls, of the package linux-libc-dev");
    // Newer than the header of Debian 12.
    let known = header.lines().chain(["#define __NR_cachestat 451"]);
    let numbers: std::collections::HashMap<&str, libc::c_long> = known
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    let rules = profile["syscalls"].as_array().expect("rules");
    let names = rules.iter().flat_map(|rule| rule["names"].as_array().expect("names"));
    let number = |name: &serde_json::Value| -> libc::c_long {
        let name = name.as_str().expect("a name");
        *numbers.get(name).unwrap_or_else(|| panic!("{name} is no system call of this machine"))
    };
    let allowed: Vec<_> = names.map(number).collect();
    (0..=LAST).filter(|number| !allowed.contains(number)).collect()
}

/// Files, relays, several processes, a reload, the picture and doctor, with nothing but what the profile
/// names.
///
/// Seen to fail: without pipe2 and without fstatfs among its names.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_profile_for_kubelet_names_all_that_the_program_calls() {
    let refused = refused_by_the_profile();
    assert!(refused.contains(&libc::SYS_ptrace) && refused.contains(&libc::SYS_clone3), "{refused:?}");
    let tree = Tree::new();
    let (small, large) = (tree.file("small.bin", 5000), tree.file("large.bin", 3 << 20));
    let under = |launch: Launch| launch.refused(&refused, libc::ENOSYS);
    for processes in ["one", "core"] {
        let file = tree.at("annulus.toml");
        let text = format!(
            "processes = \"{processes}\"\ncores = \"{}\"\n[[listener]]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nroot = \"{}\"\n",
            cpus::list(&cpus::two()),
            tree.at("socket").display(),
            tree.root().display()
        );
        std::fs::write(&file, &text).expect("writing a file of our own");
        let server = under(Launch::new().arg("run").arg(&file)).start();
        let relay = under(Launch::proxy(server.addr()).processes(processes)).start();
        for server in [&server, &relay] {
            for sample in [&small, &large] {
                assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
            }
        }
        std::fs::write(&file, text + "browse = true\n").expect("writing a file of our own");
        server.signal(Signal::HUP);
        server
            .err()
            .wait_for("the reload", |line| line.contains("in force").then_some(()))
            .expect("it lives");
        server.signal(Signal::USR1);
        server
            .err()
            .wait_for("the report", |line| line.contains("; pool node ").then_some(()))
            .expect("it lives");
        relay.stop();
        server.stop();
    }
    let doctor = under(Launch::new().args(["doctor", "--tolerate-advice"])).run();
    assert_eq!(doctor.code(), 0, "{doctor:#?}");
    let said = doctor.out.iter().filter(|line| line.contains("refused:")).collect::<Vec<_>>();
    assert!(said.is_empty(), "{said:#?}");
}
