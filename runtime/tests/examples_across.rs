//! The examples that talk across cores, run as a person would.

mod common;

use std::process::Command;

use common::{example, two_cpus};

#[test]
fn ping_pong_counts_its_round_trips() {
    let (Some(cpus), Some(program)) = (two_cpus(), example("ping_pong")) else { return };
    let ran = Command::new(program).args([&cpus, "200"]).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    for way in ["submit_to", "channel"] {
        assert!(text.contains(&format!("{way}: 200 round trips in ")), "{text}");
    }
    assert!(text.starts_with("from CPU "), "{text}");
}
