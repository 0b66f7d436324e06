//! `annulus serve`: the files below a directory, over HTTP/1.1.

mod cache;
pub(crate) mod connection;
mod deadline_timer;
mod files;
mod local;
pub(crate) mod options;
mod parts;
mod respond;
mod send;
pub(crate) mod sites;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use annulus::fs::Dir;
use annulus::transfer::Road;
use cache::Cache;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::exit::Failure;
use crate::http::date::DateCache;
use crate::log::access::AccessLog;
use crate::serve::options::ServeArgs;
use crate::serve::sites::SiteConfig;

/// Files up to this size, in bytes, are read into memory and leave together with their head in one send; larger ones
/// are spliced.
///
/// CPU per request on a shared 2-core machine, loopback, 64 keep-alive connections, hot page cache, inline road, median
/// of three: 8 KiB: send 17 us, splice 16; 16 KiB: 26 and 16; 32 KiB: 39 and 19; 64 KiB: 47 and 24. By the ring road a
/// splice costs more: 8 KiB: send 19 us, splice 25; 64 KiB: 47 and 30. So the two meet near here on either road.
pub(crate) const SMALL_FILE: u64 = 8 * 1024;

/// Files up to this size, in bytes, go the same way when they are not in memory: the ring reads them into a block of the
/// core, which takes no thread of the kernel's, where a splice from the disk would (README, "Which road").
pub(crate) const SMALL_COLD_FILE: u64 = 64 * 1024;

/// How long a connection may stay open between two requests.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a request head may take from its first byte to its last, however slowly it drips.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one send may take: the whole of a small answer, or [`SEND_STEP`] bytes of a large one. A client that
/// takes less than 35 kB a second is cut, so that nobody holds a connection for ever by reading a byte now and then.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of a large file is sent under one [`SEND_TIMEOUT`], in bytes.
pub(crate) const SEND_STEP: u64 = 2 * 1024 * 1024;

/// How long a client that connected just before the end may take to send its first request.
pub(crate) const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// What the connections of one core share.
pub(crate) struct Site {
    root: Dir,
    road: Road,
    dates: RefCell<DateCache>,
    cache: Rc<Cache>,
    access: Rc<AccessLog>,
    /// Where heads are written, one at a time, before they are copied to where they leave from.
    scratch: RefCell<Vec<u8>>,
}

/// All that a listener serves, on one core.
pub(crate) struct Sites {
    configs: Vec<SiteConfig>,
    /// Of each, what it says itself, and then each of its rules.
    sites: Vec<Vec<Rc<Site>>>,
}

impl Sites {
    /// As `configs` have it, on the current core; bulk goes by `road`. The first site that is for a request's host has it, and without one
    /// that is, the last.
    ///
    /// # Errors
    /// As for [`Site::open`].
    pub(crate) async fn open(
        configs: &[SiteConfig],
        road: Road,
        access: &Rc<AccessLog>,
    ) -> Result<Self, Failure> {
        let mut sites = Vec::new();
        for config in configs {
            let mut of_config = Vec::new();
            for args in config.all_args() {
                of_config.push(Rc::new(Site::open(args, road, Rc::clone(access)).await?));
            }
            sites.push(of_config);
        }
        Ok(Sites { configs: configs.to_vec(), sites })
    }

    /// What answers requests that name no host and no path.
    pub(crate) fn last(&self) -> &Rc<Site> {
        self.sites.last().and_then(|of_config| of_config.first()).expect("a listener has a site")
    }

    /// Whether what a request is for decides what answers it.
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

impl Site {
    /// The files that `args` say, on the current core; bulk goes by `road`.
    ///
    /// # Errors
    /// The directory is not there any more, or cannot be read.
    pub(crate) async fn open(args: &ServeArgs, road: Road, access: Rc<AccessLog>) -> Result<Self, Failure> {
        let root = Dir::open(&args.root).await?;
        let device = local::device(&root).map_err(|e| {
            Failure::input(format!("cannot ask for the file system of {}: {e}", args.root.display()))
        })?;
        Ok(Site {
            root,
            road,
            dates: RefCell::default(),
            cache: Rc::new(Cache::new(device)),
            access,
            scratch: RefCell::default(),
        })
    }

    /// Has `write` write something, and `read` read it.
    fn written<T>(&self, write: impl FnOnce(&mut Vec<u8>), read: impl FnOnce(&[u8]) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        write(&mut scratch);
        read(&scratch)
    }
}

/// Makes sure, before anything starts, that `root` is a directory whose files can be reached.
///
/// # Errors
/// [`crate::exit::Kind::Input`], with the remedy.
pub(crate) fn check_root(root: &Path) -> Result<(), Failure> {
    let look = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(root, flags, Mode::empty())?;
        // Reading a directory and reaching what is in it are two rights.
        rustix::fs::statat(&directory, ".", AtFlags::empty())
    };
    let Err(errno) = look() else {
        return Ok(());
    };
    let remedy = match errno {
        Errno::NOENT => "name a directory that exists",
        Errno::NOTDIR => "name the directory that holds the files",
        Errno::ACCESS => "change its rights, or serve as a user who may read it",
        _ => "name another directory",
    };
    let cause = std::io::Error::from(errno);
    Err(Failure::input(format!("cannot serve {}: {cause}: {remedy}", root.display())))
}

#[cfg(test)]
mod tests {
    use crate::exit::Kind;

    use super::*;

    #[test]
    fn a_root_must_be_a_directory() {
        assert!(check_root(Path::new(".")).is_ok());
        for (bad, word) in [("/no/such/place", "No such file"), ("Cargo.toml", "Not a directory")] {
            let failure = check_root(Path::new(bad)).unwrap_err();
            assert_eq!(failure.kind(), Kind::Input);
            let text = failure.to_string();
            assert!(text.contains(bad) && text.contains(word) && !text.contains('\n'), "{text}");
        }
    }
}
