//! What the program is to do, whichever way it was told: by flags or by a file, which are two notations of
//! the same clap structs.
//!
//! [`read`] makes it of a file and says all that is wrong with it ([`fault`]), [`write`] makes a file of a
//! command line; [`keys`] has what clap knows about flags as keys, [`table`] what stands in a file.

pub(crate) mod command_line;
pub(crate) mod fault;
mod keys;
pub(crate) mod program_keys;
pub(crate) mod read;
mod table;
#[cfg(test)]
mod tests;
mod twice;
pub(crate) mod write;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::listen::address::{ListenAddress, Place};
use crate::listen::endpoint::{Carries, EndpointKey};
use crate::listen::passed::{Passed, Source};
use crate::options::listener::ListenerArgs;
use crate::options::program::{ProgramArgs, Steer};
use crate::proxy::options::ProxyArgs;
use crate::serve;
use crate::serve::sites::SiteConfig;

/// What the program is to do.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    /// What holds for the whole program.
    pub(crate) program: ProgramArgs,
    /// The listeners, in the order given.
    pub(crate) listeners: Vec<Listener>,
}

/// A listener, and what is done with its connections.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    /// What every listener has.
    pub(crate) args: ListenerArgs,
    /// What is done with its connections.
    pub(crate) service: ServiceConfig,
}

/// What is done with connections.
#[derive(Debug, Clone)]
pub(crate) enum ServiceConfig {
    /// Files are served by HTTP.
    Files(Vec<SiteConfig>),
    /// They are relayed.
    Relay(Box<ProxyArgs>),
}

impl Listener {
    /// The addresses that it listens on, in the order given.
    pub(crate) fn addresses(&self) -> Vec<ListenAddress> {
        if !self.args.listen.is_empty() {
            return self.args.listen.clone();
        }
        let port = match self.service {
            ServiceConfig::Files(_) => 8080,
            ServiceConfig::Relay(_) => 8081,
        };
        vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()]
    }

    /// The line that says that it listens, with the address `shown`.
    pub(crate) fn line(&self, shown: &str) -> String {
        match &self.service {
            // There is no URL for a Unix socket.
            ServiceConfig::Files(_) if !shown.starts_with("unix:") => format!("listening on http://{shown}"),
            ServiceConfig::Files(_) => format!("listening on {shown}"),
            ServiceConfig::Relay(relay) => {
                format!("listening on {shown}, relaying to {}", relay.upstreams.written())
            }
        }
    }
}

impl Configuration {
    /// Makes sure, before anything starts, that what it names is there.
    ///
    /// # Errors
    /// [`crate::exit::Kind::Input`], with the remedy.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for listener in &self.listeners {
            match &listener.service {
                ServiceConfig::Files(sites) => sites
                    .iter()
                    .flat_map(SiteConfig::all_args)
                    .try_for_each(|args| serve::check_root(&args.root))?,
                ServiceConfig::Relay(relay) => {
                    let addresses = listener.addresses();
                    let listens = addresses.iter().flat_map(|address| address.place().candidates());
                    relay.check(&listens.collect::<Vec<_>>()).map_err(Failure::input)?;
                }
            }
        }
        Ok(())
    }

    /// All directories that files are served from.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        let of = |listener: &Listener| match &listener.service {
            ServiceConfig::Files(sites) => {
                sites.iter().flat_map(SiteConfig::all_args).map(|args| args.root.clone()).collect()
            }
            ServiceConfig::Relay(_) => Vec::new(),
        };
        let mut roots: Vec<PathBuf> = self.listeners.iter().flat_map(of).collect();
        roots.sort();
        roots.dedup();
        roots
    }

    /// The lines that say that it listens where `shown` says, in the order given.
    pub(crate) fn lines(&self, shown: &[Vec<String>]) -> Vec<String> {
        let of = |(listener, shown): (&Listener, &Vec<String>)| -> Vec<String> {
            shown.iter().map(|shown| listener.line(shown)).collect()
        };
        self.listeners.iter().zip(shown).flat_map(of).collect()
    }

    /// Of each listener, its endpoints in the order given: sockets that were passed for it, or else those
    /// to open.
    ///
    /// # Errors
    /// A socket that was passed belongs to no listener.
    pub(crate) fn endpoints(&self, passed: &Passed) -> Result<Vec<Vec<EndpointKey>>, Failure> {
        let all: Vec<Vec<ListenAddress>> = self.listeners.iter().map(Listener::addresses).collect();
        let v4_has = |port| all.iter().flatten().any(|address| address.place().is_all_of_v4(port));
        let steer_by_cpu = self.program.cores.steer == Steer::Cpu;
        let key = |listener: &Listener, address: &ListenAddress, passed: Option<usize>| {
            let only_v6 = match address.place() {
                Place::Ip(at) if at.is_ipv6() && at.ip().is_unspecified() => {
                    at.port() != 0 && v4_has(at.port())
                }
                _ => false,
            };
            EndpointKey {
                address: address.clone(),
                passed,
                mode: listener.args.unix_mode,
                only_v6,
                steer_by_cpu,
                carries: Carries::Connections,
            }
        };
        let names: Vec<Option<&str>> =
            self.listeners.iter().map(|listener| listener.args.name.as_deref()).collect();
        let of = |((listener, addresses), source): ((&Listener, &Vec<ListenAddress>), Source)| match source {
            Source::Own => addresses.iter().map(|address| key(listener, address, None)).collect(),
            // The address is not checked.
            Source::Passed(passed) => {
                passed.into_iter().map(|index| key(listener, &addresses[0], Some(index))).collect()
            }
        };
        let all = self.listeners.iter().zip(&all).zip(passed.deal(&names)?);
        Ok(all.map(|one| with_datagrams(&one.0.0.service, of(one))).collect())
    }
}

/// The endpoints of a listener, with those for datagrams, where they are relayed too, or alone.
fn with_datagrams(service: &ServiceConfig, keys: Vec<EndpointKey>) -> Vec<EndpointKey> {
    let ServiceConfig::Relay(relay) = service else { return keys };
    let carrying = |carries| move |key: &EndpointKey| EndpointKey { carries, ..key.clone() };
    match (relay.udp.udp_only, relay.udp.udp) {
        (true, _) => keys.iter().map(carrying(Carries::Datagrams)).collect(),
        (false, true) => {
            let beside = carrying(Carries::DatagramsBeside);
            keys.iter().flat_map(|key| [key.clone(), beside(key)]).collect()
        }
        (false, false) => keys,
    }
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Its text.
    pub(crate) text: String,
    /// What it says.
    pub(crate) read: read::Read,
}

/// Reads a file, or says all that is wrong with it, a line each.
///
/// # Errors
/// The lines.
pub(crate) fn load(file: &Path) -> Result<Loaded, Vec<String>> {
    let unread = |error| vec![format!("{} cannot be read: {error}; name a file in TOML", file.display())];
    let text = std::fs::read(file).map_err(unread)?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        fault::lines(file, &text, vec![fault::Fault::new(at..at, "this is no text in UTF-8")])
    })?;
    let read = read::read(&text).map_err(|faults| fault::lines(file, &text, faults))?;
    Ok(Loaded { text, read })
}
