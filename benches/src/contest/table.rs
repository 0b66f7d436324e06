//! The one table of what is done. To add work, add a line to [`workloads`]; who does it stands in
//! [`contestants`](super::contestants).

use crate::drive::{Direction, Load};
use crate::micro::Op;
use crate::size::show_size;

/// What a contestant must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer every GET with so many bytes of the pattern.
    Hello(u64),
    /// Serve a file of so many bytes of the pattern over HTTP.
    File(u64),
    /// Send back what it receives.
    Echo,
    /// Relay TCP, bulk.
    RelayBulk,
    /// Relay TCP, small messages.
    RelaySmall,
    /// Measure an operation of its own.
    Micro,
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
}

impl Unit {
    /// How cost and speed are called.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Unit::MicrosPerRequest => ("CPU us/request", "k requests/s"),
            Unit::SecondsPerGigabyte => ("CPU s/GB", "GB/s"),
            Unit::NanosPerOperation => ("CPU ns/operation", "k operations/s"),
            Unit::MicrosLate => ("us late", "k operations/s"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Task {
    /// A server is driven.
    Drive(Load),
    /// A program measures itself.
    Own(Op),
}

/// One piece of work that all contestants of its kind do.
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
        reference: "bare inline-splice:64k",
    };
    let micro =
        |name, op, unit| Workload { name, kind: Kind::Micro, task: Task::Own(op), unit, reference: "tokio" };
    let other = |name, kind, task, unit, reference| Workload { name, kind, task, unit, reference };
    vec![
        hello("hello-1k", 1 << 10, 64),
        hello("hello-16k", 16 << 10, 64),
        other("echo-100", Kind::Echo, echo(100, false), Micros, "bare"),
        file("file-1k", 1 << 10, 64, Micros),
        file("file-16k", 16 << 10, 64, Micros),
        file("file-64k", 64 << 10, 64, Micros),
        file("file-1m", 1 << 20, 64, Micros),
        file("file-256m", 256 << 20, 1, Gigabyte),
        file("file-1g", 1 << 30, 1, Gigabyte),
        other("relay-1", Kind::RelayBulk, bulk(1), Gigabyte, "bare inline-splice:1m"),
        other("relay-64", Kind::RelayBulk, bulk(64), Gigabyte, "bare inline-splice:1m"),
        other("relay-small", Kind::RelaySmall, echo(1024, true), Micros, "bare mshot"),
        hello("conns-1024", 1 << 10, 1024),
        hello("conns-4096", 1 << 10, 4096),
        hello("conns-16384", 1 << 10, 16384),
        micro("spawn", Op::Spawn, Unit::NanosPerOperation),
        micro("yield", Op::Yield, Unit::NanosPerOperation),
        micro("timer", Op::Timer, Unit::NanosPerOperation),
        micro("ping-pong", Op::PingPong, Unit::NanosPerOperation),
        micro("sleepers", Op::Sleepers, Unit::NanosPerOperation),
        micro("sleepers-late", Op::Sleepers, Unit::MicrosLate),
    ]
}

/// Names that stand for several workloads.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("roads", &["file-64k", "file-1m", "file-256m", "relay-1", "relay-64"]),
    ("files", &["file-1k", "file-16k", "file-64k", "file-1m", "file-256m"]),
    ("small", &["hello-1k", "hello-16k", "echo-100", "relay-small"]),
    ("conns", &["hello-1k", "conns-1024", "conns-4096", "conns-16384"]),
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
