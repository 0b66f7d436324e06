//! `annulus top`: what the page of the admin server shows, live in a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::which::ask;
use crate::admin::options::AdminAddress;
use crate::exit::{Failure, Kind};
use crate::metrics::overview::{CoreOverview, Overview};
use crate::metrics::status::Status;
use crate::metrics::summary::summary;

/// Moves to the first column of the first line, and clears what is behind a line and below the last
/// (`console_codes(4)`).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J";

/// Which program, and how often.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The program that answers operators here, as its --admin says
    #[arg(value_name = "ADDR|unix:PATH")]
    admin: AdminAddress,

    /// Seconds between two pictures
    #[arg(long, value_name = "SECS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,

    /// End after this many pictures [default: until it is interrupted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Draws until it is interrupted, or the program has gone.
pub(super) fn run(args: &TopArgs) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal();
    let interval = Duration::from_secs(args.interval);
    if is_terminal {
        show(CLEAR_ALL)?;
    }
    let mut before: Option<(Instant, Overview)> = None;
    for number in 1.. {
        let (at, status) = (Instant::now(), status(&args.admin)?);
        let now = Overview::of(&status);
        let since = before.as_ref().map(|(earlier, overview)| (overview, (at - *earlier).as_secs_f64()));
        let lines = picture(&status, &now, since);
        show(&match is_terminal {
            true => framed(&lines, rows()),
            false => lines.iter().map(|line| format!("{line}\n")).chain(["\n".to_owned()]).collect(),
        })?;
        before = Some((at, now));
        if args.count == Some(number) {
            break;
        }
        std::thread::sleep(interval.saturating_sub(at.elapsed()));
    }
    Ok(())
}

fn status(address: &AdminAddress) -> Result<Status, Failure> {
    let (code, body) = ask(address, "GET", "/status")?;
    let told = serde_json::from_str(&body).ok().filter(|_| code == 200);
    told.ok_or_else(|| {
        Failure::new(Kind::Failed, format!("{address} answers {code}, and no status that is known here"))
    })
}

fn show(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::failed("cannot write to standard output", error)),
    })
}

/// Rows of the terminal.
fn rows() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row).max(1))
}

/// Lines that replace those that the terminal shows. The last ones are left out if there are too many.
fn framed(lines: &[String], rows: usize) -> String {
    let most = rows.saturating_sub(1);
    let shown: String = lines.iter().take(most).map(|line| format!("{line}{CLEAR_LINE}\r\n")).collect();
    format!("{HOME}{shown}{CLEAR_BELOW}")
}

/// The present state, and what has changed in the seconds since an earlier one.
fn picture(status: &Status, now: &Overview, since: Option<(&Overview, f64)>) -> Vec<String> {
    let mut lines = summary(status);
    // A program that was replaced counts from zero again.
    let rate = |later: u64, earlier: u64, seconds: f64| later.saturating_sub(earlier) as f64 / seconds;
    if let Some((before, seconds)) = since {
        lines.push(format!(
            "each second: {:.0} connections accepted, {:.0} requests, {:.1} MB sent and relayed",
            rate(now.accepts, before.accepts, seconds),
            rate(now.requests, before.requests, seconds),
            rate(now.bytes(), before.bytes(), seconds) / 1e6,
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:>4} {:>4} {:>4} {:>9} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "core", "CPU", "node", "open", "accepts/s", "requests/s", "MB/s", "pool MB", "away KB"
    ));
    for (core, counts) in status.cores.iter().zip(&now.cores) {
        let earlier = since.and_then(|(before, seconds)| {
            Some((before.cores.iter().find(|other| other.cpu == core.cpu)?, seconds))
        });
        let per_second = |of: fn(&CoreOverview) -> u64| {
            earlier.map_or(0.0, |(before, seconds)| rate(of(counts), of(before), seconds))
        };
        lines.push(format!(
            "{:>4} {:>4} {:>4} {:>9} {:>9.0} {:>10.0} {:>9.1} {:>9.0} {:>9}{}",
            core.core,
            core.cpu,
            core.node,
            counts.open,
            per_second(|core| core.accepts),
            per_second(|core| core.requests),
            per_second(|core| core.bytes) / 1e6,
            counts.pool as f64 / 1e6,
            core.memory_away / 1000,
            core.stall.as_ref().map_or_else(String::new, |stall| format!("  {stall}")),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::tests::sample;

    fn drawn(status: &Status, before: Option<(&Status, f64)>) -> Vec<String> {
        let before = before.map(|(status, seconds)| (Overview::of(status), seconds));
        let since = before.as_ref().map(|(overview, seconds)| (overview, *seconds));
        picture(status, &Overview::of(status), since)
    }

    #[test]
    fn rates_are_of_the_seconds_between_two_pictures() {
        let before = sample();
        let mut now = sample();
        now.cores[0].requests += 40;
        now.cores[0].counters.insert("send_bytes".to_owned(), 8_000_000);
        now.cores[0].counters.insert("accepts".to_owned(), 20);
        let lines = drawn(&now, Some((&before, 4.0)));
        let core = lines.last().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(core, ["0", "4", "1", "3", "5", "10", "2.0", "17", "0"]);
        assert!(
            lines.iter().any(|line| line.starts_with("each second: 5 connections accepted")),
            "{lines:#?}"
        );
        assert!(!drawn(&now, None).iter().any(|line| line.starts_with("each second")));
    }

    /// A program that was replaced counts from zero again.
    #[test]
    fn counts_that_went_back_are_no_rate() {
        let mut before = sample();
        before.cores[0].requests += 1000;
        let lines = drawn(&sample(), Some((&before, 1.0)));
        assert_eq!(lines.last().unwrap().split_whitespace().nth(5), Some("0"));
    }

    #[test]
    fn lines_that_do_not_fit_are_left_out() {
        let lines: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        let shown = framed(&lines, 4);
        assert!(shown.contains("2\x1b[K") && !shown.contains('3'), "{shown:?}");
    }
}
