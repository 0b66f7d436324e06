//! What the admin server asks for its figures.

use crate::metrics::gather::Gatherer;
use crate::metrics::status::Status;

/// Knows the state of the program. Called by the thread that asks for the admin server.
pub(crate) trait Source: Send {
    /// The status at this moment. Must not wait for a core.
    fn status(&mut self) -> Status;
}

impl Source for Gatherer {
    fn status(&mut self) -> Status {
        self.gather()
    }
}
