//! The one table of what is done. To add work, add a line to [`workloads`]; who does it stands in
//! [`contestants`](super::contestants).

use crate::drive::{Choice, ColdFile, Command, Direction, Load, Told, Tool};
use crate::micro::Op;
use crate::size::show_size;
use std::path::PathBuf;

/// What a contestant must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer every GET with so many bytes of the pattern.
    Hello(u64),
    /// Serve a file of this many bytes of the pattern over HTTP.
    File(u64),
    /// The same of a file that is not in memory.
    Cold(u64),
    /// Serve a directory of files.
    Site,
    /// The same, alone and while it streams a file that is not in memory.
    Beside,
    /// Send back what it receives.
    Echo,
    /// Answer Redis clients.
    Redis,
    /// Relay TCP, bulk.
    RelayBulk,
    /// Relay TCP, small messages.
    RelaySmall,
    /// Relay datagrams.
    RelayDatagrams,
    /// Measure an operation of its own.
    Micro,
    /// The same, where timers fire: how late they may be is a choice.
    Sleepers,
}

/// What the cost of a contestant is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds of CPU per request or message.
    MicrosPerRequest,
    /// Seconds of CPU per 10^9 bytes of payload.
    SecondsPerGigabyte,
    /// Nanoseconds of CPU per operation.
    NanosPerOperation,
    /// Microseconds that a sleeper woke later than asked for.
    MicrosLate,
    /// Microseconds within which half of the requests were answered.
    MicrosMedian,
    /// Microseconds within which 90 of 100 were. Compared over all rounds together.
    Micros90,
    /// Microseconds within which 99 of 100 were. Compared over all rounds together.
    Micros99,
    /// KiB of a process's own memory, all of it, per connection.
    KibUser,
    /// KiB by which it grew per connection.
    KibGrown,
    /// KiB of that which it still has when all connections have gone.
    KibKept,
    /// KiB by which the kernel's memory grew per connection.
    KibKernel,
}

impl Unit {
    /// How cost and speed are called.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Unit::MicrosPerRequest => ("CPU us/request", "k requests/s"),
            Unit::SecondsPerGigabyte => ("CPU s/GB", "GB/s"),
            Unit::NanosPerOperation => ("CPU ns/operation", "k operations/s"),
            Unit::MicrosLate => ("us late", "k operations/s"),
            Unit::MicrosMedian => ("us, median", "k requests/s"),
            Unit::Micros90 => ("us, 90%", "k requests/s"),
            Unit::Micros99 => ("us, 99%", "k requests/s"),
            Unit::KibUser => ("KiB/connection, process", "k connections/s"),
            Unit::KibGrown => ("KiB/connection, grown", "k connections/s"),
            Unit::KibKept => ("KiB/connection, kept", "k connections/s"),
            Unit::KibKernel => ("KiB/connection, kernel", "k connections/s"),
        }
    }
}

impl Unit {
    /// The share of requests of which latency is told, where contestants are compared by all rounds together.
    pub fn pooled(self) -> Option<f64> {
        match self {
            Unit::Micros90 => Some(0.9),
            Unit::Micros99 => Some(0.99),
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// A server is driven.
    Drive(Load),
    /// A server, started again, answers once on each of this many connections, and then has them all idle.
    Idle(usize),
    /// A program measures itself.
    Own(Op),
}

impl Task {
    /// The path that is asked for and the bytes of its body, if it is HTTP.
    pub fn asks_for(&self) -> Option<(&str, u64)> {
        match self {
            Task::Drive(load) => load.asks_for(),
            Task::Idle(_) => Some(("/1k", 1 << 10)),
            Task::Own(_) => None,
        }
    }

    /// More rounds than these would cost much time and tell little more.
    pub fn most_rounds(&self) -> usize {
        match self {
            Task::Idle(_) | Task::Drive(Load::Stranger { .. }) => 6,
            Task::Drive(load) if load.asks_for().is_some_and(|(_, body)| body >= 1 << 30) => 6,
            _ => usize::MAX,
        }
    }

    /// About how much longer than others a turn takes, where its length does not follow from what the turn is
    /// given.
    pub fn weight(&self) -> u32 {
        match self {
            Task::Idle(_) => 4,
            Task::Drive(Load::Cold(cold)) if cold.body >= 1 << 30 => 6,
            Task::Drive(Load::Beside { .. }) => 3,
            Task::Drive(Load::Http { body, .. }) if *body >= 1 << 30 => 3,
            Task::Drive(Load::Http { connections, .. }) if *connections > 4096 => 3,
            Task::Drive(Load::Stranger { .. }) => 2,
            _ => 1,
        }
    }
}

/// One piece of work that all contestants of its kind do. Two in a row of the same kind and task are views of
/// the same rounds: they are played once.
#[derive(Clone, Debug)]
pub struct Workload {
    /// As on the command line.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What is to be done.
    pub task: Task,
    /// What the cost is told in.
    pub unit: Unit,
    /// The contestant that ratios refer to, unless the command line names another.
    pub reference: &'static str,
}

/// All work, in the order it is done.
#[expect(clippy::too_many_lines, reason = "a table: a line for each workload")]
pub fn workloads() -> Vec<Workload> {
    use Unit::{MicrosPerRequest as Micros, SecondsPerGigabyte as Gigabyte};
    let http = |body: u64, connections| {
        Task::Drive(Load::Http { path: format!("/{}", show_size(body)), body, connections })
    };
    let bulk = |connections| Task::Drive(Load::Bulk { direction: Direction::Down, connections });
    let echo = |size, relayed| Task::Drive(Load::Echo { size, connections: 64, relayed });
    let hello = |name, body: u64, connections| Workload {
        name,
        kind: Kind::Hello(body),
        task: http(body, connections),
        unit: Micros,
        reference: "bare",
    };
    let file = |name, body, connections, unit| Workload {
        name,
        kind: Kind::File(body),
        task: http(body, connections),
        unit,
        reference: "bare inline-splice:60k",
    };
    let micro =
        |name, op, unit| Workload { name, kind: Kind::Micro, task: Task::Own(op), unit, reference: "tokio" };
    let other = |name, kind, task, unit, reference| Workload { name, kind, task, unit, reference };
    let path = || "/1k".to_owned();
    let bare = |name, task, unit| other(name, Kind::Hello(1 << 10), task, unit, "bare");
    let by = |tool| Task::Drive(Load::Stranger { tool, path: path(), body: 1 << 10, connections: 64 });
    let fresh = Task::Drive(Load::Fresh { path: path(), body: 1 << 10, connections: 64 });
    let cold = |name, body| {
        let load = Load::Cold(cold_file(body));
        other(name, Kind::Cold(body), Task::Drive(load), Micros, "nginx sendfile on")
    };
    let site = |name, load| other(name, Kind::Site, Task::Drive(load), Micros, "nginx sendfile off");
    let told =
        |name, path: &str, told| site(name, Load::Told { path: path.to_owned(), told, connections: 64 });
    let many = |name, choice| site(name, Load::Many { choice, connections: 64 });
    let paced = |of, rate| match of {
        Task::Drive(of) => Task::Drive(Load::Paced { of: Box::new(of), rate }),
        other => other,
    };
    let rate = |name, unit| bare(name, paced(http(1 << 10, 64), 10_000), unit);
    let relay_rate =
        |name, unit| other(name, Kind::RelaySmall, paced(echo(1024, true), 5_000), unit, "bare mshot");
    let beside = |name, unit| {
        let of = Load::Http { path: path(), body: 1 << 10, connections: 64 };
        let of = Box::new(Load::Paced { of: Box::new(of), rate: 5_000 });
        let load = Load::Beside { of, cold: cold_file(1 << 30) };
        other(name, Kind::Beside, Task::Drive(load), unit, "annulus serve")
    };
    let brief = Task::Drive(Load::Brief { size: 1024, connections: 64 });
    let datagrams = Task::Drive(Load::Datagrams { size: 1024, clients: 64 });
    let redis = |name, command, pipelined| {
        let load = Load::Redis { command, pipelined, connections: 64 };
        other(name, Kind::Redis, Task::Drive(load), Micros, "redis-server")
    };
    let idle = |name, unit| bare(name, Task::Idle(10_000), unit);
    vec![
        hello("hello-1k", 1 << 10, 64),
        hello("hello-16k", 16 << 10, 64),
        bare("hello-1k-wrk", by(Tool::Wrk), Micros),
        bare("hello-1k-h2load", by(Tool::H2load), Micros),
        bare("close-1k", fresh, Micros),
        rate("rate-10k", Micros),
        rate("rate-10k-median", Unit::MicrosMedian),
        rate("rate-10k-90", Unit::Micros90),
        rate("rate-10k-99", Unit::Micros99),
        other("echo-100", Kind::Echo, echo(100, false), Micros, "bare"),
        redis("redis-set", Command::Set, 1),
        redis("redis-get", Command::Get, 1),
        redis("redis-get-16", Command::Get, 16),
        file("file-1k", 1 << 10, 64, Micros),
        file("file-16k", 16 << 10, 64, Micros),
        file("file-64k", 64 << 10, 64, Micros),
        file("file-1m", 1 << 20, 64, Micros),
        file("file-256m", 256 << 20, 1, Gigabyte),
        file("file-1g", 1 << 30, 1, Gigabyte),
        told("told-304", "/1k", Told::NotModified),
        told("told-404", "/nothing-has-this-name", Told::NotFound),
        many("many-zipf", Choice::Zipf(0.9)),
        many("many-uniform", Choice::Uniform),
        cold("cold-1k", 1 << 10),
        cold("cold-16k", 16 << 10),
        cold("cold-64k", 64 << 10),
        cold("cold-1m", 1 << 20),
        cold("cold-1g", 1 << 30),
        beside("beside-cold-90", Unit::Micros90),
        beside("beside-cold-99", Unit::Micros99),
        other("relay-1", Kind::RelayBulk, bulk(1), Gigabyte, "bare inline-splice:1m"),
        other("relay-64", Kind::RelayBulk, bulk(64), Gigabyte, "bare inline-splice:1m"),
        other("relay-small", Kind::RelaySmall, echo(1024, true), Micros, "bare mshot"),
        other("relay-close", Kind::RelaySmall, brief, Micros, "bare mshot"),
        other("relay-udp", Kind::RelayDatagrams, datagrams, Micros, "nginx stream"),
        relay_rate("relay-rate-5k", Micros),
        relay_rate("relay-rate-5k-median", Unit::MicrosMedian),
        relay_rate("relay-rate-5k-90", Unit::Micros90),
        relay_rate("relay-rate-5k-99", Unit::Micros99),
        idle("idle-10k-user", Unit::KibUser),
        idle("idle-10k-grown", Unit::KibGrown),
        idle("idle-10k-kept", Unit::KibKept),
        idle("idle-10k-kernel", Unit::KibKernel),
        hello("conns-256", 1 << 10, 256),
        hello("conns-1024", 1 << 10, 1024),
        hello("conns-4096", 1 << 10, 4096),
        hello("conns-16384", 1 << 10, 16384),
        micro("spawn", Op::Spawn, Unit::NanosPerOperation),
        micro("yield", Op::Yield, Unit::NanosPerOperation),
        micro("timer", Op::Timer, Unit::NanosPerOperation),
        micro("ping-pong", Op::PingPong, Unit::NanosPerOperation),
        other("sleepers", Kind::Sleepers, Task::Own(Op::Sleepers), Unit::NanosPerOperation, "tokio"),
        other("sleepers-late", Kind::Sleepers, Task::Own(Op::Sleepers), Unit::MicrosLate, "tokio"),
    ]
}

/// A file of its own name, which no other work has in memory.
fn cold_file(body: u64) -> ColdFile {
    ColdFile { path: format!("/cold-{}", show_size(body)), body, file: PathBuf::new() }
}

/// Names that stand for several workloads.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("roads", &["file-64k", "file-1m", "file-256m", "relay-1", "relay-64"]),
    ("files", &["file-1k", "file-16k", "file-64k", "file-1m", "file-256m", "file-1g"]),
    ("cold", &["cold-1k", "cold-16k", "cold-64k", "cold-1m", "cold-1g"]),
    ("site", &["told-304", "told-404", "many-zipf", "many-uniform"]),
    ("beside", &["beside-cold-90", "beside-cold-99"]),
    ("strangers", &["hello-1k-wrk", "hello-1k-h2load"]),
    ("redis", &["redis-set", "redis-get", "redis-get-16"]),
    ("rate", &["rate-10k", "rate-10k-median", "rate-10k-90", "rate-10k-99"]),
    ("relays", &["relay-1", "relay-64", "relay-small", "relay-close", "relay-udp"]),
    ("relay-rate", &["relay-rate-5k", "relay-rate-5k-median", "relay-rate-5k-90", "relay-rate-5k-99"]),
    ("idle", &["idle-10k-user", "idle-10k-grown", "idle-10k-kept", "idle-10k-kernel"]),
    ("small", &["hello-1k", "hello-16k", "echo-100", "relay-small"]),
    ("conns", &["hello-1k", "conns-256", "conns-1024", "conns-4096", "conns-16384"]),
    ("micro", &["spawn", "yield", "timer", "ping-pong", "sleepers", "sleepers-late"]),
];

/// The workloads that `name` stands for, if it is a group's.
pub fn group(name: &str) -> Option<&'static [&'static str]> {
    GROUPS.iter().find(|(group, _)| *group == name).map(|(_, members)| *members)
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::*;

    #[test]
    fn every_workload_has_its_reference_and_no_name_twice() {
        let mut names = std::collections::HashSet::new();
        for work in workloads() {
            assert!(names.insert(work.name), "{} is there twice", work.name);
            let who = contestants(work.kind);
            let distinct: std::collections::HashSet<_> = who.iter().map(|c| &c.name).collect();
            assert_eq!(distinct.len(), who.len(), "{}", work.name);
            assert!(who.iter().any(|c| c.name == work.reference), "{}", work.name);
        }
    }

    /// Views are played once only if they follow each other.
    #[test]
    fn work_that_is_done_alike_stands_together() {
        let all = workloads();
        for (i, first) in all.iter().enumerate() {
            let alike = |work: &Workload| work.kind == first.kind && work.task == first.task;
            let together = all[i..].iter().take_while(|work| alike(work)).count();
            let later = all[i + together..].iter().find(|work| alike(work));
            assert!(later.is_none(), "{} and {:?}", first.name, later.map(|work| work.name));
        }
    }

    /// Without its reference a table has no ratios.
    #[test]
    fn the_quick_run_leaves_out_no_reference() {
        let script = include_str!("../../../scripts/bench");
        let left_out =
            script.lines().find_map(|line| line.strip_prefix("QUICK_WITHOUT=(")?.strip_suffix(')'));
        for road in left_out.unwrap().split(' ') {
            for work in workloads() {
                assert!(!work.reference.contains(road), "{} has no reference without {road}", work.name);
            }
        }
    }

    #[test]
    fn groups_name_workloads_that_exist() {
        for (group, members) in GROUPS {
            for member in *members {
                assert!(workloads().iter().any(|work| work.name == *member), "{group}: {member}");
            }
        }
        assert!(group("nonsense").is_none());
    }
}
