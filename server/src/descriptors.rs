//! As many descriptors as the process may have.

use crate::exit::{Failure, Kind};
use rustix::process::{Resource, getrlimit, setrlimit};

/// What a client takes beside its connection: a file, an upstream, a pipe each way.
const FOR_ONE_CLIENT: u64 = 6;

/// Checks that the descriptors left by all listeners are enough for a client on each core and for what it
/// asks for.
///
/// # Errors
/// [`Kind::Platform`] when not.
pub(crate) fn must_do_for_clients(cores: usize) -> Result<(), Failure> {
    let (cores, limit) = (cores as u64, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    if annulus::net::connections_left() >= cores && limit / 4 >= FOR_ONE_CLIENT {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Platform,
        format!(
            "with {limit} descriptors no client can be served beside what the program has open itself; raise RLIMIT_NOFILE (ulimit -n; \
             systemd: LimitNOFILE=) to 64 and {} for each core, or run on fewer cores",
            FOR_ONE_CLIENT + 4
        ),
    ))
}

/// Raises the soft limit on descriptors to the hard one, as servers do: the usual soft limit of 1,024 stands
/// for programs that use `select(2)` (`getrlimit(2)`). Where that is refused the limit stays, and accepting
/// is careful near it.
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
