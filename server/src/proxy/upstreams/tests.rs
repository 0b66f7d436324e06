use clap::{Args as _, Command, FromArgMatches as _};
use event_listener::Listener as _;

use super::*;

fn upstreams(words: &[&str]) -> Arc<Upstreams> {
    let command = UpstreamArgs::augment_args(Command::new("test")).no_binary_name(true);
    let args = UpstreamArgs::from_arg_matches(&command.get_matches_from(words)).unwrap();
    Arc::new(Upstreams::new(&args))
}

fn status(of: &Upstreams, place: usize) -> UpstreamStatus {
    of.list[place].status(&of.args)
}

fn weights(of: &Upstreams, tried: &[usize]) -> (Vec<u32>, bool) {
    let mut candidates = Vec::new();
    let may_wait = of.candidates(tried, &mut candidates);
    (candidates.iter().map(|it| it.weight).collect(), may_wait)
}

#[test]
fn what_was_tried_or_is_disabled_is_not_chosen() {
    let of = upstreams(&["--to", "127.0.0.1:1 weight=3,127.0.0.1:2", "--to=unix:/x"]);
    assert_eq!(weights(&of, &[]), (vec![300, 100, 100], false));
    assert_eq!(weights(&of, &[0, 2]), (vec![0, 100, 0], false));
    assert!(of.set_in_service("127.0.0.1:2", false) && !of.set_in_service("127.0.0.1:3", false));
    assert_eq!(weights(&of, &[]), (vec![300, 0, 100], false));
    assert_eq!(status(&of, 1).state, UpstreamState::Out);
    assert_eq!(weights(&of, &[0, 2]), (vec![0, 0, 0], false));
}

/// A dead first one is not asked again by every client; where all are dead they are asked nevertheless.
#[test]
fn one_that_refuses_is_the_last_resort() {
    let of = upstreams(&["--to", "127.0.0.1:1,127.0.0.1:2"]);
    of.take(0).unwrap().refused();
    assert_eq!(weights(&of, &[]), (vec![0, 100], false));
    of.take(1).unwrap().refused();
    assert_eq!(weights(&of, &[]), (vec![100, 100], false));
    let first = status(&of, 0);
    assert_eq!((first.state, first.failures, first.open), (UpstreamState::Down, 1, 0));
    drop(of.take(0).unwrap().connected());
    assert_eq!(weights(&of, &[]), (vec![100, 0], false));
    assert_eq!(status(&of, 0).connections, 1);
}

#[test]
fn one_that_is_full_is_waited_for() {
    let of = upstreams(&["--to", "127.0.0.1:1", "--upstream-max-connections", "2", "--queue", "1"]);
    let held = [of.take(0).unwrap().connected(), of.take(0).unwrap().connected()];
    assert!(of.take(0).is_none());
    assert_eq!(weights(&of, &[]), (vec![0], true));
    let place = of.wait().unwrap();
    assert!(of.wait().is_none(), "the queue is full");
    // Who waits is told when one goes.
    let freed = of.freed();
    drop((place, held));
    assert!(freed.wait_timeout(std::time::Duration::from_secs(60)).is_some());
    assert!(of.wait().is_some());
    assert_eq!((weights(&of, &[]), status(&of, 0).open), ((vec![100], false), 0));
}

#[test]
fn a_name_that_is_not_found_yet_is_waited_for() {
    let of = upstreams(&["--to", "not-looked-up.example:80"]);
    assert_eq!(weights(&of, &[]), (vec![0], true));
    assert!(of.list[0].set_addresses(vec!["192.0.2.1:80".parse().unwrap()]));
    assert!(!of.list[0].set_addresses(vec!["192.0.2.1:80".parse().unwrap()]), "the same");
    assert_eq!(weights(&of, &[]), (vec![100], false));
}

#[test]
fn what_is_down_by_its_checks_is_not_even_a_last_resort() {
    let of = upstreams(&["--to", "127.0.0.1:1", "--fall", "2", "--rise", "1"]);
    of.list[0].checked(&of, false, "x");
    of.list[0].checked(&of, false, "x");
    assert_eq!((weights(&of, &[]), status(&of, 0).state), ((vec![0], false), UpstreamState::Down));
    of.list[0].checked(&of, true, "");
    assert_eq!(status(&of, 0).state, UpstreamState::Up);
}
