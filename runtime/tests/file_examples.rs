//! The examples that move files and live beside another runtime. They are compiled in, so that this runs
//! where only the test program was brought to; what concerns a whole process is seen on the built example,
//! where it is.

mod common;

#[path = "../examples/embed.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod embed;
#[path = "../examples/file_copy.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod file_copy;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{bulk, example, on_one_core};

fn scratch(what: &str) -> PathBuf {
    std::env::temp_dir().join(format!("annulus-examples-{}-{what}", std::process::id()))
}

#[test]
fn a_file_is_copied_by_blocks_and_by_splice() {
    let (from, to) = (scratch("from"), scratch("to"));
    for len in [0, 1, 70_000, bulk(5 << 20) + 12_345] {
        let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        std::fs::write(&from, &content).unwrap();
        for splice in [false, true] {
            // What was there before is gone.
            std::fs::write(&to, vec![9; len / 2 + 100]).unwrap();
            let (a, b) = (from.clone(), to.clone());
            let copied = on_one_core(move || async move { file_copy::copy(&a, &b, splice).await });
            assert_eq!(copied, len as u64);
            assert!(std::fs::read(&to).unwrap() == content, "{len} bytes, splice: {splice}");
        }
    }
    std::fs::remove_file(from).unwrap();
    std::fs::remove_file(to).unwrap();
}

#[test]
fn tokio_asks_the_core_and_is_told_by_it() {
    let path = scratch("embed");
    std::fs::write(&path, [0; 1234]).unwrap();
    let lines = embed::run(vec![path.clone(), "/no/such/file".into()], false).unwrap();
    assert_eq!(lines[0], format!("{}: 1234 bytes", path.display()));
    assert!(lines[1].starts_with("cannot open /no/such/file: "), "{lines:?}");
    assert!(lines[2].starts_with("the core runs on CPU "), "{lines:?}");
    assert_eq!(lines.len(), 3);
    std::fs::remove_file(path).unwrap();
}

/// A signal to the process, of which no thread is struck: it comes to the core that asked, and the program
/// ends by itself.
#[test]
fn ctrl_c_comes_to_the_core_that_asked() {
    let Some(example) = example("embed") else { return };
    let mut child = Command::new(example).arg("--until-ctrl-c").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "press Ctrl-C"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(lines.any(|line| line == "interrupted"));
    assert!(child.wait().unwrap().success());
}
