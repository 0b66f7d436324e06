//! Finds the program under test.

use std::path::PathBuf;

/// The path of the binary `annulus`.
///
/// The environment variable `ANNULUS_BIN` names it; without it, it is the one that cargo built into the same
/// profile's directory as this test (`target/debug/annulus` for a test in `target/debug/deps`). Cargo does
/// not build it for these tests by itself (that a test may depend on another package's binary is an unstable
/// feature), hence the message.
#[track_caller]
pub fn annulus() -> PathBuf {
    let path = match std::env::var_os("ANNULUS_BIN") {
        Some(named) => PathBuf::from(named),
        None => {
            let test = std::env::current_exe().expect("the path of this test's own executable");
            let profile =
                test.parent().and_then(|deps| deps.parent()).expect("a test lies in target/PROFILE/deps");
            profile.join("annulus")
        }
    };
    assert!(
        path.is_file(),
        "there is no program to test at {}: run `cargo build -p annulus-server` (with --release where the tests run so), \
         or name it in ANNULUS_BIN",
        path.display()
    );
    path
}

/// The path of an example of the library, or of the crate annulus-examples.
///
/// The environment variable `ANNULUS_EXAMPLES` names the directory; without it, it is the one that cargo
/// built into the same profile's directory as this test. `cargo test --workspace` builds them.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let dir = match std::env::var_os("ANNULUS_EXAMPLES") {
        Some(named) => PathBuf::from(named),
        None => {
            let test = std::env::current_exe().expect("the path of this test's own executable");
            let profile =
                test.parent().and_then(|deps| deps.parent()).expect("a test lies in target/PROFILE/deps");
            profile.join("examples")
        }
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "there is no example at {}: run `cargo build -p annulus -p annulus-examples --examples` (with --release where the tests run so), or \
         name their directory in ANNULUS_EXAMPLES",
        path.display()
    );
    path
}
