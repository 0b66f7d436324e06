//! What a server of files can be told.

use std::path::PathBuf;

use clap::Args;

/// How files are served. Each field is a flag of `annulus serve` and a key of a listener that has a `root`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ServeArgs {
    /// The directory to serve; nothing outside of it can be reached
    #[arg(value_name = "ROOT", default_value = ".")]
    pub(crate) root: PathBuf,
}
