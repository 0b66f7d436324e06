//! [`Status`] in ten lines that an operator reads, and one more where a process has not told its part.

use std::fmt;

use super::overview::Overview;
use super::status::{Status, TimesStatus};

/// The lines, without line ends.
pub(crate) fn summary(status: &Status) -> Vec<String> {
    let overview = Overview::of(status);
    let mut lines = vec![
        format!(
            "annulus {}, {}, up {}, pid {}; {} cores, bulk by the {} road",
            status.version,
            status.stage,
            Span(status.uptime),
            status.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
            status.cores.len(),
            status.road
        ),
        match status.listeners.is_empty() {
            true => "listeners: those of the starting process".to_owned(),
            false => format!("listeners: {}", status.listeners.join("; ")),
        },
        format!(
            "connections: {} open, at most {} on one core; {} accepted, {} put off for lack of descriptors; handed on: \
             same core {}, cache {}, node {}, other node {}",
            overview.open,
            overview.most_open(),
            overview.accepts,
            status.total("accept_backoffs"),
            status.total("handed_same_core"),
            status.total("handed_same_cache"),
            status.total("handed_same_node"),
            status.total("handed_remote")
        ),
        requests(status, &overview),
        format!(
            "answers: {}; relayed connections: {}",
            Times(&status.request_times),
            Times(&status.relay_times)
        ),
        bytes(status),
        memory(status),
        upstreams(status),
        logs(status),
        stalls(status),
    ];
    // Behind the first, because all that follow are without them.
    if let Some(line) = silent(status) {
        lines.insert(1, line);
    }
    lines
}

/// `None` where every process that was asked has answered.
fn silent(status: &Status) -> Option<String> {
    let (silent, asked) = (status.members.silent(), status.members.asked);
    (silent > 0).then(|| {
        format!(
            "INCOMPLETE: {silent} of {asked} processes did not answer: their part is in none of these figures"
        )
    })
}

fn requests(status: &Status, overview: &Overview) -> String {
    let of = |name: &str| status.cache.get(name).copied().unwrap_or(0);
    format!(
        "requests: {}; 2xx {}, 3xx {}, 4xx {}, 5xx {}; files found open {}, opened {}",
        overview.requests,
        overview.class(2),
        overview.class(3),
        overview.class(4),
        overview.class(5),
        of("hit"),
        of("miss")
    )
}

fn bytes(status: &Status) -> String {
    let of = |name| Bytes(status.total(name));
    format!(
        "sent: small {}, files inline {}, from disk {}, ring {}, copied {}; relayed: inline {}, ring {}, copied {}; no pipe {}",
        of("send_bytes"),
        of("file_bytes_inline"),
        of("file_bytes_cold"),
        of("file_bytes_ring"),
        of("file_bytes_copied"),
        of("relay_bytes_inline"),
        of("relay_bytes_ring"),
        of("relay_bytes_copied"),
        status.total("pipes_refused")
    )
}

fn memory(status: &Status) -> String {
    let sum = |of: fn(&super::status::CoreStatus) -> u64| status.cores.iter().map(of).sum::<u64>();
    let place = match status.strays.as_slice() {
        [] => "all of it on its node".to_owned(),
        strays => format!("NOT at home: {}", strays.join(", ")),
    };
    format!(
        "memory: pools {} and {} grown, {} receive buffers and {} blocks out, waits for them {}; {place}",
        Bytes(sum(|core| core.pool)),
        Bytes(sum(|core| core.pool_grown)),
        status.total("recv_buffers_out"),
        status.total("blocks_out"),
        status.total("recv_starved") + status.total("block_waits"),
    )
}

fn upstreams(status: &Status) -> String {
    if status.upstreams.is_empty() {
        return "upstreams: none".to_owned();
    }
    let one =
        |of: &super::upstreams::UpstreamStatus| format!("{} {} ({} open)", of.address, of.said(), of.open);
    format!("upstreams: {}", status.upstreams.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn logs(status: &Status) -> String {
    let one = |(name, counts): (&String, &crate::log::LogCounts)| {
        format!("{name} logged={} written={} dropped={}", counts.logged, counts.written, counts.dropped)
    };
    format!("logs: {}", status.logs.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn stalls(status: &Status) -> String {
    let stalls: Vec<_> = status.cores.iter().filter_map(|core| core.stall.as_deref()).collect();
    match stalls.as_slice() {
        [] => "no core is kept by one step of a task".to_owned(),
        stalls => stalls.join("; "),
    }
}

/// A length of time.
struct Span(f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as u64;
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, ..) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// A number of bytes, with the unit that it is read in.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(size, _)| self.0 >= *size) {
            Some((size, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// How long things took.
struct Times<'a>(&'a TimesStatus);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.count() == 0 {
            return f.write_str("none timed");
        }
        let show = |f: &mut fmt::Formatter<'_>, quantile| match self.0.quantile(quantile) {
            Some(seconds) if seconds < 0.01 => write!(f, "{:.3} ms", seconds * 1e3),
            Some(seconds) => write!(f, "{seconds:.2} s"),
            None => f.write_str("longer than all bounds"),
        };
        f.write_str("half within ")?;
        show(f, 0.5)?;
        f.write_str(", 99 of 100 within ")?;
        show(f, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::sample;
    use super::*;

    #[test]
    fn a_process_that_does_not_answer_has_a_line() {
        let mut status = sample();
        (status.members.asked, status.members.answered) = (3, 3);
        assert_eq!(summary(&status).len(), 10);
        status.members.answered = 2;
        let lines = summary(&status);
        assert!(lines.len() == 11 && lines[1].contains("1 of 3 processes did not answer"), "{lines:#?}");
    }

    #[test]
    fn ten_lines() {
        let lines = summary(&sample());
        assert_eq!(lines.len(), 10);
        let text = lines.join("\n");
        for words in [
            "annulus 1, ready, up 10 s, pid 7; 1 cores",
            "listeners: listening on http://127.0.0.1:80",
            "connections: 3 open, at most 3 on one core",
            "requests: 8; 2xx 7, 3xx 0, 4xx 1, 5xx 0; files found open 6, opened 2",
            "half within 0.064 ms, 99 of 100 within 0.128 ms; relayed connections: none timed",
            "pools 16.0 MiB and 0 B grown",
            "all of it on its node",
            "10.0.0.1:80 down (1 open)",
            "stderr logged=3 written=2 dropped=1",
            "no core is kept",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert_eq!(
            (Span(90_061.0).to_string(), Bytes(1536).to_string()),
            ("1 d 1 h".to_owned(), "1.5 KiB".to_owned())
        );
    }
}
