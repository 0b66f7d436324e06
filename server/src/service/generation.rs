//! One state of the configuration, with the sockets that belong to it: what the cores of this process serve.

use std::sync::Arc;

use crate::config::Configuration;
use crate::limits::Totals;
use crate::listen::endpoint::Endpoint;

/// A configuration, and of each of its listeners the endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    /// What to do.
    pub(crate) config: Arc<Configuration>,
    /// Of each listener, what it accepts from, in the order given.
    pub(crate) endpoints: Vec<Vec<Arc<Endpoint>>>,
    /// Of each listener, how many connections it has on all cores.
    totals: Vec<Arc<Totals>>,
}

impl Generation {
    /// Of a configuration, and of each of its listeners what it accepts from.
    pub(crate) fn new(config: Arc<Configuration>, endpoints: Vec<Vec<Arc<Endpoint>>>) -> Self {
        let totals = config.listeners.iter().map(|_| Arc::default()).collect();
        Generation { config, endpoints, totals }
    }

    /// What is counted for the listener of this number.
    pub(crate) fn totals(&self, listener: usize) -> Arc<Totals> {
        Arc::clone(&self.totals[listener])
    }
}
