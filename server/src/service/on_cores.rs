//! Something that every core of this process does, from a thread that is no core's.

use annulus::Handle;

use crate::exit::Failure;

/// Runs what `make` makes on every core, one after the other; stops at the first that fails.
///
/// # Errors
/// That of a core, or that one has come to its end.
pub(crate) fn on_all<F, G>(cores: &Handle, make: F) -> Result<(), Failure>
where
    F: Fn() -> G,
    G: AsyncFnOnce() -> Result<(), Failure> + Send + 'static,
{
    for core in 0..cores.cores() {
        let answered = cores.submit_to_blocking(core, make());
        answered.map_err(|error| Failure::failed("a core does not answer", error))??;
    }
    Ok(())
}
