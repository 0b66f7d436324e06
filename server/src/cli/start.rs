//! What is started for a command line that serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use annulus::numa::plan::CoreSelection;

use crate::accept_loop::{AcceptLoop, Steer};
use crate::exit::Failure;
use crate::options::listener::ListenerArgs;
use crate::options::program::ProgramArgs;
use crate::processes::member::{Member, MemberArgs};
use crate::processes::parent::End;
use crate::processes::{Address, Processes, SplitConstraints};
use crate::proxy::options::Upstream;
use crate::signals::{Orders, Signals};
use crate::supervise::supervise;
use crate::{descriptors, log, processes};

/// The way in of a command line: of a server of files, or of a relay `to` somewhere.
pub(super) fn address(listener: &ListenerArgs, program: &ProgramArgs, to: Option<&Upstream>) -> Address {
    let port = if to.is_some() { 8081 } else { 8080 };
    Address {
        listen: listener.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        before: if to.is_some() { "" } else { "http://" },
        after: to.map_or_else(String::new, |to| format!(", relaying to {}", to.written)),
        upstream: to.map(Upstream::resolved),
        steer_by_cpu: program.cores.steer == Steer::Cpu,
    }
}

/// Serves in this process, or in one for each node.
pub(super) fn begin<F, Fut>(
    program: &ProgramArgs,
    address: Address,
    given: Option<MemberArgs>,
    root: impl FnOnce(AcceptLoop) -> F,
) -> Result<(), Failure>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    if let Some(given) = given {
        let member = Arc::new(Member::take(given)?);
        return start(program, Some(&member), root(AcceptLoop::new(address, Some(Arc::clone(&member)))));
    }
    let constraints = SplitConstraints {
        placement: program.cores.placement,
        named_pollers: program.ring.sqpoll_cpus.is_some(),
    };
    if program.cores.processes != Processes::One {
        let (shares, reasons) =
            processes::shares(program.cores.processes, &program.cores.cores, program.cores.nic.as_deref())?;
        if processes::split(program.cores.processes, constraints, &shares)? {
            match processes::parent::run(&shares, &reasons, &address) {
                Err(End::CannotStart(failure)) if program.cores.processes.may_be_one() => {
                    tracing::warn!("{failure}; one process serves with all cores");
                }
                Err(End::CannotStart(failure) | End::Failed(failure)) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
    }
    start(program, None, root(AcceptLoop::new(address, None)))
}

/// Starts the runtime with `root` on each core, and waits for its end.
fn start<F, Fut>(program: &ProgramArgs, member: Option<&Arc<Member>>, root: F) -> Result<(), Failure>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    // Before the first thread, so that all of them inherit the mask.
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    let image = member.map(|member| member.settle(program.cores.placement)).transpose()?;
    let orders = match member {
        Some(member) => Orders::Parent(Arc::clone(member)),
        None => Orders::Signals(signals),
    };
    // Before the first listener, which reads the limit.
    descriptors::raise_limit();
    log::begin().map_err(|error| Failure::failed("cannot start the thread of the log", error))?;
    program.log.open().map_err(Failure::input)?;
    let cores = member
        .map_or_else(|| program.cores.cores.clone(), |member| CoreSelection::List(member.cores().clone()));
    let runtime = program.runtime(cores).build()?;
    let plan = runtime.plan().clone();
    let running = runtime.start(root)?;
    supervise(&plan, running, orders, image.as_ref(), Duration::from_secs(program.grace), program.stats)
}
