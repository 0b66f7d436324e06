//! As many descriptors as the process may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on descriptors to the hard one, as servers do: the usual soft limit of 1,024 stands for programs
/// that use `select(2)` (`getrlimit(2)`). Where that is refused the limit stays, and accepting is careful near it.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if limit.current == before {
        return;
    }
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(?before, now = ?limit.current, "raised the limit on descriptors"),
        Err(error) => tracing::debug!(?before, %error, "the limit on descriptors stays as it is"),
    }
}
