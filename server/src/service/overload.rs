//! When a new connection goes to another core.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// Connections on their way from one core to another. No core ends while there are any.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A connection on its way, until this is dropped.
pub(super) struct UnderWay(());

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether connections are on their way to a core. With a stop asked for before, no more set out.
pub(super) fn are_under_way() -> bool {
    fence(Ordering::SeqCst);
    UNDER_WAY.load(Ordering::Acquire) > 0
}

/// The nearest core that is to serve a new connection in place of this one; `None` where it stays.
///
/// The kernel deals connections out by a hash, whatever they cost. A core whose tasks queue up hands new ones
/// on to the nearest core that has less than half as much to do: first one that shares its caches, then one
/// of the node, then one of another node. Only new ones: what belongs to a connection (its upstream, its
/// pipe, its buffers) is made where it is served, and stays there. One that is handed on is never handed on
/// again.
pub(super) fn whom_to_ask() -> Option<(usize, UnderWay)> {
    let core = annulus::cores::least_loaded_neighbour()?;
    UNDER_WAY.fetch_add(1, Ordering::AcqRel);
    let under_way = UnderWay(());
    // Counted before this is asked: whoever ends has asked for the stop before it reads the count.
    fence(Ordering::SeqCst);
    // At the end every core sees to its own.
    if annulus::cores::is_stopping() { None } else { Some((core, under_way)) }
}
