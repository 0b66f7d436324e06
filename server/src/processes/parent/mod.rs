//! The process that starts the members, hands signals on to them, and ends with them.
//!
//! They are started one after the other, so that a refusal of the platform is told once. A member's end of
//! its line closes when it ends, however it ends, and so does the parent's: neither outlives the other. When
//! one fails, the others are cut, as the cores of one process are.

mod change;
mod end;
mod group;
mod lookups;
mod process;
mod questions;

use std::cell::Cell;
use std::sync::Arc;

use annulus::numa::thread::{InheritedPolicy, inherited_policy};

use self::change::{Changes, First};
pub(crate) use self::end::End;
use self::group::ProcessGroup;
use super::{ProcessShare, figures};
use crate::admin::Entrance;
use crate::admin::several::{self, Several};
use crate::config::Configuration;
use crate::exit::{Failure, Kind, say};
use crate::lifecycle::{self, Stage};
use crate::listen::passed::Passed;
use crate::metrics::gather::describe;
use crate::service::reload::Source;
use crate::service::times::Times;
use crate::service_manager::message::Message;
use crate::service_manager::{notify, watchdog};
use crate::signals::Signals;
use crate::upgrade::giving::Giver;
use crate::upgrade::taking;
use crate::{descriptors, limits, log};

/// What the members are to do.
pub(crate) struct Told<'a> {
    /// What to do.
    pub(crate) config: &'a Configuration,
    /// The same as the text of a file.
    pub(crate) text: &'a str,
    /// How much the log says.
    pub(crate) verbose: u8,
    /// Where it can be read again.
    pub(crate) source: Option<Source>,
    /// Sockets that a service manager has passed.
    pub(crate) passed: Arc<Passed>,
}

/// Serves with a process for each of the shares, until all have ended. `reasons` say why the cores are
/// fewer than the CPUs.
///
/// # Errors
/// Why it could not start; else the first failure of a member, which ends the others.
pub(crate) fn run(shares: &[ProcessShare], reasons: &[String], told: Told<'_>) -> Result<(), End> {
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    descriptors::raise_limit();
    let (members, questions) =
        figures::way().map_err(|error| Failure::failed("cannot make an eventfd", error))?;
    let limits = limits::share().map_err(|error| {
        let what = format!("the processes of the nodes have no memory in common to count in: {error}");
        End::CannotStart(Failure::new(
            Kind::Platform,
            format!("{what}; allow memfd_create, or serve with --processes one"),
        ))
    })?;
    let times = Arc::new(Times::new(&told.config.program));
    let Told { config, text, verbose, source, passed } = told;
    let first = First { config, text, verbose, passed: Arc::clone(&passed) };
    let (changes, lines) = Changes::begin(source, shares, &first, Arc::clone(&times), members.clone())?;
    let address = told.config.program.admin.admin.as_ref();
    let entrance = address.map(|address| Entrance::open(address, &passed));
    let entrance = entrance.transpose().map_err(Failure::input)?;
    let handle = entrance.as_ref().map(Entrance::handle).transpose();
    let handle = handle.map_err(|error| Failure::failed("cannot duplicate the admin socket", error))?;
    let giver = Giver::new(changes.open(), handle);
    // Taken when all listen: nothing answers before, and all members are started before any thread is.
    let (entrance, admin) = (Cell::new(entrance), Cell::new(None));
    let policy = Some(inherited_policy()).filter(InheritedPolicy::is_overridden);
    let mut group = ProcessGroup::new(policy, &signals, &times, changes, questions);
    group.giver = Some(giver);
    let served = group.serve((shares, &limits), || {
        // Not before: where nothing can be started, it is a member that cannot.
        if let Err(error) = log::begin() {
            tracing::warn!(%error, "the log has no thread: its reader can hold up the first process");
        }
        // Not before: where none can be started, the process for all cores says it.
        reasons.iter().for_each(|reason| tracing::warn!("core plan: {reason}"));
        lifecycle::reach(Stage::Ready);
        lines.iter().for_each(|line| say(line));
        describe(lines.clone(), told.config.program.ring.road.to_string());
        if let Some(entrance) = entrance.take() {
            let line = entrance.line();
            match entrance.answer(Box::new(Several::new(&members, shares.len()))) {
                Ok(answering) => {
                    admin.set(Some(answering));
                    say(&line);
                }
                Err(error) => tracing::error!(%error, "nobody answers operators: no thread can be started"),
            }
        }
        taking::listens();
        notify::begin(taking::wait_until_all_is_ours);
        notify::tell(Message::Ready(lines.join(", ")));
        let (members, count) = (members.clone(), shares.len());
        watchdog::watch(move |time| several::are_alive(&members, count, time));
    });
    let left = group.leave(served);
    // Nobody answers any more, and who still asks learns of that. Then the thread can be waited for.
    drop(group);
    drop(admin);
    left
}
