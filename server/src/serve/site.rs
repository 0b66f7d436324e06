//! What the connections of one core share: the directory that is served, and how.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use annulus::fs::{Dir, Stat};
use annulus::transfer::Road;

use super::cache::Cache;
use super::deadlines::DeadlineArgs;
use super::facts::Facts;
use super::options::ServeArgs;
use super::roots::Roots;
use super::rules::Rules;
use super::sites::SiteConfig;
use super::{clock, local};
use crate::exit::Failure;
use crate::http::date::DateCache;
use crate::http::encoding::Coding;
use crate::http::request::After;
use crate::http::response::Moment;
use crate::log::access::AccessLog;

/// How often the name of ROOT is looked up, in milliseconds. Another directory of that name is served within
/// a second.
const CHECK_EVERY: u64 = 500;

/// What the connections of one core share.
pub(crate) struct Site {
    pub(super) args: ServeArgs,
    /// Those of `args`, which every client has at hand.
    pub(super) deadlines: Rc<DeadlineArgs>,
    pub(super) rules: Rules,
    root: RefCell<Root>,
    pub(super) road: Road,
    dates: RefCell<DateCache>,
    pub(super) cache: Rc<Cache>,
    pub(super) access: Rc<AccessLog>,
    /// Where heads are written, one at a time, before they are copied into what is sent.
    scratch: RefCell<Vec<u8>>,
}

/// All that a listener serves, on one core.
pub(crate) struct Sites {
    configs: Vec<SiteConfig>,
    /// For each configuration: its own site, and then one for each of its path rules.
    sites: Vec<Vec<Rc<Site>>>,
    is_superseded: Cell<bool>,
}

impl Sites {
    /// As `configs` say, on the current core; bulk goes by `road`. A request goes to the first site for its
    /// host, or to the last one.
    ///
    /// # Errors
    /// As for [`Site::open`].
    pub(crate) async fn open(
        configs: &[SiteConfig],
        road: Road,
        access: &Rc<AccessLog>,
        roots: &Roots,
    ) -> Result<Self, Failure> {
        let mut sites = Vec::new();
        for config in configs {
            let mut of_config = Vec::new();
            for args in config.all_args() {
                of_config.push(Rc::new(Site::open(args, road, Rc::clone(access), roots).await?));
            }
            sites.push(of_config);
        }
        Ok(Sites { configs: configs.to_vec(), sites, is_superseded: Cell::new(false) })
    }

    /// A newer configuration is in force: connections are closed after the request that they are at.
    pub(crate) fn supersede(&self) {
        self.is_superseded.set(true);
    }

    /// Whether a newer configuration is in force.
    pub(crate) fn is_superseded(&self) -> bool {
        self.is_superseded.get()
    }

    /// What answers requests that name no host and no path.
    pub(crate) fn last(&self) -> &Rc<Site> {
        self.sites.last().and_then(|of_config| of_config.first()).expect("a listener has a site")
    }

    /// Whether a request's host or path decides which site answers it.
    pub(crate) fn differ(&self) -> bool {
        self.sites.len() > 1 || self.sites.iter().any(|of_config| of_config.len() > 1)
    }

    /// What answers a request of `host` for `path`, which is decoded and relative to the root.
    pub(crate) fn of(&self, host: &[u8], path: &[u8]) -> &Rc<Site> {
        let at = self.configs.iter().position(|config| config.is_for(host)).unwrap_or(self.configs.len() - 1);
        let rule = self.configs[at].rule(path).map_or(0, |rule| rule + 1);
        &self.sites[at][rule]
    }
}

/// The directory that ROOT stood for when it was last looked up.
struct Root {
    dir: Dir,
    /// Device and inode.
    identity: (u64, u64),
    checked: u64,
}

impl Root {
    fn of(dir: Dir, checked: u64) -> std::io::Result<Self> {
        let stat = rustix::fs::fstat(dir.as_fd())?;
        Ok(Self { dir, identity: (stat.st_dev, stat.st_ino), checked })
    }
}

impl Site {
    /// The files that `args` say, on the current core; bulk goes by `road`.
    ///
    /// # Errors
    /// The directory is not there any more, or cannot be read.
    async fn open(
        args: &ServeArgs,
        road: Road,
        access: Rc<AccessLog>,
        roots: &Roots,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::input(format!("cannot ask for the file system of {}: {error}", args.root.display()))
        };
        let root = Root::of(roots.open(&args.root).await?, clock::now()).map_err(failed)?;
        let device = local::device(&root.dir).map_err(failed)?;
        Ok(Site {
            args: args.clone(),
            deadlines: Rc::new(args.deadlines),
            rules: Rules::new(args),
            cache: Cache::new(args, root.identity, device),
            root: RefCell::new(root),
            road,
            dates: RefCell::default(),
            access,
            scratch: RefCell::default(),
        })
    }

    /// The directory that is served.
    pub(super) fn root(&self) -> Dir {
        self.root.borrow().dir.clone()
    }

    /// Whether it is time to look for ROOT again.
    pub(super) fn is_root_due(&self, now: u64) -> bool {
        now - self.root.borrow().checked >= CHECK_EVERY
    }

    /// Looks up from time to time whether ROOT stands for another directory: a symbolic link that was
    /// changed, or a directory that was made again. While it stands for none, the former one is served.
    pub(super) async fn follow_root(&self, now: u64) {
        if !self.is_root_due(now) {
            return;
        }
        self.root.borrow_mut().checked = now;
        let found = match Dir::open(&self.args.root).await {
            Ok(dir) => Root::of(dir, now),
            Err(error) => {
                tracing::debug!(root = %self.args.root.display(), %error, "the directory to serve is not there");
                return;
            }
        };
        let Ok(found) = found else { return };
        if found.identity == self.root.borrow().identity {
            return;
        }
        tracing::info!(root = %self.args.root.display(), "another directory is served from now on");
        let device = local::device(&found.dir).unwrap_or(None);
        self.cache.start_over(found.identity, device);
        // What was replaced closes its descriptor after the borrow.
        let before = self.root.replace(found);
        drop(before);
    }

    /// Has `write` write something, and `read` read it.
    pub(super) fn written<T>(&self, write: impl FnOnce(&mut Vec<u8>), read: impl FnOnce(&[u8]) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        write(&mut scratch);
        read(&scratch)
    }

    /// What heads say of a file in this `coding`, which has this `stat`. `original` is the path that was
    /// asked for.
    pub(super) fn facts(&self, original: &Path, coding: Option<Coding>, stat: &Stat) -> Facts {
        let said = self.rules.of(original);
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        Facts::write((original, said), coding, stat, !self.args.no_precompressed, &mut scratch)
    }

    /// Has `write` write a head for this moment.
    pub(super) fn with_moment<T>(&self, after: After, write: impl FnOnce(Moment<'_>) -> T) -> T {
        write(Moment { dates: &mut self.dates.borrow_mut(), now: SystemTime::now(), after })
    }

    /// The operator's header lines for an answer about `path` that is no file.
    pub(super) fn lines(&self, path: &Path) -> String {
        if self.rules.is_empty() { String::new() } else { self.rules.of(path).lines }
    }
}
