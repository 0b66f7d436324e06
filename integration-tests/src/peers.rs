//! Servers of others that stand beside the program in a test: nginx, HAProxy, Redis, PostgreSQL of Debian.
//!
//! Each runs in the foreground, on an address of this test's own, with its files in a directory of its own,
//! as whoever runs the test. `scripts/test` installs them.

use crate::files::Tree;
use crate::prepare::Prepare;
use crate::{net, watch};
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A server that runs. Dropping it kills it.
pub struct Peer {
    child: Child,
    addr: SocketAddr,
    dir: Tree,
}

/// Where a program lies, in PATH or where Debian has what is not for everybody's PATH. `None`, with a line
/// that says so, where it is not installed; with `ANNULUS_PEERS=required`, as `scripts/test` sets it, that
/// ends the test.
#[track_caller]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgres = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let postgres = postgres.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into()]).chain(postgres);
    let found = places.find_map(|place| Some(place.join(name)).filter(|path| path.is_file()));
    if found.is_none() {
        let is_required = std::env::var_os("ANNULUS_PEERS").is_some_and(|value| value == "required");
        assert!(!is_required, "{name} is not installed, and scripts/test should have seen to that");
        println!("left out: {name} is not installed");
    }
    found
}

/// Whether all of these are installed; says which is not.
#[track_caller]
pub fn have<const N: usize>(names: [&str; N]) -> bool {
    names.into_iter().all(|name| program(name).is_some())
}

impl Peer {
    /// nginx with `blocks` (`http {}`, `stream {}`) as its configuration, in which `@` stands for the address
    /// that it listens on.
    #[track_caller]
    pub fn nginx(blocks: &str) -> Peer {
        let (dir, addr) = (Tree::new(), net::free_addr());
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        let module =
            if module.exists() { format!("load_module {};\n", module.display()) } else { String::new() };
        let blocks = blocks.replace('@', &addr.to_string());
        let config = format!(
            "{module}daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 1000; }}\n{blocks}\n",
            dir = dir.root().display()
        );
        let config = config.replace("http {", &format!("http {{ {}", nginx_folders(dir.root())));
        dir.bytes("nginx.conf", config.as_bytes());
        let file = dir.at("nginx.conf");
        // Its first words go to a log that is built in, which it then leaves; that one may be root's.
        let args = [OsStr::new("-e"), OsStr::new("stderr"), OsStr::new("-c"), file.as_os_str()];
        Peer::start("nginx", &args, dir, addr, false)
    }

    /// HAProxy with `sections` as its configuration, in which `@` stands for the address that it listens on.
    #[track_caller]
    pub fn haproxy(sections: &str) -> Peer {
        let (dir, addr) = (Tree::new(), net::free_addr());
        let defaults = "global\n maxconn 1000\ndefaults\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n";
        dir.bytes(
            "haproxy.cfg",
            format!("{defaults}{}", sections.replace('@', &addr.to_string())).as_bytes(),
        );
        let file = dir.at("haproxy.cfg");
        Peer::start("haproxy", &[OsStr::new("-db"), OsStr::new("-f"), file.as_os_str()], dir, addr, false)
    }

    /// Redis that keeps nothing.
    #[track_caller]
    pub fn redis() -> Peer {
        let (dir, addr) = (Tree::new(), net::free_addr());
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        let at = dir.root().display().to_string();
        let args = ["--bind", &ip, "--port", &port, "--save", "", "--appendonly", "no", "--dir", &at];
        Peer::start("redis-server", &args.map(OsStr::new), dir, addr, false)
    }

    /// PostgreSQL with a new cluster whose superuser is `postgres` and asks for no password. It refuses to
    /// run as root, and then runs as `nobody`.
    #[track_caller]
    pub fn postgres() -> Peer {
        let (dir, addr) = (Tree::new(), net::free_addr());
        let data = dir.at("data");
        std::fs::create_dir(&data).expect("a directory for a cluster");
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown").arg("nobody:").arg(&data).status();
            assert!(given.is_ok_and(|status| status.success()), "chown of {}", data.display());
        }
        let made = command("initdb", true)
            .args(["--no-sync", "--no-instructions", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data)
            .output()
            .expect("running initdb");
        assert!(made.status.success(), "initdb: {made:?}");
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        let flags = ["-h", &ip, "-p", &port, "-k", "", "-F", "-c", "max_connections=40", "-D"];
        let mut args: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        args.push(data.as_os_str());
        Peer::start("postgres", &args, dir, addr, true)
    }

    /// Starts it, and returns when it listens.
    #[track_caller]
    fn start(name: &str, args: &[&OsStr], dir: Tree, addr: SocketAddr, not_as_root: bool) -> Peer {
        let log = std::fs::File::create(dir.at("log")).expect("a file for what it says");
        let log_too = log.try_clone().expect("the same file");
        let mut command = command(name, not_as_root);
        command.args(args).stdout(log).stderr(log_too);
        let child = command.spawn().unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
        let mut peer = Peer { child, addr, dir };
        watch::until(name, || {
            if let Some(status) = peer.child.try_wait().expect("asking after it") {
                panic!("{name} ended with {status}: {}", peer.said());
            }
            TcpStream::connect(addr).ok()
        });
        peer
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        let said = std::fs::read(self.dir.at("log")).expect("what it said");
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended. PostgreSQL's children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where nginx puts what it does not hold in memory: what is built in is root's.
fn nginx_folders(dir: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what};", dir.display()))
        .join(" ")
        + " access_log off;"
}

/// The command of a program that is installed, to be ended with the test; by `nobody` in root's place where
/// it refuses root.
#[track_caller]
fn command(name: &str, not_as_root: bool) -> Command {
    let program = program(name).unwrap_or_else(|| panic!("{name}: ask `have` first"));
    let mut command = if not_as_root && rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        let to = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"];
        command.args(to).arg(program).current_dir("/");
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null());
    Prepare::default().apply(&mut command);
    command
}

/// Runs a client's tool to its end; ends the test unless it succeeds. What it said on both its outputs.
#[track_caller]
pub fn tool(name: &str, args: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        command(name, false).args(args).output().unwrap_or_else(|e| panic!("running {name}: {e}"));
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(status.success(), "{name} {args:?} ended with {status}: {said}");
    said
}
