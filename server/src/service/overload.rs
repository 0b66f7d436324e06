//! When a new connection goes to another core.

/// The nearest core that is to serve a new connection in place of this one; `None` where it stays.
///
/// The kernel deals connections out by a hash, whatever they cost. A core whose tasks queue up hands new ones
/// on to the nearest core that has less than half as much to do: first one that shares its caches, then one
/// of the node, then one of another node. Only new ones: what belongs to a connection (its upstream, its
/// pipe, its buffers) is made where it is served, and stays there. One that is handed on is never handed on
/// again.
pub(super) fn whom_to_ask() -> Option<usize> {
    // At the end every core sees to its own.
    if annulus::cores::is_stopping() { None } else { annulus::cores::least_loaded_neighbour() }
}
