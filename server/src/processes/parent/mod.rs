//! The process that starts the members, hands signals on to them, and ends with them.
//!
//! They are started one after the other, so that what the platform refuses is told once. A member's end of its line closes when it ends,
//! however it ends, and so does ours: nobody outlives the other. When one fails, the others are cut, as the cores of one process are.

mod group;
mod process;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use annulus::net::{ListenOptions, listening_sockets};
use annulus::numa::thread::{InheritedPolicy, inherited_policy};

use self::group::ProcessGroup;
use super::{Address, ProcessShare};
use crate::exit::{Failure, say};
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

/// Serves `address` with a process for each of the shares, until all have ended. `reasons` say why the cores are fewer than the CPUs.
///
/// # Errors
/// Why it could not start; else the first failure of a member, which ends the others.
pub(crate) fn run(shares: &[ProcessShare], reasons: &[String], address: &Address) -> Result<(), End> {
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    descriptors::raise_limit();
    let options = ListenOptions::new().steer_by_cpu(address.steer_by_cpu);
    let cpus: Vec<_> = shares.iter().flat_map(|share| share.cores.iter().copied()).collect();
    let mut sockets = listening_sockets(address.listen, &options, &cpus)?;
    let bound = bound(&sockets)?;
    let waiting = shares.iter().map(|share| {
        let later = sockets.split_off(share.cores.len());
        (share, std::mem::replace(&mut sockets, later))
    });
    let words = words(std::env::args_os(), address);
    let policy = Some(inherited_policy()).filter(InheritedPolicy::is_overridden);
    let mut group = ProcessGroup::new(policy);
    let served = group.serve(&signals, waiting, &words, || {
        // Not before: where nothing can be started, it is a member that cannot.
        if let Err(error) = log::begin() {
            tracing::warn!(%error, "the log has no thread: its reader can hold up the first process");
        }
        // Not before: where none can be started, the process for all cores says it.
        reasons.iter().for_each(|reason| tracing::warn!("core plan: {reason}"));
        say(&format!("listening on {}{bound}{}", address.before, address.after));
    });
    group.leave(&signals, served)
}

/// The command line for the members: with addresses in place of names, so that all have the same and none waits for a resolver.
fn words(mut given: impl Iterator<Item = OsString>, address: &Address) -> Vec<OsString> {
    let listen = address.listen.to_string();
    let resolved = [("--listen", Some(&listen)), ("--to", address.upstream.as_ref())];
    let mut words = Vec::new();
    let mut value = None;
    for word in given.by_ref() {
        if value.is_none() && word == "--" {
            words.push(word);
            break;
        }
        let of = |flag: &str| word.to_str().and_then(|word| word.strip_prefix(flag));
        let flag = resolved.iter().find_map(|&(flag, value)| Some((flag, of(flag)?, value?)));
        words.push(match (value.take(), flag) {
            (Some(value), _) => value,
            (None, Some((_, "", address))) => {
                value = Some(OsString::from(address));
                word
            }
            (None, Some((flag, rest, address))) if rest.starts_with('=') => {
                format!("{flag}={address}").into()
            }
            (None, _) => word,
        });
    }
    // After `--` nothing is a flag.
    words.extend(given);
    words
}

/// The address with the real port.
fn bound(sockets: &[OwnedFd]) -> Result<SocketAddr, Failure> {
    let first =
        sockets.first().map(OwnedFd::try_clone).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
    first
        .and_then(|socket| TcpListener::from(socket).local_addr())
        .map_err(|error| Failure::failed("cannot read the address of a socket", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_get_addresses_in_place_of_names() {
        let address = |upstream: Option<&str>| Address {
            listen: "127.0.0.1:80".parse().unwrap(),
            before: "",
            after: String::new(),
            upstream: upstream.map(str::to_owned),
            steer_by_cpu: false,
        };
        let words = |line: &str, upstream| {
            let words = words(line.split(' ').map(OsString::from), &address(upstream));
            words.join(" ".as_ref()).into_string().unwrap()
        };
        let two = Some("10.0.0.1:1,[::1]:1");
        assert_eq!(words("a proxy --to name:1 -v", two), "a proxy --to 10.0.0.1:1,[::1]:1 -v");
        assert_eq!(
            words("a proxy --listen=localhost:80 --to=name:1", two),
            "a proxy --listen=127.0.0.1:80 --to=10.0.0.1:1,[::1]:1"
        );
        assert_eq!(
            words("a serve --to --listen localhost:80 -- --", None),
            "a serve --to --listen 127.0.0.1:80 -- --"
        );
        assert_eq!(words("a serve --listening", None), "a serve --listening");
        assert_eq!(
            words("a serve --listen localhost:80 -- --listen localhost:80", two),
            "a serve --listen 127.0.0.1:80 -- --listen localhost:80"
        );
    }
}
