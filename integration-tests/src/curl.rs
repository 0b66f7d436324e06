//! Runs curl, the client that everybody has.

use crate::digest::{self, Sum};
use crate::watch;
use std::process::{Command, Stdio};

/// What curl said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output, lossily as text.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A curl that reads no configuration, uses no proxy, prints errors and no progress, and does not wait for
/// ever.
fn command() -> Command {
    let mut command = Command::new("curl");
    // -q has to come first.
    command.args(["-q", "--silent", "--show-error", "--noproxy", "*"]);
    command.args(["--max-time", &watch::LIMIT.as_secs().to_string()]);
    command.stdin(Stdio::null());
    command
}

/// Runs curl with `args`.
#[track_caller]
pub fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    let mut command = command();
    command.args(args);
    let output = command.output().unwrap_or_else(|e| panic!("running curl (apt-get install curl): {e}"));
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs curl with `args` and ends the test unless it succeeds. Returns its standard output.
#[track_caller]
pub fn must<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let said = run(args);
    assert_eq!(said.code, Some(0), "curl failed: {said:#?}");
    said.out
}

/// Fetches `url` and sums up the body as it comes through a pipe: nothing is written to disk.
#[track_caller]
pub fn sum(url: &str) -> Sum {
    let mut command = command();
    command.args(["--fail", url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("running curl (apt-get install curl): {e}"));
    let mut body = child.stdout.take().expect("curl's piped stdout");
    let sum =
        digest::of_reader(&mut body).unwrap_or_else(|e| panic!("reading what curl fetched from {url}: {e}"));
    let output = child.wait_with_output().expect("wait for curl");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {url} failed ({}) after {} bytes: {err}", output.status, sum.len);
    sum
}

/// The status code that `url` gives, asked for with `args` besides.
#[track_caller]
pub fn status(args: &[&str], url: &str) -> u16 {
    let fixed = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let code = must(fixed.iter().chain(args).chain([&url]));
    code.parse().unwrap_or_else(|_| panic!("curl gave {code:?} as the status of {url}"))
}
