//! How many processes serve.

/// How many processes serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Processes {
    /// One for each node, where that is something else than one for all.
    Auto,
    /// One for all cores.
    One,
    /// One for each node.
    Node,
    /// One for each core, so that tests see several on every machine.
    #[value(hide = true)]
    Core,
    /// The same, or one for all where no process can be started, as `Auto`.
    #[value(hide = true)]
    AutoCore,
}

impl Processes {
    /// Nobody insists on several.
    pub(crate) fn may_be_one(self) -> bool {
        matches!(self, Processes::Auto | Processes::AutoCore)
    }
}
