//! `annulus roads`: every technique is measured at every size, as a table and as a picture, here and on
//! another machine.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Ended, Launch};
use rustix::process::Signal;

const TECHNIQUES: [&str; 6] = [
    "read + write",
    "sendfile",
    "splice inline",
    "splice in the ring",
    "serve --road inline",
    "read + SEND_ZC",
];
const SIZES: [&str; 6] = ["1 KiB", "16 KiB", "64 KiB", "1 MiB", "16 MiB", "64 MiB"];

/// How many lines of the table there are for a technique.
fn lines(ended: &Ended, technique: &str) -> usize {
    let is_it = |size: &str, line: &str| line.trim_start().starts_with(size) && line.contains(technique);
    SIZES.iter().filter(|size| ended.out.iter().any(|line| is_it(size, line))).count()
}

/// A ring of this machine may have no SEND_ZC (Linux before 6.0), or the user no memory left to lock for some
/// of its sizes.
fn has_send_zc(ended: &Ended) -> bool {
    !ended.out.iter().any(|line| line.starts_with("Not measured: read + SEND_ZC, because"))
}

#[test]
fn every_technique_is_in_the_table_and_in_the_picture() {
    let tree = Tree::new();
    let svg = tree.at("roads.svg");
    let ended = Launch::new().args(["roads", "--quick", "--svg"]).arg(&svg).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let (all, known) = (TECHNIQUES.len(), if has_send_zc(&ended) { 6 } else { 5 });
    for technique in &TECHNIQUES[..known] {
        assert_eq!(lines(&ended, technique), SIZES.len(), "{technique}: {ended:#?}");
    }
    let picture = std::fs::read_to_string(svg).unwrap();
    let drawn = TECHNIQUES.iter().filter(|technique| lines(&ended, technique) > 0).count();
    assert_eq!(picture.matches("<polyline").count(), drawn, "{ended:#?}");
    assert_eq!(picture.matches("; said to be ").count(), all);
}

/// Seen to fail: with the first failure of any technique ending the program.
#[test]
fn without_a_ring_the_rest_is_measured_and_the_reason_is_told() {
    let refused = Launch::new().args(["roads", "--quick"]).refused(&[libc::SYS_io_uring_setup], libc::EPERM);
    let ended = refused.run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    for (technique, there) in TECHNIQUES.into_iter().zip([true, true, true, false, false, false]) {
        assert_eq!(lines(&ended, technique), if there { SIZES.len() } else { 0 }, "{technique}: {ended:#?}");
        let told = format!("Not measured: {technique}, because ");
        assert_eq!(ended.out.iter().any(|line| line.starts_with(&told)), !there, "{technique}: {ended:#?}");
    }
}

#[test]
fn another_machine_may_receive() {
    let receiver = Launch::new().args(["roads", "--receive", "127.0.0.1:0"]).start();
    let address = receiver.addr().to_string();
    let ended = Launch::new().args(["roads", "--quick", "--to", &address]).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.out.iter().any(|line| line.contains(&format!("the path to {address}"))), "{ended:#?}");
    for technique in &TECHNIQUES[..if has_send_zc(&ended) { 6 } else { 5 }] {
        assert_eq!(lines(&ended, technique), SIZES.len(), "{technique}: {ended:#?}");
    }
    receiver.signal(Signal::KILL);
    receiver.wait();
}

#[test]
fn a_receiver_that_is_not_there_ends_it() {
    let address = annulus_integration_tests::net::free_addr().to_string();
    let ended = Launch::new().args(["roads", "--quick", "--to", &address]).run();
    assert!(ended.one_line(1).contains("read + write: Connection refused"), "{ended:#?}");
}
