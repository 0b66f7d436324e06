//! Going over from one configuration to the next, while connections are served.
//!
//! It is done on a thread of its own: reading a file may wait for a disk and looking up names for a
//! resolver, and meanwhile the main thread hears signals and the cores serve. Two steps: every core makes
//! ready for the next configuration, which may fail and changes nothing; then every core goes over, which
//! does not fail for lack of anything outside.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use annulus::Handle;
use annulus::numa::CpuId;

use super::generation::Generation;
use super::on_core;
use super::on_cores::on_all;
use super::times::Times;
use crate::config::program_keys::ProgramKeys;
use crate::config::{self, Configuration};
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::listen::open::OpenEndpoints;
use crate::log;
use crate::metrics::gather::describe;
use crate::serve::roots::Roots;
use crate::service_manager::message::Message;
use crate::service_manager::notify;

/// What a process that opens its own endpoints needs to go over to another configuration.
pub(crate) struct Reloader {
    /// Where the configuration is; `None` when it was flags.
    source: Option<Source>,
    cores: Handle,
    cpus: Vec<CpuId>,
    open: Arc<Mutex<OpenEndpoints>>,
    times: Arc<Times>,
    turn: Mutex<Turn>,
}

/// A file, and what it said of the program when it was started.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path.
    pub(crate) file: PathBuf,
    /// What cannot be changed while the program runs.
    pub(crate) keys: ProgramKeys,
}

/// What the reloading thread does.
#[derive(Debug, Default)]
struct Turn {
    /// A thread reloads.
    is_at_it: bool,
    /// It shall do so once more: the file may have changed since it was read.
    again: bool,
}

impl Reloader {
    /// For the runtime behind `cores`, on `cpus`, which has `open`.
    pub(crate) fn new(
        source: Option<Source>,
        cores: Handle,
        cpus: Vec<CpuId>,
        open: Arc<Mutex<OpenEndpoints>>,
        times: Arc<Times>,
    ) -> Arc<Self> {
        Arc::new(Reloader { source, cores, cpus, open, times, turn: Mutex::default() })
    }

    /// Reads the file again and goes over to what it says, on another thread; what comes of it is told on
    /// standard error. Started by flags, there is nothing to read: the logs are opened again.
    pub(crate) fn start(self: &Arc<Self>) {
        log::reopen();
        notify::tell(Message::Reloading);
        if self.source.is_none() {
            let what = "the logs are opened anew; there is no file to read anew: it was started by flags";
            notify::tell(Message::Ready(what.to_owned()));
            return say(what);
        }
        let mut turn = lock(&self.turn);
        if std::mem::replace(&mut turn.is_at_it, true) {
            turn.again = true;
            return;
        }
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("reload".to_owned());
        if let Err(error) = thread.spawn(move || this.run()) {
            turn.is_at_it = false;
            let why = format!("cannot reload: no thread can be started: {error}; nothing has changed");
            say(&why);
            notify::tell(Message::Ready(why));
        }
    }

    /// Takes the files of Unix sockets away, before the cores stop accepting.
    pub(crate) fn close(&self) {
        match self.open.try_lock() {
            Ok(mut open) => open.remove_files(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().remove_files(),
            // A reload has it, and takes them away when it is done.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn run(&self) {
        loop {
            let status = match self.reload() {
                Ok(status) => status,
                Err(lines) => {
                    lines.iter().for_each(|line| say(line));
                    lines.last().cloned().unwrap_or_default()
                }
            };
            let mut turn = lock(&self.turn);
            if !std::mem::take(&mut turn.again) {
                turn.is_at_it = false;
                notify::tell(Message::Ready(status));
                return;
            }
        }
    }

    /// One reload. Returns what is in force.
    ///
    /// # Errors
    /// Lines that say why nothing has changed.
    fn reload(&self) -> Result<String, Vec<String>> {
        let Some(Source { file, keys }) = &self.source else { return Ok(String::new()) };
        let unchanged = |why: String| vec![format!("{why}; nothing has changed")];
        if lifecycle::stage() > Stage::Ready {
            return Err(unchanged("cannot reload: the program is ending".to_owned()));
        }
        let read = config::load(file).map(|loaded| loaded.read).map_err(|mut lines| {
            lines.push(format!("{} is wrong; nothing has changed", file.display()));
            lines
        })?;
        let failed = |failure: Failure| unchanged(format!("cannot reload {}: {failure}", file.display()));
        let mut open = lock(&self.open);
        let mut planned = read
            .config
            .endpoints(open.passed())
            .and_then(|keys| open.plan(&keys, &self.cpus))
            .map_err(failed)?;
        let (new, shown) = (planned.new.clone(), planned.shown.clone());
        let (ids, new_endpoints) = (planned.ids.clone(), planned.take());
        let roots = Roots::default();
        let generation = Generation { config: read.config, ids, new: new_endpoints, roots };
        let generation = Arc::new(generation);
        if let Err(failure) = on_all(&self.cores, || {
            let generation = Arc::clone(&generation);
            async move || on_core::prepare(generation).await
        }) {
            // Cores that have come to their end have nothing prepared.
            drop(on_all(&self.cores, || {
                async move || {
                    on_core::abandon();
                    Ok(())
                }
            }));
            return Err(failed(failure));
        }
        let closed = open.commit(planned);
        let committed = on_all(&self.cores, || async move || on_core::commit());
        self.times.set(&generation.config.program);
        if lifecycle::stage() > Stage::Ready {
            open.remove_files();
        }
        drop(open);
        committed.map_err(|failure| vec![format!("{} is in force, but: {failure}", file.display())])?;
        tell(&generation.config, &shown, &new, &closed);
        let fixed = keys.changed(&read.keys);
        if !fixed.is_empty() {
            say(&format!("{} takes a restart to change", fixed.join(", ")));
        }
        let status = format!("{} is in force for new connections", file.display());
        say(&status);
        Ok(status)
    }
}

/// Says where it listens now and did not before, and where it does not any more; and to operators, where it
/// listens in all: `shown`, of each listener.
pub(crate) fn tell(
    config: &Configuration,
    shown: &[Vec<String>],
    new: &[(usize, String)],
    closed: &[String],
) {
    describe(config.lines(shown), config.program.ring.road.to_string());
    closed.iter().for_each(|shown| say(&format!("no longer listening on {shown}")));
    for (listener, shown) in new {
        say(&config.listeners[*listener].line(shown));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
