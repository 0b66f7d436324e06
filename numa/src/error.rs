//! Errors: one line that says what failed, on what, and what to do about it.

use std::{error, fmt, io};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act when something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller named something that does not exist or is not allowed: a CPU, a node, a list that cannot be
    /// parsed.
    Input,
    /// The machine, the kernel or the container does not give what is needed.
    Platform,
    /// Reading or calling the system failed in a way that is neither of the two.
    Io,
}

/// A failure. `Display` is one line with cause and remedy. `source()` is the system's error where there was
/// one. `Debug` is the same line, because a `main` that returns the error prints it by `Debug`; `{:#?}`
/// prints the fields.
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<io::Error>,
}

impl Error {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The system's error behind it, if there was one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    pub(crate) fn input(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Input, text: text.into(), source: None }
    }

    pub(crate) fn platform(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Platform, text: text.into(), source: None }
    }

    /// `what` failed with `source`; `remedy` is what a person can do.
    pub(crate) fn io(what: impl fmt::Display, source: io::Error, remedy: &str) -> Self {
        Self { kind: ErrorKind::Io, text: format!("{what}: {source}; {remedy}"), source: Some(source) }
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, text, source } = self;
        if f.alternate() {
            let mut fields = f.debug_struct("Error");
            return fields.field("kind", kind).field("text", text).field("source", source).finish();
        }
        f.write_str(text)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: with `Debug` derived, which prints the fields.
    #[test]
    fn what_main_ends_with_is_one_line() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let error = Error::io("cannot bind memory", refused, "allow mbind");
        assert_eq!(format!("{error:?}"), error.to_string());
        assert!(format!("{error:#?}").contains("kind: Io"));
    }
}
