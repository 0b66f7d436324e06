//! One state of the configuration, with the sockets that belong to it: what the cores of this process serve.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Configuration;
use crate::listen::endpoint::{Endpoint, EndpointId};
use crate::serve::roots::Roots;

/// A configuration, and of each of its listeners the endpoints.
#[derive(Debug)]
pub(crate) struct Generation {
    /// What to do.
    pub(crate) config: Configuration,
    /// Of each listener, what it accepts from, in the order given.
    pub(crate) ids: Vec<Vec<EndpointId>>,
    /// The sockets of those that no core has yet.
    pub(crate) new: HashMap<EndpointId, Arc<Endpoint>>,
    /// Directories that were opened for this process.
    pub(crate) roots: Roots,
}
