//! What the report says of one growth step of a pool.

use std::fmt;
use std::ops::Range;

use crate::numa::region::Placement;

/// One step by which a core's pool has grown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Grown {
    /// What was added: `receive buffers` or `blocks`.
    pub what: &'static str,
    /// How many were added.
    pub count: usize,
    /// How their memory was placed.
    pub placement: Placement,
    pub(crate) addresses: Range<usize>,
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grown by {} {}: {}", self.count, self.what, self.placement)
    }
}
