//! What can be said about the rights of what serves.

use clap::Args;

/// The rights of the processes that serve. The one that was started keeps its own.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rights")]
pub(crate) struct ConfineArgs {
    /// Serve as this user, a name or a number: sockets are opened before, files after
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Serve with the system calls that serving takes, and with files below the parents of the roots only
    /// (seccomp; Landlock, Linux 5.13)
    #[arg(long)]
    pub(crate) confine: bool,
}

impl ConfineArgs {
    /// Whether a process of its own has to serve.
    pub(crate) fn is_asked(&self) -> bool {
        self.confine || self.user.is_some()
    }
}
