//! The one error type of the runtime: what failed, on what, and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Ok(value)` of a [`Result`], for the last line of an async block whose error type cannot be inferred.
///
/// ```
/// let task = async { annulus::Ok(7) };
/// ```
///
/// # Errors
/// None.
#[allow(non_snake_case, reason = "it stands for the variant")]
pub fn Ok<T>(value: T) -> Result<T> {
    Result::Ok(value)
}

/// The kind of an error. It suffices to choose an exit code or a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller named something that does not exist, is taken, or is not allowed.
    Input,
    /// The machine refuses something that the runtime needs (`io_uring` off, kernel too old).
    Platform,
    /// An operation failed; [`Error::io_error`] has the cause.
    Io,
    /// An earlier send on this stream was dropped half-way, so an unknown prefix of it has left.
    WritePoisoned,
    /// A core's root future panicked, or work that was sent to a core.
    Panicked,
    /// The core that was to do it has ended, before or meanwhile.
    Ended,
    /// The application's own error, from [`Error::other`].
    Other,
}

/// An error that says what failed, on what, and what to do.
///
/// `Display` prints one line. [`std::error::Error::source`] returns the operating system's error where there
/// is one. `Debug` prints that line too, followed by the causes of the source, because `main() ->
/// annulus::Result<()>` prints an error by `Debug`. `{:#?}` prints the fields.
///
/// ```
/// let error = annulus::Runtime::builder().ring_entries(1).build().unwrap_err();
/// assert_eq!(format!("{error:?}"), "a ring of 1 entries cannot be; choose 8 to 32768");
/// ```
pub struct Error {
    kind: ErrorKind,
    what: Cow<'static, str>,
    source: Option<Source>,
}

#[derive(Debug)]
enum Source {
    Io(io::Error),
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An error of `kind`, described by `what` (one line, no trailing stop).
    pub fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// An error of `kind` caused by the operating system while doing `what`.
    pub fn with_source(kind: ErrorKind, what: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self { kind, what: what.into(), source: Some(Source::Io(source)) }
    }

    /// An input or output error that happened while doing `what`.
    pub fn io(what: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self::with_source(ErrorKind::Io, what, source)
    }

    /// The application's own error, so that a root future can return it:
    /// `...map_err(annulus::Error::other)?`.
    pub fn other(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind: ErrorKind::Other, what: Cow::Borrowed(""), source: Some(Source::Other(source.into())) }
    }

    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operating system's error behind this one, if there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.source {
            Some(Source::Io(e)) => Some(e),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Io(e) => e.fmt(f),
            Source::Other(e) => e.fmt(f),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.what.is_empty()) {
            (Some(source), true) => write!(f, "{source}"),
            (Some(source), false) => write!(f, "{}: {source}", self.what),
            (None, _) => f.write_str(&self.what),
        }
    }
}

/// The line of `Display`, and the causes of its source, which is the last thing in that line.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, source } = self;
        if f.alternate() {
            let mut fields = f.debug_struct("Error");
            return fields.field("kind", kind).field("what", what).field("source", source).finish();
        }
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self).and_then(std::error::Error::source);
        while let Some(behind) = cause {
            write!(f, ": {behind}")?;
            cause = behind.source();
        }
        fmt::Result::Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(Source::Io(e)) => Some(e),
            Some(Source::Other(e)) => Some(&**e),
            None => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self { kind: ErrorKind::Io, what: Cow::Borrowed(""), source: Some(Source::Io(source)) }
    }
}

impl From<annulus_numa::Error> for Error {
    fn from(e: annulus_numa::Error) -> Self {
        let kind = match e.kind() {
            annulus_numa::ErrorKind::Input => ErrorKind::Input,
            annulus_numa::ErrorKind::Platform => ErrorKind::Platform,
            _ => ErrorKind::Io,
        };
        // Its line has its cause already.
        match e.io_error().and_then(io::Error::raw_os_error) {
            Some(libc::EMFILE | libc::ENFILE) => {
                Self::new(ErrorKind::Platform, format!("{e}; raise RLIMIT_NOFILE (ulimit -n)"))
            }
            _ => Self::new(kind, e.to_string()),
        }
    }
}

/// The operating system's error for `errno`, as rustix names it, as the standard library's type.
pub(crate) fn os(errno: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|behind| behind as _)
        }
    }

    /// Seen to fail: with `Debug` derived, which prints the fields.
    #[test]
    fn what_main_ends_with_is_a_line_with_every_cause() {
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        let text = format!("{:?}", Error::io("cannot open the log", denied()));
        assert_eq!(text, format!("cannot open the log: {}", denied()));
        let layers =
            Layer("no settings", Some(Box::new(Layer("line 3", Some(Box::new(Layer("no number", None)))))));
        assert_eq!(format!("{:?}", Error::other(layers)), "no settings: line 3: no number");
        let remedy = Error::new(ErrorKind::Platform, "no ring; allow io_uring_setup");
        assert_eq!(format!("{remedy:?}"), "no ring; allow io_uring_setup");
        assert!(format!("{remedy:#?}").contains("kind: Platform"));
    }
}
