//! Where connections are relayed to, as operators see and switch it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Whether an upstream gets connections, and why not; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Whether it gets connections: the worst of `views`.
    pub(crate) state: UpstreamState,
    /// How many relays find it in each state: each process finds out for itself, and so does each of two
    /// configurations after a reload, until the last connection of the old one has ended.
    pub(crate) views: BTreeMap<UpstreamState, u64>,
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

impl UpstreamStatus {
    /// Adds what another relay says of an upstream to `all`, where one has the same address and listener.
    pub(crate) fn add_to(self, all: &mut Vec<UpstreamStatus>) {
        let same = |of: &&mut UpstreamStatus| of.listener == self.listener && of.address == self.address;
        let Some(of_all) = all.iter_mut().find(same) else { return all.push(self) };
        of_all.state = of_all.state.max(self.state);
        self.views.into_iter().for_each(|(state, count)| *of_all.views.entry(state).or_default() += count);
        of_all.open += self.open;
        of_all.connections += self.connections;
        of_all.failures += self.failures;
        of_all.bytes_up += self.bytes_up;
        of_all.bytes_down += self.bytes_down;
    }

    /// Its state, and how many find it so where they differ: `up`, `down in 1 of 2`.
    pub(crate) fn said(&self) -> String {
        let name =
            UpstreamState::ALL.iter().find(|(state, _)| *state == self.state).map_or("", |(_, name)| name);
        match (self.views.get(&self.state), self.views.values().sum::<u64>()) {
            (Some(&so), all) if so < all => format!("{name} in {so} of {all}"),
            _ => name.to_owned(),
        }
    }
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

/// All upstreams, each listener and address once.
pub(crate) fn list() -> Vec<UpstreamStatus> {
    let mut all = Vec::new();
    REGISTRY.get().into_iter().flat_map(|upstreams| upstreams.list()).for_each(|of| of.add_to(&mut all));
    all
}

/// See [`Upstreams::set_in_service`].
pub(crate) fn set_in_service(address: &str, in_service: bool) -> bool {
    REGISTRY.get().is_some_and(|upstreams| upstreams.set_in_service(address, in_service))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two relays that are told apart by how they balance, or an old and a new configuration, have the same
    /// listener and address: a series that stood twice in the metrics would be refused. Seen to fail: with a
    /// list that is only appended to.
    #[test]
    fn one_address_of_one_listener_comes_once() {
        let of = |address: &str, state| UpstreamStatus {
            listener: "l".to_owned(),
            address: address.to_owned(),
            state,
            views: [(state, 1)].into(),
            open: 1,
            connections: 2,
            failures: 3,
            bytes_up: 4,
            bytes_down: 5,
        };
        let mut all = Vec::new();
        for (address, state) in
            [("a", UpstreamState::Down), ("b", UpstreamState::Up), ("a", UpstreamState::Up)]
        {
            of(address, state).add_to(&mut all);
        }
        let told: Vec<_> =
            all.iter().map(|of| (of.address.as_str(), of.said(), of.open, of.bytes_down)).collect();
        assert_eq!(told, [("a", "down in 1 of 2".to_owned(), 2, 10), ("b", "up".to_owned(), 1, 5)]);
    }
}
