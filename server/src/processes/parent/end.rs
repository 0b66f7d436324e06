//! How several processes end.

use crate::exit::Failure;

/// How it ended other than well.
#[derive(Debug)]
pub(crate) enum End {
    /// The platform lets this program start no process, and nothing has been done. One process may still
    /// serve.
    CannotStart(Failure),
    /// Whatever else: every process that was started has ended.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}
