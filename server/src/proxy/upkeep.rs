//! The tasks that keep the health and the addresses of upstreams up to date.

use std::sync::Arc;

use super::address::Target;
use super::upstreams::Upstreams;
use super::{checker, resolve};

/// Starts the tasks of `upstreams` on the current core. They end when nobody uses the upstreams any more.
pub(super) fn keep_up(upstreams: &Arc<Upstreams>) {
    for (place, upstream) in upstreams.list().iter().enumerate() {
        if let Target::Name(name, port) = upstream.target() {
            annulus::spawn(resolve::keep(Arc::downgrade(upstreams), place, name.clone(), *port)).detach();
        }
        if upstreams.args().check.is_some() {
            annulus::spawn(checker::keep(Arc::downgrade(upstreams), place)).detach();
        }
    }
}
