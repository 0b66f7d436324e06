//! Where connections are relayed to, as operators see and switch it.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Whether an upstream gets connections, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpstreamState {
    /// It gets connections.
    Up,
    /// It does not answer.
    Down,
    /// An operator has taken it out of service.
    Out,
}

impl UpstreamState {
    /// All of them, with their names.
    pub(crate) const ALL: [(UpstreamState, &'static str); 3] =
        [(UpstreamState::Up, "up"), (UpstreamState::Down, "down"), (UpstreamState::Out, "out")];
}

/// An upstream at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpstreamStatus {
    /// The listener whose connections it gets.
    pub(crate) listener: String,
    /// Its address: what operators call it by.
    pub(crate) address: String,
    /// Whether it gets connections.
    pub(crate) state: UpstreamState,
    /// Connections that are open now.
    pub(crate) open: u64,
    /// Connections that it has got.
    pub(crate) connections: u64,
    /// Connections that it did not take.
    pub(crate) failures: u64,
    /// Bytes that went to it.
    pub(crate) bytes_up: u64,
    /// Bytes that came from it.
    pub(crate) bytes_down: u64,
}

/// What knows the upstreams of this process. Called by the thread of the admin server: it must not wait for a
/// core.
pub(crate) trait Upstreams: Send + Sync {
    /// All of them, in the order of the configuration.
    fn list(&self) -> Vec<UpstreamStatus>;

    /// Puts an address into service or takes it out, for every listener that has it. Connections that are
    /// open stay. False where there is no such address.
    fn set_in_service(&self, address: &str, in_service: bool) -> bool;
}

static REGISTRY: OnceLock<Box<dyn Upstreams>> = OnceLock::new();

/// Makes the upstreams of this process known. The first call decides.
pub(crate) fn register(upstreams: Box<dyn Upstreams>) {
    drop(REGISTRY.set(upstreams));
}

/// All upstreams.
pub(crate) fn list() -> Vec<UpstreamStatus> {
    REGISTRY.get().map(|upstreams| upstreams.list()).unwrap_or_default()
}

/// See [`Upstreams::set_in_service`].
pub(crate) fn set_in_service(address: &str, in_service: bool) -> bool {
    REGISTRY.get().is_some_and(|upstreams| upstreams.set_in_service(address, in_service))
}
