//! How the program ends when it ends badly: one line that names cause and remedy, and an exit code.

use std::fmt;
use std::process::ExitCode;

use annulus::ErrorKind;

pub(crate) use crate::log::{say, speak_as};

/// Why the program ends, and what its exit code says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Exit code 1: it failed while running.
    Failed,
    /// Exit code 2: what the user asked for cannot be had (a bad flag, no such directory, a port in use).
    Input,
    /// Exit code 3: the platform refuses what Annulus cannot do without.
    Platform,
}

impl Kind {
    /// What an exit code other than 0 says; `None` for one that this program does not end with.
    pub(crate) fn of_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Kind::Failed),
            2 => Some(Kind::Input),
            3 => Some(Kind::Platform),
            _ => None,
        }
    }

    /// What an error of the runtime means for the exit code.
    pub(crate) fn of(error: &annulus::Error) -> Self {
        match error.kind() {
            ErrorKind::Input => Kind::Input,
            ErrorKind::Platform => Kind::Platform,
            _ => Kind::Failed,
        }
    }
}

/// A reason to end with an exit code other than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    text: String,
    told: bool,
}

impl Failure {
    /// A failure told by `text`: one line, cause first, then the remedy.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Failure { kind, text: text.into(), told: false }
    }

    /// One that another process has told already, as a line of its own.
    pub(crate) fn told(kind: Kind, text: impl Into<String>) -> Self {
        Failure { kind, text: text.into(), told: true }
    }

    /// Exit code 1, for an operation of our own that the system refused.
    pub(crate) fn failed(doing: &str, error: impl fmt::Display) -> Self {
        Failure::new(Kind::Failed, format!("{doing}: {error}"))
    }

    /// Exit code 2.
    pub(crate) fn input(text: impl Into<String>) -> Self {
        Failure::new(Kind::Input, text)
    }

    /// What kind of ending this is.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it has been told already.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        match self.kind {
            Kind::Failed => ExitCode::from(1),
            Kind::Input => ExitCode::from(2),
            Kind::Platform => ExitCode::from(3),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<annulus::Error> for Failure {
    fn from(error: annulus::Error) -> Self {
        let text = error.to_string();
        let few =
            matches!(error.io_error().and_then(|e| e.raw_os_error()), Some(libc::EMFILE | libc::ENFILE));
        match few {
            true if text.contains("RLIMIT_NOFILE") => Failure::new(Kind::Platform, text),
            true => Failure::new(Kind::Platform, format!("{text}; raise RLIMIT_NOFILE (ulimit -n)")),
            false => Failure::new(Kind::of(&error), text),
        }
    }
}

impl From<annulus::numa::Error> for Failure {
    fn from(error: annulus::numa::Error) -> Self {
        annulus::Error::from(error).into()
    }
}
