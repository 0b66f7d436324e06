//! The one table of who does what. To add a contestant, add a line to [`contestants`]; to add work, one to
//! [`workloads`].

use crate::drive::{Direction, Load};
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
}

/// What the cost of a contestant is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds of CPU per request or message.
    MicrosPerRequest,
    /// Seconds of CPU per 10^9 bytes of payload.
    SecondsPerGigabyte,
}

/// One piece of work that all contestants of its kind do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// As on the command line.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What the driver does.
    pub load: Load,
    /// What the cost is told in.
    pub unit: Unit,
    /// The contestant that ratios refer to, unless the command line names another.
    pub reference: &'static str,
}

/// How the address of a contestant is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It prints a line with `listening on ADDR` on stderr.
    Line,
    /// It is told `{port}`, and is there once a connection is accepted.
    Port,
}

/// A program with a command line. `{...}` are filled in: `{bare}` the directory of our own binaries, `{annulus}`
/// the program under test, `{cpu}`, `{root}` and `{path}` and `{file}` (the directory that is served, the path of the request in it,
/// and both together), `{body}` its bytes, `{to}` the address of the backend, `{port}` a free port, `{scratch}` a directory of its
/// own.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// As in the results.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How its address is learned.
    pub learn: Learn,
    /// Written to `{scratch}/conf` before it is started.
    pub conf: Option<String>,
}

/// All work, in the order it is done.
pub fn workloads() -> Vec<Workload> {
    let http =
        |body: u64, connections| Load::Http { path: format!("/{}", show_size(body)), body, connections };
    let bulk = |connections| Load::Bulk { direction: Direction::Down, connections };
    let echo = |size, relayed| Load::Echo { size, connections: 64, relayed };
    let file = |name, body, connections, unit| Workload {
        name,
        kind: Kind::File(body),
        load: http(body, connections),
        unit,
        reference: "bare inline-splice:64k",
    };
    let other = |name, kind, load, unit, reference| Workload { name, kind, load, unit, reference };
    use Unit::{MicrosPerRequest as Micros, SecondsPerGigabyte as Gigabyte};
    vec![
        other("hello-1k", Kind::Hello(1 << 10), http(1 << 10, 64), Micros, "bare"),
        other("hello-16k", Kind::Hello(16 << 10), http(16 << 10, 64), Micros, "bare"),
        other("echo-100", Kind::Echo, echo(100, false), Micros, "bare"),
        file("file-64k", 64 << 10, 64, Micros),
        file("file-1m", 1 << 20, 64, Micros),
        file("file-256m", 256 << 20, 1, Gigabyte),
        other("relay-1", Kind::RelayBulk, bulk(1), Gigabyte, "bare inline-splice:1m"),
        other("relay-64", Kind::RelayBulk, bulk(64), Gigabyte, "bare inline-splice:1m"),
        other("relay-small", Kind::RelaySmall, echo(1024, true), Micros, "bare mshot"),
    ]
}

/// Names that stand for several workloads.
pub fn group(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "roads" => Some(&["file-64k", "file-1m", "file-256m", "relay-1", "relay-64"]),
        "small" => Some(&["hello-1k", "hello-16k", "echo-100", "relay-small"]),
        _ => None,
    }
}

/// All that can do work of `kind`.
pub fn contestants(kind: Kind) -> Vec<Contestant> {
    let mut all = Vec::new();
    let mut add = |name: &str, command: &str, learn, conf: Option<String>| {
        let command = command.split_ascii_whitespace().map(str::to_owned).collect();
        all.push(Contestant { name: name.to_owned(), command, learn, conf });
    };
    match kind {
        Kind::Hello(_) => {
            add("bare", "{bare}/bare_http --cpu {cpu} --body {body}", Learn::Line, None);
            for sendfile in ["on", "off"] {
                add(&format!("nginx sendfile {sendfile}"), NGINX, Learn::Port, Some(nginx_files(sendfile)));
            }
            add("annulus", "{annulus} serve {root} --listen 127.0.0.1:0 --cores {cpu}", Learn::Line, None);
        }
        Kind::File(_) => {
            for road in FILE_ROADS {
                let command = format!("{{bare}}/bare_file {{file}} --cpu {{cpu}} --road {road}");
                add(&format!("bare {road}"), &command, Learn::Line, None);
            }
            for sendfile in ["on", "off"] {
                add(&format!("nginx sendfile {sendfile}"), NGINX, Learn::Port, Some(nginx_files(sendfile)));
            }
            for road in ["ring", "inline"] {
                let command =
                    format!("{{annulus}} serve {{root}} --listen 127.0.0.1:0 --cores {{cpu}} --road {road}");
                add(&format!("annulus {road}"), &command, Learn::Line, None);
            }
        }
        Kind::Echo => add("bare", "{bare}/bare_echo --cpu {cpu}", Learn::Line, None),
        Kind::RelayBulk | Kind::RelaySmall => {
            let roads = if kind == Kind::RelayBulk { RELAY_ROADS } else { SMALL_ROADS };
            for road in roads {
                let command = format!("{{bare}}/bare_relay --to {{to}} --cpu {{cpu}} --road {road}");
                add(&format!("bare {road}"), &command, Learn::Line, None);
            }
            for (name, options) in HAPROXY {
                add(name, "haproxy -db -f {scratch}/conf", Learn::Port, Some(haproxy(options)));
            }
            for road in ["ring", "inline"] {
                let command = format!(
                    "{{annulus}} proxy --to {{to}} --listen 127.0.0.1:0 --cores {{cpu}} --road {road}"
                );
                add(&format!("annulus {road}"), &command, Learn::Line, None);
            }
        }
    }
    all
}

const FILE_ROADS: &[&str] = &[
    "read-send:64k",
    "sendfile:64k",
    "sendfile:1m",
    "sendfile:all",
    "inline-splice:64k",
    "inline-splice:1m",
    "splice-sqe:64k",
    "splice-sqe:1m",
    "read-fixed-send:64k",
    "read-fixed-send:256k",
    "read-fixed-send-zc:64k",
    "read-fixed-send-zc:256k",
];

const RELAY_ROADS: &[&str] = &[
    "recv-send:64k",
    "recv-send:256k",
    "splice-sqe:64k",
    "splice-sqe:1m",
    "inline-splice:64k",
    "inline-splice:1m",
    "mshot",
];

const SMALL_ROADS: &[&str] = &["mshot", "recv-send:64k", "inline-splice:64k"];

const NGINX: &str = "nginx -p {scratch} -c {scratch}/conf -e stderr";

/// One process, no log, descriptors kept open: what nginx's own tuning pages advise for static files.
fn nginx_files(sendfile: &str) -> String {
    format!(
        "daemon off; master_process off; worker_processes 1; pid {{scratch}}/pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; server_tokens off; default_type application/octet-stream;
  sendfile {sendfile}; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 300s; keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path {{scratch}}/a; proxy_temp_path {{scratch}}/b; fastcgi_temp_path {{scratch}}/c;
  uwsgi_temp_path {{scratch}}/d; scgi_temp_path {{scratch}}/e;
  server {{ listen 127.0.0.1:{{port}}; root {{root}}; }}
}}
"
    )
}

/// Out of the box; with splicing named (`splice-auto` never engaged on 2.6); the same with pipes of 1 MiB.
const HAPROXY: &[(&str, (&str, &str))] = &[
    ("haproxy", ("", "")),
    ("haproxy splice", ("", "option splice-request\n  option splice-response")),
    ("haproxy splice 1m", ("tune.pipesize 1048576", "option splice-request\n  option splice-response")),
];

fn haproxy((global, listen): &(&str, &str)) -> String {
    format!(
        "global
  nbthread 1
  maxconn 4000
  {global}
listen relay
  mode tcp
  bind 127.0.0.1:{{port}}
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  {listen}
  server backend {{to}}
"
    )
}

#[cfg(test)]
mod tests {
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
        for name in ["roads", "small"] {
            for member in group(name).unwrap() {
                assert!(workloads().iter().any(|work| work.name == *member));
            }
        }
        assert!(group("nonsense").is_none());
    }

    #[test]
    fn bare_roads_are_roads() {
        for road in FILE_ROADS {
            road.parse::<crate::bare::FileRoad>().unwrap();
        }
        for road in RELAY_ROADS.iter().chain(SMALL_ROADS) {
            road.parse::<crate::bare::RelayRoad>().unwrap();
        }
    }
}
