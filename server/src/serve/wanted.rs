//! What is asked of the files below ROOT.

use std::path::Path;

use crate::http::encoding::Coding;

/// The name of a file, and what it is asked for as.
pub(super) struct Wanted<'a> {
    /// Where it lies below ROOT.
    pub(super) path: &'a Path,
    /// What was asked for; another path where this one is the same in a coding.
    pub(super) original: &'a Path,
    pub(super) coding: Option<Coding>,
}

impl<'a> Wanted<'a> {
    /// The file that was asked for itself.
    pub(super) fn plain(path: &'a Path) -> Self {
        Self { path, original: path, coding: None }
    }
}
