//! [`Status`] in the text formats of Prometheus (0.0.4) and of OpenMetrics (1.0).
//!
//! Names and units follow Prometheus' conventions: `annulus_` in front, base units, `_total` behind what only
//! grows. Samples of a core are labelled with its number, its CPU and its node; the CPU alone distinguishes
//! cores of several processes.

use super::families::{EXPORTED, Type};
use super::format::Format;
use super::status::{CoreStatus, Status};
use super::text::{Exposition, Labels};
use super::upstreams::UpstreamState;

/// The whole text.
pub(crate) fn expose(status: &Status, format: Format) -> String {
    let mut out = Exposition::new(format);
    program(&mut out, status);
    requests(&mut out, status);
    relays(&mut out, status);
    logs(&mut out, status);
    cores(&mut out, status);
    counters(&mut out, status);
    out.finish()
}

fn program(out: &mut Exposition, status: &Status) {
    out.family("build", "info", "The program.");
    out.sample("build_info", &[("version", &status.version)], 1);
    out.gauge("ready", "Whether new clients are welcome.", u8::from(status.stage == "ready"));
    out.family("stage", "gauge", "Where the program is between its start and its end.");
    for stage in ["starting", "ready", "leaving", "draining"] {
        out.sample("stage", &[("stage", &stage)], u8::from(status.stage == stage));
    }
    out.gauge("processes", "Processes that serve.", status.pids.len());
    let help = "Processes that did not answer, whose part is missing in every other metric.";
    out.gauge("processes_silent", help, status.members.silent());
    let process = &status.process;
    out.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        status.started,
    );
    out.counter(
        "process_cpu_seconds",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes);
    out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes);
    out.gauge("process_open_fds", "Number of open file descriptors.", process.open_fds);
    out.gauge("process_max_fds", "Maximum number of open file descriptors.", process.max_fds);
}

fn requests(out: &mut Exposition, status: &Status) {
    out.family("http_requests", "counter", "Requests answered, by method and status code.");
    for (method, codes) in &status.requests {
        for (code, count) in codes {
            out.sample("http_requests_total", &[("method", method), ("code", code)], count);
        }
    }
    let bytes: u64 = status.cores.iter().map(|core| core.body_bytes).sum();
    out.counter("http_response_body_bytes", "Bytes of response bodies sent.", bytes);
    let help = "From a request's head to the last byte of its answer.";
    out.histogram("http_request_duration_seconds", help, &status.request_times);
    out.family("file_cache_lookups", "counter", "Lookups of a file among those kept open, by their result.");
    for (result, count) in &status.cache {
        out.sample("file_cache_lookups_total", &[("result", result)], count);
    }
}

fn relays(out: &mut Exposition, status: &Status) {
    out.family("relay_connections", "counter", "Relayed connections that have ended, by how.");
    for (outcome, count) in &status.relays {
        out.sample("relay_connections_total", &[("outcome", outcome)], count);
    }
    let help = "From a relayed connection's accept to its end.";
    out.histogram("relay_connection_duration_seconds", help, &status.relay_times);
    let sum = |of: fn(&CoreStatus) -> u64| status.cores.iter().map(of).sum::<u64>();
    out.family(
        "relay_payload_bytes",
        "counter",
        "Bytes of relayed connections that have ended, by direction.",
    );
    out.sample("relay_payload_bytes_total", &[("direction", &"up")], sum(|core| core.relay_bytes_up));
    out.sample("relay_payload_bytes_total", &[("direction", &"down")], sum(|core| core.relay_bytes_down));
    out.family("upstream_state", "gauge", "1 for the worst state that a relay finds the upstream in.");
    for upstream in &status.upstreams {
        for (state, name) in UpstreamState::ALL {
            let labels: Labels<'_> =
                &[("listener", &upstream.listener), ("upstream", &upstream.address), ("state", &name)];
            out.sample("upstream_state", labels, u8::from(upstream.state == state));
        }
    }
    out.family("upstream_views", "gauge", "Relays, of all processes, that find the upstream in each state.");
    for upstream in &status.upstreams {
        for (state, name) in UpstreamState::ALL {
            let labels: Labels<'_> =
                &[("listener", &upstream.listener), ("upstream", &upstream.address), ("state", &name)];
            out.sample("upstream_views", labels, upstream.views.get(&state).copied().unwrap_or(0));
        }
    }
    out.family("upstream_connections_open", "gauge", "Connections to the upstream that are open.");
    for of in &status.upstreams {
        let labels: Labels<'_> = &[("listener", &of.listener), ("upstream", &of.address)];
        out.sample("upstream_connections_open", labels, of.open);
    }
    out.family("upstream_connections", "counter", "Connections that the upstream has got.");
    for of in &status.upstreams {
        let labels: Labels<'_> = &[("listener", &of.listener), ("upstream", &of.address)];
        out.sample("upstream_connections_total", labels, of.connections);
    }
    out.family("upstream_failures", "counter", "Connections that the upstream did not take.");
    for of in &status.upstreams {
        let labels: Labels<'_> = &[("listener", &of.listener), ("upstream", &of.address)];
        out.sample("upstream_failures_total", labels, of.failures);
    }
    out.family(
        "upstream_bytes",
        "counter",
        "Bytes to the upstream (up) and from it (down), of connections that have ended.",
    );
    for of in &status.upstreams {
        for (direction, bytes) in [("up", of.bytes_up), ("down", of.bytes_down)] {
            let labels: Labels<'_> =
                &[("listener", &of.listener), ("upstream", &of.address), ("direction", &direction)];
            out.sample("upstream_bytes_total", labels, bytes);
        }
    }
}

fn logs(out: &mut Exposition, status: &Status) {
    out.family("log_lines", "counter", "Lines of each log, by what became of them.");
    for (log, counts) in &status.logs {
        out.sample("log_lines_total", &[("log", log), ("outcome", &"written")], counts.written);
        out.sample("log_lines_total", &[("log", log), ("outcome", &"dropped")], counts.dropped);
    }
}

fn cores(out: &mut Exposition, status: &Status) {
    let by_kind = |counts: &'_ std::collections::BTreeMap<String, u64>| -> Vec<(String, f64)> {
        counts.iter().map(|(kind, count)| (kind.clone(), *count as f64)).collect()
    };
    for (name, kind, help, of) in [
        (
            "connections",
            "counter",
            "Connections accepted, by what is done with them.",
            (|core| &core.connections) as fn(&CoreStatus) -> &std::collections::BTreeMap<String, u64>,
        ),
        ("connections_open", "gauge", "Connections that are open, by what is done with them.", |core| {
            &core.open
        }),
    ] {
        out.family(name, kind, help);
        let sample = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        for core in &status.cores {
            for (kind, count) in by_kind(of(core)) {
                let labels: Labels<'_> =
                    &[("core", &core.core), ("cpu", &core.cpu), ("node", &core.node), ("kind", &kind)];
                out.sample(&sample, labels, count);
            }
        }
    }
    let one = |value: u64| vec![(None, value as f64)];
    out.per_core(("core_requests", "counter", "Requests that the core answered."), status, |core| {
        one(core.requests)
    });
    out.per_core(
        ("core_ring_entries", "gauge", "Entries of each queue of the core's ring."),
        status,
        |core| {
            let (submission, completion) = core.ring;
            vec![
                (Some(("queue", "submission")), submission.into()),
                (Some(("queue", "completion")), completion.into()),
            ]
        },
    );
    out.per_core(("core_pool_bytes", "gauge", "Bytes of the core's pool, as it began."), status, |core| {
        one(core.pool)
    });
    out.per_core(
        ("core_pool_limit_bytes", "gauge", "Bytes to which the core's pool may grow."),
        status,
        |core| one(core.pool_limit),
    );
    out.per_core(
        ("core_receive_buffers", "gauge", "Receive buffers that the core began with."),
        status,
        |core| one(core.recv_buffers),
    );
    out.per_core(("core_blocks", "gauge", "Blocks that the core began with."), status, |core| {
        one(core.blocks)
    });
    out.per_core(
        ("core_memory_bytes", "gauge", "The core's memory, by whether it lies on the core's node."),
        status,
        |core| {
            vec![
                (Some(("place", "home")), core.memory_home as f64),
                (Some(("place", "away")), core.memory_away as f64),
            ]
        },
    );
    out.per_core(
        ("core_stalled", "gauge", "Whether one step of a task keeps the core from all others."),
        status,
        |core| one(core.stall.is_some().into()),
    );
}

/// What the runtime counts.
fn counters(out: &mut Exposition, status: &Status) {
    for family in EXPORTED.chunk_by(|a, b| a.family == b.family) {
        let first = &family[0];
        let kind = if first.kind == Type::Counter { "counter" } else { "gauge" };
        out.per_core((first.family, kind, first.help), status, |core| {
            let value = |of: &super::families::Exported| {
                (of.label, core.counters.get(of.counter).copied().unwrap_or(0) as f64 * of.scale)
            };
            family.iter().map(value).collect()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::sample;
    use super::*;

    /// Seen to fail: with `_total` twice.
    #[test]
    fn counters_end_with_total_and_families_come_once() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = expose(&sample(), format);
            let mut families = std::collections::BTreeSet::new();
            let mut current = (String::new(), String::new());
            for line in text.lines() {
                if let Some(kind) = line.strip_prefix("# TYPE ") {
                    let (name, kind) = kind.split_once(' ').unwrap();
                    assert!(families.insert(name.to_owned()), "{name} comes twice");
                    current = (name.to_owned(), kind.to_owned());
                } else if !line.starts_with('#') {
                    let name = line.split(['{', ' ']).next().unwrap();
                    assert!(name.starts_with(&current.0), "{line} in {current:?}");
                    assert_eq!(name.ends_with("_total"), current.1 == "counter", "{line}");
                    assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
                }
            }
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        }
    }

    #[test]
    fn labels_and_buckets() {
        let text = expose(&sample(), Format::Prometheus);
        for line in [
            r#"annulus_http_requests_total{method="GET",code="200"} 7"#,
            r#"annulus_http_request_duration_seconds_bucket{le="0.000032"} 3"#,
            r#"annulus_http_request_duration_seconds_bucket{le="0.000064"} 7"#,
            r#"annulus_http_request_duration_seconds_bucket{le="+Inf"} 8"#,
            "annulus_http_request_duration_seconds_count 8",
            r#"annulus_upstream_state{listener="a\"b",upstream="10.0.0.1:80",state="down"} 1"#,
            r#"annulus_core_wakes_total{core="0",cpu="4",node="1",distance="same_core"} 2"#,
            r#"annulus_core_load{core="0",cpu="4",node="1"} 0.5"#,
            r#"annulus_connections_open{core="0",cpu="4",node="1",kind="files"} 3"#,
            "annulus_ready 1",
        ] {
            assert!(text.lines().any(|is| is == line), "{line}:\n{text}");
        }
    }
}
