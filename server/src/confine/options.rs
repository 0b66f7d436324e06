//! The options for the rights of serving processes.

use clap::Args;

/// The rights of the processes that serve. The process that was started keeps its own.
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
    /// Whether another process has to serve.
    pub(crate) fn is_asked(&self) -> bool {
        self.confine || self.user.is_some()
    }
}
