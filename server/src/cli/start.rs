//! What is started for a configuration: this process, or one for each node.

use std::sync::{Arc, Mutex};

use annulus::numa::CpuId;
use annulus::numa::plan::CoreSelection;

use crate::admin::Entrance;
use crate::admin::several::answer_first;
use crate::config::Configuration;
use crate::confine::user::become_user;
use crate::confine::{self, filter};
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::listen::open::OpenEndpoints;
use crate::listen::passed::Passed;
use crate::metrics::gather::{Gatherer, describe};
use crate::options::processes::Processes;
use crate::orders::Orders;
use crate::processes::SplitConstraints;
use crate::processes::member::{Change, Member, MemberArgs, OfMember};
use crate::processes::parent::{self, End};
use crate::proxy::names;
use crate::serve::roots::Roots;
use crate::service::alive::are_alive;
use crate::service::generation::Generation;
use crate::service::on_core::{Start, on_core};
use crate::service::reload::{Reloader, Source};
use crate::service::times::Times;
use crate::service_manager::message::Message;
use crate::service_manager::{notify, watchdog};
use crate::signals::Signals;
use crate::supervise::{Duties, Supervised, supervise};
use crate::upgrade::giving::Giver;
use crate::upgrade::taking;
use crate::{descriptors, filters, limits, log, metrics, processes, slow};

/// What the program was told.
pub(super) struct Told {
    /// What to do.
    pub(super) config: Configuration,
    /// The same as the text of a file, or why it has none.
    pub(super) text: Result<String, String>,
    /// How much the log says.
    pub(super) verbose: u8,
    /// Where it can be read again.
    pub(super) source: Option<Source>,
    /// Sockets that a service manager has passed.
    pub(super) passed: Arc<Passed>,
}

/// Serves in this process, or in one for each node.
pub(super) fn begin(told: Told) -> Result<(), Failure> {
    let Told { config, text, verbose, source, passed } = told;
    config.check()?;
    let program = &config.program;
    if program.admin.admin.is_none() {
        // The program before may have had one.
        drop(passed.admin(None));
    }
    let constraints = SplitConstraints {
        placement: program.cores.placement,
        named_pollers: program.ring.sqpoll_cpus.is_some(),
    };
    // What gives up its rights is another process than what needs them.
    let confined = program.rights.is_asked();
    if program.cores.processes != Processes::One || confined {
        let (mut shares, reasons) =
            processes::shares(program.cores.processes, &program.cores.cores, program.cores.nic.as_deref())?;
        let split = processes::split(program.cores.processes, constraints, &shares)?;
        if confined && !split {
            shares = processes::one_for_all(shares);
        }
        if split || confined {
            let text = text.map_err(|why| Failure::input(format!("{why}; or serve with --processes one")))?;
            let told = parent::Told {
                config: &config,
                text: &text,
                verbose,
                source: source.clone(),
                passed: Arc::clone(&passed),
            };
            match parent::run(&shares, &reasons, told) {
                Err(End::CannotStart(failure)) if program.cores.processes.may_be_one() && !confined => {
                    tracing::warn!("{failure}; one process serves with all cores");
                }
                Err(End::CannotStart(failure) | End::Failed(failure)) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
    }
    start(config, source, passed)
}

/// Starts the log.
pub(super) fn start_log(verbose: u8) -> Result<(), Failure> {
    let filter = log::filter(verbose).map_err(Failure::input)?;
    log::start_tracing(filter).map_err(|error| Failure::failed("cannot start the log", error))
}

/// What is done before the first core, whoever gives the orders.
fn prepare(config: &Configuration) -> Result<(), Failure> {
    filters::must_let_through()?;
    limits::begin().map_err(|error| Failure::failed("cannot map memory to count connections in", error))?;
    if let Some(ms) = config.program.slow {
        slow::tell_from(ms);
    }
    // Before the first listener, which reads the limit.
    descriptors::raise_limit();
    log::begin().map_err(|error| Failure::failed("cannot start the thread of the log", error))?;
    config.program.log.open().map_err(Failure::input)
}

fn block_signals() -> Result<Signals, Failure> {
    Signals::block().map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))
}

/// Serves with all cores in this process, and waits for their end.
fn start(config: Configuration, source: Option<Source>, passed: Arc<Passed>) -> Result<(), Failure> {
    // Before the first thread, so that all of them inherit the mask.
    let signals = block_signals()?;
    prepare(&config)?;
    let program = config.program.clone();
    // Before the cores, which are pinned.
    notify::begin(taking::wait_until_all_is_ours);
    let entrance = program.admin.admin.as_ref().map(|address| Entrance::open(address, &passed));
    let entrance = entrance.transpose().map_err(Failure::input)?;
    let handle = entrance.as_ref().map(Entrance::handle).transpose();
    let handle = handle.map_err(|error| Failure::failed("cannot duplicate the admin socket", error))?;
    let runtime = program.runtime(program.cores.cores.clone()).build()?;
    let plan = runtime.plan().clone();
    let cpus: Vec<CpuId> = plan.cores().iter().map(|core| core.cpu).collect();
    let mut open = OpenEndpoints::new(passed);
    let mut planned = open.plan(&config.endpoints(open.passed())?, &cpus)?;
    let lines = config.lines(&planned.shown);
    describe(lines.clone(), program.ring.road.to_string());
    let admin_line = entrance.as_ref().map(Entrance::line);
    let (ids, new, roots) = (planned.ids.clone(), planned.take(), Roots::default());
    let generation = Generation { config, ids, new, roots };
    // Nothing was open, so nothing is closed.
    open.commit(planned);
    let start = Start::new(Arc::new(generation), move || {
        lifecycle::reach(Stage::Ready);
        lines.iter().chain(&admin_line).for_each(|line| say(line));
        taking::listens();
        notify::tell(Message::Ready(lines.join(", ")));
    });
    let start = Arc::new(start);
    let running = runtime.start(move || on_core(Arc::clone(&start)))?;
    let times = Arc::new(Times::new(&program));
    let open = Arc::new(Mutex::new(open));
    let gatherer = Gatherer::new(running.observer());
    let cores = running.handle();
    watchdog::watch(move |time| are_alive(&cores, time));
    let _admin = entrance
        .map(|entrance| entrance.answer(Box::new(gatherer)))
        .transpose()
        .map_err(|error| Failure::failed("cannot start the thread of the admin server", error))?;
    let giver = Giver::new(Arc::clone(&open), handle);
    let reloader = Reloader::new(source, running.handle(), cpus, open, Arc::clone(&times));
    let duties = OfOne(reloader, giver);
    let supervised =
        Supervised { plan: &plan, image: None, times: &times, figures: program.stats, duties: &duties };
    supervise(&supervised, running, Orders::Signals(signals))
}

/// The duties of a process that serves with all cores.
struct OfOne(Arc<Reloader>, Arc<Giver>);

impl Duties for OfOne {
    /// Nobody has started it.
    fn change(&self, _: Change) {}

    fn reload(&self) {
        self.0.start();
    }

    fn upgrade(&self) {
        self.1.start();
    }

    fn stop_accepting(&self) {
        self.0.close();
    }
}

/// Serves with the cores of one node, for the process that has started this one.
pub(super) fn begin_member(given: MemberArgs) -> Result<(), Failure> {
    let member = Arc::new(Member::take(given)?);
    // Signals are the parent's: those that come here as well are blocked and ignored.
    let _signals = block_signals()?;
    let (generation, verbose) = member.beginning()?;
    start_log(verbose)?;
    let program = generation.config.program.clone();
    if program.admin.admin.is_some() {
        // Whom operators ask is the parent.
        metrics::measure_times();
    }
    // Before the first thread.
    let image = member.settle(program.cores.placement)?;
    if program.rights.is_asked() {
        let asks = Arc::clone(&member);
        names::look_up_by(move |asked| asks.look_up(asked));
    }
    // Found by the rights of the first process, which the user may not have.
    let files = program.rights.confine.then(|| {
        let logs: Vec<_> =
            program.log.access_log.iter().filter(|log| log.as_os_str() != "-").cloned().collect();
        confine::files::Rules::find(&generation.config.roots(), &logs)
    });
    let files = files.transpose()?;
    if let Some(user) = &program.rights.user {
        become_user(user)?;
    }
    if let Some(files) = files {
        files.enforce()?;
    }
    prepare(&generation.config)?;
    let builder = program.runtime(CoreSelection::List(member.cores().clone()));
    let runtime = builder.cores_of_user(member.cores_of_all()).build()?;
    let plan = runtime.plan().clone();
    let parent = Arc::clone(&member);
    let confine = program.rights.confine;
    let start = Arc::new(Start::new(Arc::new(generation), move || {
        if confine && let Err(failure) = filter::restrict() {
            say(&failure.to_string());
            std::process::exit(3);
        }
        parent.is_ready();
    }));
    let running = runtime.start(move || on_core(Arc::clone(&start)))?;
    let times = Arc::new(Times::new(&program));
    answer_first(running.observer(), running.handle());
    let duties = Obeying(OfMember::new(Arc::clone(&member), running.handle(), Arc::clone(&times)));
    let supervised = Supervised {
        plan: &plan,
        image: Some(&image),
        times: &times,
        figures: program.stats,
        duties: &duties,
    };
    supervise(&supervised, running, Orders::Parent(member))
}

/// The duties of a member.
struct Obeying(Arc<OfMember>);

impl Duties for Obeying {
    /// The parent reads the file, for all.
    fn reload(&self) {}

    /// It is the parent's place that is taken.
    fn upgrade(&self) {}

    fn change(&self, change: Change) {
        self.0.begin(change);
    }

    /// The parent has the files of Unix sockets.
    fn stop_accepting(&self) {}
}
