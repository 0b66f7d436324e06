//! What the report says of a step by which a pool has grown.

use std::fmt;
use std::ops::Range;

use crate::numa::region::Placement;

/// A step by which a core's pool has grown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Grown {
    /// What it holds: `receive buffers` or `blocks`.
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// How it was placed.
    pub placement: Placement,
    pub(crate) addresses: Range<usize>,
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grown by {} {}: {}", self.count, self.what, self.placement)
    }
}
