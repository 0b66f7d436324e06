//! One state of the configuration, with the sockets that belong to it: what the cores of this process serve.

use std::sync::Arc;

use crate::config::Configuration;
use crate::listen::endpoint::Endpoint;

/// A configuration, and of each of its listeners the endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    /// What to do.
    pub(crate) config: Arc<Configuration>,
    /// Of each listener, what it accepts from, in the order given.
    pub(crate) endpoints: Vec<Vec<Arc<Endpoint>>>,
}
