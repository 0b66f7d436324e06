//! `annulus doctor`: every check is told, in lines and as JSON; the exit code says whether there is something
//! to do.

use annulus_integration_tests::server::{Ended, Launch};

fn doctor(args: &[&str]) -> Ended {
    args.iter().fold(Launch::new().arg("doctor"), |launch, arg| launch.arg(arg)).run()
}

/// 0 when nothing is to be done, 1 when there is advice: which of them depends on the machine that the tests
/// run on.
#[track_caller]
fn advice(ended: &Ended) -> bool {
    let advice = ended.out.iter().any(|line| line.starts_with("advice ") || line.contains("\"advice\""));
    assert_eq!(ended.code(), i32::from(advice), "{ended:#?}");
    advice
}

#[test]
fn every_group_is_told_in_lines() {
    let ended = doctor(&[]);
    advice(&ended);
    for group in ["ring", "limits", "rights", "placement", "memory", "network"] {
        let told = |line: &String| line.split_whitespace().nth(1) == Some(&format!("{group}:"));
        assert!(ended.out.iter().any(told), "{group}: {ended:#?}");
    }
    for line in ended.out.iter().filter(|line| line.starts_with("advice ")) {
        assert!(
            line.contains("; costs: ") && line.contains("; mend: "),
            "what it costs and what mends it: {line}"
        );
    }
}

#[test]
fn json_has_the_same_checks() {
    let ended = doctor(&["--json"]);
    advice(&ended);
    let json: serde_json::Value = serde_json::from_str(&ended.out.join("\n")).expect("one JSON object");
    let checks = json["checks"].as_array().expect("an array of checks");
    assert_eq!(checks.len(), doctor(&[]).out.len());
    for check in checks {
        assert!(check["check"].is_string() && check["found"].is_string(), "{check}");
    }
}

#[test]
fn without_io_uring_it_says_that_nothing_can_run() {
    for args in [&["doctor"][..], &["doctor", "--json"], &["doctor", "--tolerate-advice"]] {
        let launch = args.iter().fold(Launch::new(), |launch, arg| launch.arg(arg));
        let ended = launch.refused(&[libc::SYS_io_uring_setup], libc::EPERM).run();
        assert_eq!(ended.code(), 3, "{ended:#?}");
        assert!(ended.out.iter().any(|line| line.contains("FAIL")), "{ended:#?}");
        assert!(ended.out.iter().any(|line| line.contains("seccomp")), "who may have refused it: {ended:#?}");
    }
}

/// What starts the program after it gets 0 where the program can run.
#[test]
fn refused_memory_policies_are_named() {
    let launch = Launch::new().arg("doctor").refused(&[libc::SYS_mbind], libc::EPERM);
    assert_eq!(launch.clone().arg("--tolerate-advice").run().code(), 0);
    let ended = launch.run();
    assert!(advice(&ended), "{ended:#?}");
    assert!(
        ended.out.iter().any(|line| line.contains("refused: mbind") && line.contains("SYS_NICE")),
        "{ended:#?}"
    );
}

#[test]
fn cores_that_do_not_exist_are_bad_input() {
    doctor(&["--cores", "4096"]).one_line(2);
}
