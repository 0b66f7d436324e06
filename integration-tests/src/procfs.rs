//! What /proc says about a server from outside: its threads, their CPUs, its open files, its listening
//! sockets.

use crate::cpus;
use std::fs;
use std::path::{Path, PathBuf};

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub tid: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// The CPUs it may run on.
    pub cpus: Vec<usize>,
}

impl Thread {
    /// Whether this is one of io_uring's own workers (`iou-wrk-TID`), which the kernel makes inside our
    /// process.
    pub fn is_io_worker(&self) -> bool {
        self.name.starts_with("iou-wrk-")
    }

    /// The thread whose ring this io_uring worker works for.
    pub fn works_for(&self) -> Option<u32> {
        self.name.strip_prefix("iou-wrk-")?.parse().ok()
    }

    /// Whether this is io_uring's submission thread (`iou-sqp-TID`).
    pub fn is_sq_poll(&self) -> bool {
        self.name.starts_with("iou-sqp-")
    }
}

/// The threads of a process. One that ends while we look is left out.
#[track_caller]
pub fn threads(pid: u32) -> Vec<Thread> {
    entries(&format!("/proc/{pid}/task"))
        .into_iter()
        .filter_map(|dir| {
            let name = fs::read_to_string(dir.join("comm")).ok()?;
            let status = fs::read_to_string(dir.join("status")).ok()?;
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            let tid = dir.file_name()?.to_str()?.parse().ok()?;
            Some(Thread { tid, name: name.trim_end().to_owned(), cpus: cpus::parse_list(list) })
        })
        .collect()
}

/// The threads that the program itself runs next to its first one: no first thread, none of io_uring's.
#[track_caller]
pub fn own_threads(pid: u32) -> Vec<Thread> {
    threads(pid).into_iter().filter(|t| t.tid != pid && !t.is_io_worker() && !t.is_sq_poll()).collect()
}

/// The processes that a process has started and that have not ended.
#[track_caller]
pub fn children(pid: u32) -> Vec<u32> {
    let child = |dir: PathBuf| {
        let status = fs::read_to_string(dir.join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let living = field("State:").is_some_and(|state| !state.starts_with('Z'));
        (living && field("PPid:") == Some(&pid.to_string())).then(|| field("Pid:")?.parse().ok())?
    };
    entries("/proc").into_iter().filter_map(child).collect()
}

/// What a process has mapped, a line each.
#[track_caller]
pub fn maps(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {path}: {e}"));
    maps.lines().map(str::to_owned).collect()
}

/// How many descriptors a process has open.
#[track_caller]
pub fn open_files(pid: u32) -> usize {
    entries(&format!("/proc/{pid}/fd")).len()
}

/// How many files below a directory a process has open.
#[track_caller]
pub fn open_under(pid: u32, directory: &Path) -> usize {
    links(pid, &format!("{}/", directory.display())).len()
}

/// How many sockets a process has open, however many descriptors each has.
#[track_caller]
pub fn sockets(pid: u32) -> usize {
    let mut sockets = links(pid, "socket:");
    sockets.sort();
    sockets.dedup();
    sockets.len()
}

/// How many ends of pipes a process has open.
#[track_caller]
pub fn pipe_ends(pid: u32) -> usize {
    links(pid, "pipe:").len()
}

/// How many bytes a process has read by system calls, of files and all else that read(2) and its kin read
/// (`rchar`, proc(5)).
#[track_caller]
pub fn read_by_calls(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("what a process of ours has read");
    let count = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no rchar in {io:?}"))
}

/// KiB of memory that a process has for itself and that are in memory now (`RssAnon`, proc(5); Linux 4.5).
#[track_caller]
pub fn anonymous_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or_else(|| panic!("no RssAnon in {status:?}"))
}

/// How many sockets of this machine listen on TCP `port`, IPv4 and IPv6 together.
#[track_caller]
pub fn listeners(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .map(|table| {
            table
                .lines()
                .filter(|line| {
                    let mut fields = line.split_whitespace().skip(1);
                    let local = fields.next().is_some_and(|local| local.ends_with(&port));
                    local && fields.nth(1) == Some(LISTEN)
                })
                .count()
        })
        .sum()
}

/// What the descriptors of a process stand for, of those that begin so.
#[track_caller]
fn links(pid: u32, prefix: &str) -> Vec<PathBuf> {
    entries(&format!("/proc/{pid}/fd"))
        .into_iter()
        .filter_map(|link| fs::read_link(link).ok())
        .filter(|target| target.to_string_lossy().starts_with(prefix))
        .collect()
}

#[track_caller]
fn entries(dir: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(dir).unwrap_or_else(|e| panic!("listing {dir}: {e}"));
    listing.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// An IPv4 connection of this machine, as /proc/net/tcp has it (proc_pid_net(5)).
#[derive(Clone, Debug)]
pub struct Tcp {
    /// This end.
    pub local: std::net::SocketAddr,
    /// The other end.
    pub remote: std::net::SocketAddr,
    /// What its timer waits for is the next question to a silent peer.
    pub has_keepalive: bool,
}

/// The established IPv4 connections that `wanted` picks.
#[track_caller]
pub fn tcp(wanted: impl Fn(&Tcp) -> bool) -> Vec<Tcp> {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE: &str = "02:";
    let table = fs::read_to_string("/proc/net/tcp").expect("the connections of this machine");
    let address = |text: &str| {
        let (ip, port) = text.split_once(':')?;
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        Some(std::net::SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
    };
    let connection = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        let is_established = *fields.get(3)? == ESTABLISHED;
        is_established.then(|| Tcp { local, remote, has_keepalive: fields[5].starts_with(KEEPALIVE) })
    };
    table.lines().filter_map(connection).filter(wanted).collect()
}
