//! What a choice among upstreams is made by.

/// An upstream, as far as the choice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// A number that it keeps while others come and go.
    pub(crate) id: u64,
    /// Its weight, with what a slow start leaves of it. One without weight is not chosen.
    pub(crate) weight: u32,
    /// Connections that it has.
    pub(crate) load: usize,
}
