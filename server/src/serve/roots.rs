//! Directories that the first process has opened for this one, which may not find them by itself.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use annulus::fs::Dir;

use crate::exit::Failure;

/// The directories, by the paths of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Roots(HashMap<PathBuf, OwnedFd>);

impl Roots {
    /// Adds one.
    pub(crate) fn insert(&mut self, path: PathBuf, root: OwnedFd) {
        self.0.insert(path, root);
    }

    /// The one of `path`, if it was opened.
    pub(crate) fn get(&self, path: &Path) -> Option<&OwnedFd> {
        self.0.get(path)
    }

    /// Opens the directory `path`: at the place that was opened, or by its path. What may be read there is
    /// for this process's own rights to say.
    ///
    /// # Errors
    /// It is not there, or must not be read.
    pub(crate) async fn open(&self, path: &Path) -> Result<Dir, Failure> {
        let Some(place) = self.get(path) else { return Ok(Dir::open(path).await?) };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::input(format!("cannot open directory {}: {error}", path.display()))
        };
        let place = place.try_clone().map_err(|error| failed(&error))?;
        let place = Dir::from_owned_fd(place)?;
        place.open_dir(".").await.map_err(|error| failed(&error))
    }
}
