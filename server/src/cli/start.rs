//! What is started for a configuration: this process, or one for each node.

use std::sync::Arc;
use std::time::Duration;

use annulus::numa::plan::CoreSelection;

use crate::admin::Entrance;
use crate::config::Configuration;
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::listen::endpoint::{Endpoint, Opened};
use crate::metrics::status::{Gatherer, describe};
use crate::processes::member::{Member, MemberArgs};
use crate::processes::parent::End;
use crate::processes::{Processes, SplitConstraints};
use crate::service::generation::Generation;
use crate::service::on_core::{Start, on_core};
use crate::signals::{Orders, Signals};
use crate::supervise::supervise;
use crate::{descriptors, filters, log, processes};

/// Serves in this process, or in one for each node.
pub(super) fn begin(config: Configuration, given: Option<MemberArgs>) -> Result<(), Failure> {
    config.check()?;
    if let Some(given) = given {
        return start(config, Some(&Arc::new(Member::take(given)?)));
    }
    let program = &config.program;
    let constraints = SplitConstraints {
        placement: program.cores.placement,
        named_pollers: program.ring.sqpoll_cpus.is_some(),
    };
    if program.cores.processes != Processes::One {
        let (shares, reasons) =
            processes::shares(program.cores.processes, &program.cores.cores, program.cores.nic.as_deref())?;
        if processes::split(program.cores.processes, constraints, &shares)? {
            match processes::parent::run(&shares, &reasons, &config) {
                Err(End::CannotStart(failure)) if program.cores.processes.may_be_one() => {
                    tracing::warn!("{failure}; one process serves with all cores");
                }
                Err(End::CannotStart(failure) | End::Failed(failure)) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
    }
    start(config, None)
}

/// Starts the runtime, and waits for its end.
fn start(config: Configuration, member: Option<&Arc<Member>>) -> Result<(), Failure> {
    // Before the first thread, so that all of them inherit the mask.
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    let program = config.program.clone();
    let image = member.map(|member| member.settle(program.cores.placement)).transpose()?;
    let orders = match member {
        Some(member) => Orders::Parent(Arc::clone(member)),
        None => Orders::Signals(signals),
    };
    filters::must_let_through()?;
    // Before the first listener, which reads the limit.
    descriptors::raise_limit();
    log::begin().map_err(|error| Failure::failed("cannot start the thread of the log", error))?;
    program.log.open().map_err(Failure::input)?;
    let cores = member
        .map_or_else(|| program.cores.cores.clone(), |member| CoreSelection::List(member.cores().clone()));
    // Where several processes serve, operators ask the first.
    let address = program.admin.admin.as_ref().filter(|_| member.is_none());
    let entrance = address.map(Entrance::open).transpose().map_err(Failure::input)?;
    let runtime = program.runtime(cores).build()?;
    let plan = runtime.plan().clone();
    let cpus: Vec<_> = plan.cores().iter().map(|core| core.cpu).collect();
    let config = Arc::new(config);
    // The files of Unix sockets are there for as long as this.
    let mut lines = Vec::new();
    let (start, _opened) = match member {
        Some(member) => (of_member(config, member), Vec::new()),
        None => {
            let mut opened = config.open(&cpus)?;
            lines = config.lines(&opened);
            let said = lines.iter().cloned().chain(entrance.as_ref().map(Entrance::line)).collect();
            (of_opened(config, &mut opened, said), opened)
        }
    };
    let start = Arc::new(start);
    let running = runtime.start(move || on_core(Arc::clone(&start)))?;
    describe(lines, program.ring.road.to_string());
    let gatherer = Gatherer::new(running.observer());
    let _admin = entrance
        .map(|entrance| entrance.answer(Box::new(gatherer)))
        .transpose()
        .map_err(|error| Failure::failed("cannot start the thread of the admin server", error))?;
    supervise(&plan, running, orders, image.as_ref(), Duration::from_secs(program.grace), program.stats)
}

/// With the sockets that the starting process has given.
fn of_member(config: Arc<Configuration>, member: &Arc<Member>) -> Start {
    let mut given = member.endpoints();
    let of = |keys: Vec<_>| given.by_ref().take(keys.len()).collect();
    let endpoints = config.endpoints().into_iter().map(of).collect();
    let member = Arc::clone(member);
    Start::new(Generation { config, endpoints }, move || member.is_ready())
}

/// With sockets that this process has opened, and `lines` to say when all listen.
fn of_opened(config: Arc<Configuration>, opened: &mut [Vec<Opened>], lines: Vec<String>) -> Start {
    let endpoint = |opened: &mut Opened| Arc::new(Endpoint::new(std::mem::take(&mut opened.sockets), false));
    let endpoints = opened.iter_mut().map(|of| of.iter_mut().map(endpoint).collect()).collect();
    Start::new(Generation { config, endpoints }, move || {
        lifecycle::reach(Stage::Ready);
        lines.iter().for_each(|line| say(line));
    })
}
