//! Going over to another configuration with all members: each makes ready, and when all are, each goes over.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use annulus::numa::{CpuId, NodeId};

use super::process::Process;
use crate::config::{self, Configuration};
use crate::confine::options::ConfineArgs;
use crate::exit::{Failure, say};
use crate::lifecycle::{self, Stage};
use crate::listen::endpoint::EndpointId;
use crate::listen::open::{NextEndpoints, OpenEndpoints};
use crate::listen::passed::Passed;
use crate::processes::ProcessShare;
use crate::processes::figures::Members;
use crate::processes::given::Given;
use crate::processes::orders::{Change, Down, Up};
use crate::service::reload::{Source, tell};
use crate::service::times::Times;
use crate::service_manager::message::Message;
use crate::service_manager::notify;

/// How far it has come.
enum Step {
    /// Nobody wants another configuration.
    Idle,
    /// A thread reads the file.
    Reading,
    /// Members make ready: how many have not said so, and why one cannot.
    Preparing { next: Box<Next>, left: usize, refused: Option<String> },
    /// They go over: how many have not said so, and what went wrong.
    Committing { next: Box<Next>, left: usize, closed: Vec<String>, wrong: Vec<String> },
}

/// The configuration that comes next, and its endpoints.
struct Next {
    config: Configuration,
    text: String,
    verbose: u8,
    /// Keys that take a restart to change.
    fixed: Vec<String>,
    endpoints: NextEndpoints,
    /// What was found and opened for it.
    given: Given,
}

/// What is said to a member, and the descriptors beside it.
type OwnFrame = (Vec<u8>, Vec<OwnedFd>);

/// What came of reading a file: the lines say why nothing has changed.
type WasRead = Result<Box<Next>, Vec<String>>;

/// Configurations, one after the other.
pub(super) struct Changes {
    source: Option<Arc<Source>>,
    /// How many cores each member has, in the order of the members.
    cores: Vec<usize>,
    nodes: Vec<NodeId>,
    cpus: Vec<CpuId>,
    open: Arc<Mutex<OpenEndpoints>>,
    times: Arc<Times>,
    /// What members have given up.
    rights: ConfineArgs,
    step: Step,
    /// It was asked for once more meanwhile.
    again: bool,
    /// What each member begins with.
    first: Vec<OwnFrame>,
    read: (Sender<WasRead>, Receiver<WasRead>),
    wake: Members,
}

/// What the program begins with.
pub(super) struct First<'a> {
    /// What to do.
    pub(super) config: &'a Configuration,
    /// Its text.
    pub(super) text: &'a str,
    /// How much the log says.
    pub(super) verbose: u8,
    /// Sockets that a service manager has passed.
    pub(super) passed: Arc<Passed>,
}

impl Changes {
    /// Opens what `first` listens on, for members with `shares`. Returns the lines that say where it
    /// listens, as well.
    pub(super) fn begin(
        source: Option<Source>,
        shares: &[ProcessShare],
        first: &First<'_>,
        times: Arc<Times>,
        wake: Members,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut changes = Changes::none(wake);
        changes.source = source.map(Arc::new);
        changes.cores = shares.iter().map(|share| share.cores.len()).collect();
        changes.nodes = shares.iter().map(|share| share.node).collect();
        changes.cpus = shares.iter().flat_map(|share| share.cores.iter().copied()).collect();
        changes.times = times;
        changes.rights = first.config.program.rights.clone();
        let mut open = OpenEndpoints::new(Arc::clone(&first.passed));
        let mut endpoints = open.plan(&first.config.endpoints(open.passed())?, &changes.cpus)?;
        let lines = first.config.lines(&endpoints.shown);
        let given = Given::find(first.config)?;
        changes.first = changes.frames(first.text, first.verbose, &mut endpoints, &given)?;
        // Nothing was open, so nothing is closed.
        open.commit(endpoints);
        *lock(&changes.open) = open;
        Ok((changes, lines))
    }

    /// With nothing to begin with.
    pub(super) fn none(wake: Members) -> Self {
        Changes {
            source: None,
            cores: Vec::new(),
            nodes: Vec::new(),
            cpus: Vec::new(),
            open: Arc::default(),
            times: Arc::new(Times::of(0, 0)),
            rights: ConfineArgs::default(),
            step: Step::Idle,
            again: false,
            first: Vec::new(),
            read: channel(),
            wake,
        }
    }

    /// Wakes the main thread.
    pub(super) fn wake(&self) -> Members {
        self.wake.clone()
    }

    /// All that is open, for who hands it over.
    pub(super) fn open(&self) -> Arc<Mutex<OpenEndpoints>> {
        Arc::clone(&self.open)
    }

    /// What member `index` begins with, once.
    pub(super) fn first_for(&mut self, index: usize) -> OwnFrame {
        self.first.get_mut(index).map(std::mem::take).unwrap_or_default()
    }

    /// Of each member, the frame that has it make ready.
    ///
    /// # Errors
    /// No descriptor is left.
    fn frames(
        &self,
        text: &str,
        verbose: u8,
        endpoints: &mut NextEndpoints,
        given: &Given,
    ) -> Result<Vec<OwnFrame>, Failure> {
        let failed = |error| Failure::failed("cannot pass directories on", error);
        let mut sockets = std::mem::take(&mut endpoints.sockets);
        let of_member = |cores: &usize| {
            let own = |(id, is_shared, sockets): &mut (EndpointId, bool, Vec<OwnedFd>)| {
                let later = sockets.split_off(sockets.len().min(*cores));
                (*id, *is_shared, std::mem::replace(sockets, later))
            };
            let new = sockets.iter_mut().map(own).collect();
            let given = given.copy().map_err(failed)?;
            Ok(Change { text, verbose, ids: &endpoints.ids, new, given }.into_frame())
        };
        self.cores.iter().map(of_member).collect()
    }

    /// SIGHUP: the file is read on a thread of its own, which may wait for a disk and a resolver.
    pub(super) fn request(&mut self) {
        notify::tell(Message::Reloading);
        let Some(source) = self.source.clone() else {
            let what = "the logs are opened anew; there is no file to read anew: it was started by flags";
            notify::tell(Message::Ready(what.to_owned()));
            return say(what);
        };
        if !matches!(self.step, Step::Idle) {
            self.again = true;
            return;
        }
        let (open, cpus, rights) = (Arc::clone(&self.open), self.cpus.clone(), self.rights.clone());
        let (read, wake) = (self.read.0.clone(), self.wake.clone());
        let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            // The receiver lives for as long as the main thread serves.
            drop(read.send(next(&source, &open, &cpus, &rights)));
            wake.wake();
        });
        match thread {
            Ok(_) => self.step = Step::Reading,
            Err(error) => {
                let why = format!("cannot reload: no thread can be started: {error}; nothing has changed");
                self.end(why);
            }
        }
    }

    /// Takes what the thread has read, if it has: then the members make ready.
    pub(super) fn read(&mut self, members: &mut [Process]) {
        match self.read.1.try_recv() {
            Ok(Ok(mut next)) => {
                let Next { text, verbose, endpoints, given, .. } = &mut *next;
                let mut frames = match self.frames(text, *verbose, endpoints, given) {
                    Ok(frames) => frames.into_iter(),
                    Err(failure) => {
                        let file = self.file().display();
                        return self.end(format!("cannot reload {file}: {failure}; nothing has changed"));
                    }
                };
                for member in members.iter_mut() {
                    let Some((payload, sockets)) = frames.next() else { break };
                    member.tell(Down::Prepare, &payload, sockets);
                }
                self.step = Step::Preparing { next, left: members.len(), refused: None };
            }
            Ok(Err(lines)) => {
                let mut lines = lines;
                let last = lines.pop().unwrap_or_default();
                lines.iter().for_each(|line| say(line));
                self.end(last);
            }
            Err(_) => {}
        }
    }

    /// A member has answered.
    pub(super) fn answered(&mut self, node: NodeId, up: Up, said: &[u8]) {
        let said = String::from_utf8_lossy(said);
        match &mut self.step {
            Step::Preparing { left, refused, .. } if matches!(up, Up::Prepared | Up::Refused) => {
                *left -= 1;
                if up == Up::Refused && refused.is_none() {
                    *refused = Some(format!("the process of node {node}: {said}"));
                }
            }
            Step::Committing { left, wrong, .. } if up == Up::Committed => {
                *left -= 1;
                if !said.is_empty() {
                    wrong.push(format!("the process of node {node}: {said}"));
                }
            }
            _ => tracing::debug!(%node, ?up, "a process answers what nobody asked"),
        }
    }

    /// Goes on when all members have answered.
    pub(super) fn go_on(&mut self, members: &mut [Process]) {
        let tell_all = |members: &mut [Process], down: Down| {
            members.iter_mut().for_each(|member| member.tell(down, &[], Vec::new()));
        };
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Preparing { left: 0, refused: Some(why), .. } => {
                tell_all(members, Down::Abandon);
                self.end(format!("cannot reload {}: {why}; nothing has changed", self.file().display()));
            }
            Step::Preparing { mut next, left: 0, refused: None } => {
                let endpoints = std::mem::take(&mut next.endpoints.all);
                let closed = lock(&self.open).go_over(endpoints, next.endpoints.next);
                self.times.set(&next.config.program);
                tell_all(members, Down::Commit);
                self.step = Step::Committing { next, left: members.len(), closed, wrong: Vec::new() };
            }
            Step::Committing { next, left: 0, closed, wrong } => {
                let NextEndpoints { shown, new, .. } = &next.endpoints;
                tell(&next.config, shown, new, &closed);
                wrong
                    .iter()
                    .for_each(|why| say(&format!("{} is in force, but: {why}", self.file().display())));
                if !next.fixed.is_empty() {
                    say(&format!("{} takes a restart to change", next.fixed.join(", ")));
                }
                self.end(format!("{} is in force for new connections", self.file().display()));
            }
            step => self.step = step,
        }
    }

    fn file(&self) -> &Path {
        self.source.as_ref().map_or(Path::new("the file"), |source| &source.file)
    }

    /// What came of it is said last.
    fn end(&mut self, said: String) {
        say(&said);
        self.step = Step::Idle;
        if std::mem::take(&mut self.again) {
            self.request();
        } else {
            notify::tell(Message::Ready(said));
        }
    }

    /// Takes the files of Unix sockets away, before the members stop accepting.
    pub(super) fn close(&self) {
        match self.open.try_lock() {
            Ok(mut open) => open.remove_files(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().remove_files(),
            // The thread that reads has it, and nothing comes of that any more.
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// Reads the file, and opens what it listens on and nobody does yet.
fn next(
    source: &Source,
    open: &Mutex<OpenEndpoints>,
    cpus: &[CpuId],
    rights: &ConfineArgs,
) -> Result<Box<Next>, Vec<String>> {
    let file = &source.file;
    if lifecycle::stage() > Stage::Ready {
        return Err(vec!["cannot reload: the program is ending; nothing has changed".to_owned()]);
    }
    let loaded = config::load(file).map_err(|mut lines| {
        lines.push(format!("{} is wrong; nothing has changed", file.display()));
        lines
    })?;
    let cannot =
        |failure: Failure| vec![format!("cannot reload {}: {failure}; nothing has changed", file.display())];
    // The file may say otherwise, but that takes a restart.
    let mut config = loaded.read.config.clone();
    config.program.rights = rights.clone();
    let given = Given::find(&config).map_err(cannot)?;
    let open = lock(open);
    let keys = loaded.read.config.endpoints(open.passed());
    let endpoints = keys.and_then(|keys| open.plan(&keys, cpus));
    drop(open);
    let endpoints = endpoints.map_err(cannot)?;
    let fixed = loaded.read.keys.changed(&source.keys);
    let (config, text, verbose) = (loaded.read.config, loaded.text, loaded.read.verbose);
    Ok(Box::new(Next { config, text, verbose, fixed, endpoints, given }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
