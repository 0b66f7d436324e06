//! A network and a set of mounts of a test's own, in which it may do what takes a privilege elsewhere
//! (`user_namespaces(7)`, `network_namespaces(7)`, `mount_namespaces(7)`).

use crate::peers;
use crate::prepare::Prepare;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// It is there until it is dropped.
pub struct Namespace {
    holder: Child,
    pid: String,
    _out: BufReader<ChildStdout>,
}

impl Namespace {
    /// One in which `setup`, a command of the shell, has been run; its loopback is up. `None`, with a line
    /// that says so, where this machine lets us have none.
    #[track_caller]
    pub fn new(setup: &str) -> Option<Namespace> {
        if !peers::have(["unshare", "nsenter", "ip"]) {
            return None;
        }
        let script = format!("ip link set lo up && {setup} && echo ready && exec cat");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Prepare::default().apply(&mut command);
        let started =
            command.spawn().inspect_err(|e| println!("left out: no namespace of our own here: {e}"));
        let mut holder = started.ok()?;
        let mut out = BufReader::new(holder.stdout.take().expect("a piped stdout"));
        let mut line = String::new();
        if out.read_line(&mut line).is_ok() && line == "ready\n" {
            let pid = holder.id().to_string();
            return Some(Namespace { holder, pid, _out: out });
        }
        let said = holder.wait_with_output().map(|it| String::from_utf8_lossy(&it.stderr).into_owned());
        println!("left out: no namespace of our own here: {}", said.unwrap_or_default().trim());
        None
    }

    /// What stands before a command that runs in it.
    pub fn within(&self) -> Vec<&str> {
        vec!["nsenter", "--preserve-credentials", "-U", "-n", "-m", "-t", &self.pid]
    }

    /// Runs a command in it: whether it succeeded, and what it said.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> (bool, String) {
        let within = self.within();
        let output = Command::new(within[0]).args(&within[1..]).args(words).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("running {words:?}: {e}"));
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
