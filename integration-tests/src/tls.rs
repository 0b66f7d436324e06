//! Certificates, and openssl as a client.

use crate::files::Tree;
use crate::lines::Lines;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

/// What openssl makes a certificate of: that of a server, and not of an authority, which a server may not
/// show.
const CONFIG: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n\
                      [name]\nCN = localhost\n\
                      [extensions]\nsubjectAltName = DNS:localhost,IP:127.0.0.1\n\
                      basicConstraints = critical,CA:FALSE\n";

/// A certificate of `localhost` and `127.0.0.1` that has signed itself, and its key, as files.
pub struct Certificate {
    tree: Tree,
}

impl Certificate {
    /// Makes one.
    #[track_caller]
    pub fn new() -> Certificate {
        let tree = Tree::new();
        tree.bytes("config", CONFIG.as_bytes());
        let made = Certificate { tree };
        let config = made.at("config");
        let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let files = ["-config", &config, "-out", &made.file(), "-keyout", &made.key()];
        let said = openssl(["req", "-x509"].iter().chain(&kind).chain(&files));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        made
    }

    fn at(&self, name: &str) -> String {
        self.tree.at(name).display().to_string()
    }

    /// The path of the certificate, in PEM.
    pub fn file(&self) -> String {
        self.at("certificate.pem")
    }

    /// The path of its key, in PEM.
    pub fn key(&self) -> String {
        self.at("key.pem")
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Certificate::new()
    }
}

fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("openssl");
    command.args(args);
    command
}

/// Runs openssl with `args` to its end, with nothing to read.
#[track_caller]
pub fn openssl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let run = command(args).stdin(Stdio::null()).output();
    run.unwrap_or_else(|e| panic!("running openssl (apt-get install openssl): {e}"))
}

/// `openssl s_client`, connected. Dropping it kills it.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Lines,
}

impl Client {
    /// Connects to `to`, offers the protocol `alpn`, and trusts `certificate` alone.
    #[track_caller]
    pub fn connect(to: SocketAddr, alpn: &str, certificate: &Certificate) -> Client {
        let to = to.to_string();
        let file = certificate.file();
        let names = ["-connect", &to, "-servername", "localhost", "-verify_hostname", "localhost"];
        let how = ["-verify_return_error", "-CAfile", &file, "-alpn", alpn];
        let mut command = command(["s_client"].iter().chain(&names).chain(&how));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|e| panic!("running openssl (apt-get install openssl): {e}"));
        let out = Lines::collect(child.stdout.take().expect("a piped stdout"));
        Client { stdin: child.stdin.take(), child, out }
    }

    /// What it types.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().expect("it was not ended")
    }

    /// Waits for a line that it shows: of the handshake, or of what the server sends. False when it has ended
    /// without it.
    #[track_caller]
    pub fn shows(&self, what: &str) -> bool {
        self.out.wait_for(what, |line| line.contains(what).then_some(())).is_some()
    }

    /// Waits until the server has ended it.
    #[track_caller]
    pub fn ended(mut self) {
        self.child.wait().expect("waiting for openssl");
    }

    /// It types no more, and ends by itself. Whether it is content.
    #[track_caller]
    pub fn end(mut self) -> bool {
        drop(self.stdin.take());
        self.child.wait().expect("waiting for openssl").success()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
