//! The two pictures of the front page: what some of the work costs beside the peers, and how long requests
//! wait.

use super::latency;
use super::svg::{Block, Layout, cost_of, list, picture};
use serde_json::Value;

/// Two blocks beside each other.
const PAIRS: Layout = Layout { names: 150.0, bars: 200.0, figures: 80.0, columns: 2 };

/// Who answers requests.
const HTTP: &[&str] = &[
    "bare",
    "annulus hello",
    "annulus serve",
    "compio",
    "monoio",
    "tokio",
    "glommio",
    "hyper",
    "nginx sendfile off",
];
/// The work that is shown, in what words, and who of those that do it.
const COST: &[(&str, &str, &[&str])] = &[
    ("hello-1k", "1 KiB a request, 64 connections: us", HTTP),
    ("close-1k", "connect, ask, take 1 KiB, close: us", HTTP),
    (
        "echo-100",
        "100 bytes and back, 64 connections: us",
        &["bare", "annulus", "compio", "monoio", "tokio", "glommio"],
    ),
    (
        "file-16k",
        "a file of 16 KiB, 64 connections: us",
        &["bare inline-splice:60k", "bare sendfile:all", "annulus serve", "nginx sendfile on"],
    ),
    (
        "relay-64",
        "bulk through a relay, 64 connections: s/GB",
        &["bare inline-splice:1m", "annulus proxy", "haproxy", "haproxy splice"],
    ),
    (
        "relay-small",
        "1 KiB and back through a relay: us",
        &["bare mshot", "annulus proxy", "haproxy", "haproxy splice"],
    ),
];

/// The work whose latency is shown.
const PACED: &str = "rate-10k";

/// What the work costs; `None` where nothing of it was measured. `results` are as `--json` writes them.
pub fn cost(results: &Value) -> Option<String> {
    let block = |(work, title, who): &(&str, &str, &[&str])| {
        let found = list(&results["workloads"]).find(|found| found["name"] == *work)?;
        let bars: Vec<_> = list(&found["contestants"])
            .filter(|found| who.iter().any(|who| found["name"] == *who))
            .filter_map(cost_of)
            .collect();
        (!bars.is_empty()).then(|| Block { title: (*title).to_owned(), bars })
    };
    let blocks: Vec<_> = COST.iter().filter_map(block).collect();
    let title = "CPU time of a server on one core, median and quartiles: less is better";
    (!blocks.is_empty()).then(|| picture(title, &blocks, PAIRS))
}

/// How long requests at a fixed rate wait; `None` where that was not measured.
pub fn waits(results: &Value) -> Option<String> {
    let title = |_: &str| {
        "10,000 requests a second over 64 connections, to one core: latency, less is better".to_owned()
    };
    latency::picture(results, title, |work, who| work == PACED && HTTP.contains(&who))
}

#[cfg(test)]
mod tests {
    use super::super::contestants::contestants;
    use super::super::table::workloads;
    use super::*;
    use serde_json::json;

    /// Seen to fail: with a contestant under its former name, "annulus inline".
    #[test]
    fn what_is_shown_is_measured() {
        let all = workloads();
        for (work, _, who) in COST.iter().copied().chain([(PACED, "", HTTP)]) {
            let work = all.iter().find(|found| found.name == work).unwrap();
            let known: Vec<_> = contestants(work.kind).into_iter().map(|who| who.name).collect();
            for who in who {
                assert!(known.iter().any(|known| known == who), "{}: {who} is none of {known:?}", work.name);
            }
            assert!(who.contains(&work.reference), "{}", work.name);
        }
    }

    #[test]
    fn only_what_was_measured_is_drawn() {
        let nothing = json!({ "workloads": [{ "name": "yield", "contestants": [] }] });
        assert_eq!((cost(&nothing), waits(&nothing)), (None, None));
        let who = |name: &str| json!({ "name": name, "cost_median": 5.5, "latency_ns": { "90%": 1000 } });
        let contestants = [who("annulus hello"), who("nginx uncached"), who("tokio")];
        let work = |name: &str| json!({ "name": name, "task": name, "contestants": contestants });
        let results = json!({ "workloads": [work("hello-1k"), work("rate-10k"), work("relay-rate-5k")] });
        let (cost, waits) = (cost(&results).unwrap(), waits(&results).unwrap());
        assert_eq!(
            (cost.matches("5.50").count(), waits.matches("<polyline").count()),
            (2, 2),
            "{cost}{waits}"
        );
        assert!(!cost.contains("uncached") && !waits.contains("uncached"));
    }
}
