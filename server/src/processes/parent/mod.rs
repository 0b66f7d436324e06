//! The process that starts the members, hands signals on to them, and ends with them.
//!
//! They are started one after the other, so that what the platform refuses is told once. A member's end of its line closes when it ends,
//! however it ends, and so does ours: nobody outlives the other. When one fails, the others are cut, as the cores of one process are.

mod group;
mod process;

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use annulus::numa::thread::{InheritedPolicy, inherited_policy};

use self::group::ProcessGroup;
use super::ProcessShare;
use crate::config::{Configuration, ServiceConfig};
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::listen::open::OpenEndpoints;
use crate::signals::Signals;
use crate::{descriptors, log};

/// How it ended other than well.
#[derive(Debug)]
pub(crate) enum End {
    /// The platform lets this program start no process, and nothing has been done. One process may still serve.
    CannotStart(Failure),
    /// Whatever else: every process that was started has ended.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// Serves `config` with a process for each of the shares, until all have ended. `reasons` say why the cores are fewer than the CPUs.
///
/// # Errors
/// Why it could not start; else the first failure of a member, which ends the others.
pub(crate) fn run(shares: &[ProcessShare], reasons: &[String], config: &Configuration) -> Result<(), End> {
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    descriptors::raise_limit();
    let cpus: Vec<_> = shares.iter().flat_map(|share| share.cores.iter().copied()).collect();
    let mut open = OpenEndpoints::default();
    let mut planned = open.plan(&config.endpoints(), &cpus)?;
    let lines = config.lines(&planned.shown);
    let mut sockets: Vec<Vec<OwnedFd>> =
        std::mem::take(&mut planned.sockets).into_iter().map(|(_, sockets)| sockets).collect();
    open.commit(planned);
    let mut waiting = Vec::new();
    for share in shares {
        let of_share = |sockets: &mut Vec<OwnedFd>| {
            let later = sockets.split_off(share.cores.len());
            std::mem::replace(sockets, later)
        };
        waiting.push((share, sockets.iter_mut().flat_map(of_share).collect()));
    }
    let words = words(std::env::args_os(), config);
    let policy = Some(inherited_policy()).filter(InheritedPolicy::is_overridden);
    let mut group = ProcessGroup::new(policy, cpus.len());
    let served = group.serve(&signals, waiting.into_iter(), &words, || {
        // Not before: where nothing can be started, it is a member that cannot.
        if let Err(error) = log::begin() {
            tracing::warn!(%error, "the log has no thread: its reader can hold up the first process");
        }
        // Not before: where none can be started, the process for all cores says it.
        reasons.iter().for_each(|reason| tracing::warn!("core plan: {reason}"));
        lifecycle::reach(Stage::Ready);
        lines.iter().for_each(|line| say(line));
    });
    group.leave(&signals, served)
}

/// The command line for the members: with addresses in place of upstream names, so that all have the same and none waits for a resolver.
fn words(given: impl Iterator<Item = OsString>, config: &Configuration) -> Vec<OsString> {
    let to = config.listeners.iter().find_map(|listener| match &listener.service {
        ServiceConfig::Relay(relay) => Some(relay.to.resolved()),
        ServiceConfig::Files(_) => None,
    });
    match to {
        Some(to) => replaced(given, &to),
        None => given.collect(),
    }
}

/// The words, with `address` for the value of `--to`.
fn replaced(mut given: impl Iterator<Item = OsString>, address: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    while let Some(word) = given.next() {
        if word == "--" {
            words.push(word);
            break;
        }
        if word == "--to" {
            words.extend([word, address.into()]);
            drop(given.next());
        } else if word.to_str().is_some_and(|word| word.starts_with("--to=")) {
            words.push(format!("--to={address}").into());
        } else {
            words.push(word);
        }
    }
    // After `--` nothing is a flag.
    words.extend(given);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_get_addresses_in_place_of_names() {
        let words = |line: &str| {
            let words = replaced(line.split(' ').map(OsString::from), "10.0.0.1:1,[::1]:1");
            words.join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(words("a proxy --to name:1 -v"), "a proxy --to 10.0.0.1:1,[::1]:1 -v");
        assert_eq!(words("a proxy --to=name:1"), "a proxy --to=10.0.0.1:1,[::1]:1");
        assert_eq!(words("a proxy --to name:1 -- --to b"), "a proxy --to 10.0.0.1:1,[::1]:1 -- --to b");
    }
}
