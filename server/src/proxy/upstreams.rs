//! The upstreams of a relay: their addresses, their health, the connections of each. All cores share them,
//! and any thread may read them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use event_listener::{Event, EventListener};

use super::address::{Target, UpstreamAddress};
use super::balance::{Candidate, mix};
use super::health::{Fitness, Health, Policy};
use super::names;
use super::options::UpstreamArgs;
use crate::limits::{self, Counted, Key};
use crate::metrics::upstreams::{self as metrics, UpstreamState, UpstreamStatus};

/// All that are in use, of all relays of this process.
static ALL: Mutex<Vec<Weak<Upstreams>>> = Mutex::new(Vec::new());

/// The upstreams of a relay.
#[derive(Debug)]
pub(crate) struct Upstreams {
    args: UpstreamArgs,
    policy: Policy,
    list: Vec<Arc<Upstream>>,
    /// What waiting clients are counted under.
    waiting: Key,
    /// An upstream that was full may take a connection again.
    freed: Arc<Event>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Upstream {
    id: u64,
    target: Target,
    weight: u32,
    addresses: RwLock<Arc<[SocketAddr]>>,
    health: Mutex<Health>,
    /// Its health need not be asked: its fitness is 100.
    is_settled: AtomicBool,
    /// The operator has taken it out of service.
    is_disabled: AtomicBool,
    /// Its name has been looked up.
    is_found: AtomicBool,
    /// Of all upstreams of the relay.
    freed: Arc<Event>,
    /// Its connections of this process.
    active: AtomicUsize,
    /// What its connections are counted under, of all processes, where that matters.
    places: Key,
    connections: AtomicU64,
    failures: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// The upstreams of all relays of this process, in the order in which they came, for operators.
struct Known;

impl metrics::Upstreams for Known {
    fn list(&self) -> Vec<UpstreamStatus> {
        all().iter().flat_map(|of| of.list.iter().map(|it| it.status(&of.args)).collect::<Vec<_>>()).collect()
    }

    fn set_in_service(&self, address: &str, in_service: bool) -> bool {
        // All of them, not only the first.
        all().iter().filter(|of| of.set_in_service(address, in_service)).count() > 0
    }
}

fn all() -> Vec<Arc<Upstreams>> {
    locked(&ALL).iter().filter_map(Weak::upgrade).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstreams {
    /// Those that `args` name: all relays that say the same share them, on all cores and over a reload. Those
    /// that are new are handed to `keep_up` first.
    pub(super) fn of(args: &UpstreamArgs, keep_up: impl FnOnce(&Arc<Self>)) -> Arc<Self> {
        let mut all = locked(&ALL);
        all.retain(|known| known.strong_count() > 0);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|known| known.args == *args) {
            return known;
        }
        let this = Arc::new(Self::new(args));
        all.push(Arc::downgrade(&this));
        drop(all);
        keep_up(&this);
        // The first call decides.
        metrics::register(Box::new(Known));
        this
    }

    fn new(args: &UpstreamArgs) -> Self {
        // Relays that say the same share them in each process, and so they do in all.
        let said = format!("{args:?}");
        let freed = Arc::new(Event::new());
        let of = |(place, address)| {
            Arc::new(Upstream::new(address, limits::key((&said, place)), Arc::clone(&freed)))
        };
        let list: Vec<_> = args.addresses().enumerate().map(of).collect();
        let waiting = limits::key((&said, list.len()));
        Self { args: args.clone(), policy: args.policy(), list, waiting, freed }
    }

    pub(super) fn args(&self) -> &UpstreamArgs {
        &self.args
    }

    pub(super) fn list(&self) -> &[Arc<Upstream>] {
        &self.list
    }

    /// Takes the upstream of this name out of service, or into it again: it gets no new connections
    /// meanwhile. False if there is none of this name.
    fn set_in_service(&self, name: &str, is_in: bool) -> bool {
        let named = |upstream: &&Arc<Upstream>| upstream.target.to_string() == name;
        let set = |upstream: &Arc<Upstream>| upstream.is_disabled.store(!is_in, Ordering::Release);
        let is_there = self.list.iter().filter(named).map(set).count() > 0;
        self.freed.notify(usize::MAX);
        is_there
    }

    /// Whether connections are counted in the table of all processes: for a limit, and where several
    /// processes choose by how many there are.
    fn counts_all(&self) -> bool {
        self.args.upstream_max_connections.is_some()
            || (self.args.balance.looks_at_loads() && limits::are_shared())
    }

    /// Fills `into` with those that are available, without those that were `tried`. True where others have
    /// all the connections that they may have, or a name that is not looked up yet: then waiting may help.
    pub(super) fn candidates(&self, tried: &[usize], into: &mut Vec<Candidate>) -> bool {
        let mut is_full = false;
        for last_resort in [false, true] {
            into.clear();
            for (place, upstream) in self.list.iter().enumerate() {
                let was_tried = tried.contains(&place);
                let share = if was_tried { 0 } else { upstream.share(&self.policy, last_resort) };
                let load = match self.counts_all() {
                    true => limits::count(upstream.places),
                    false => upstream.active.load(Ordering::Relaxed),
                };
                let may_take = self.args.upstream_max_connections.is_none_or(|most| load < most)
                    && upstream.is_found.load(Ordering::Acquire);
                is_full |= share > 0 && !may_take;
                // A hundredth of a weight of one is something.
                let weight = if may_take { upstream.weight * share } else { 0 };
                into.push(Candidate { id: upstream.id, weight, load });
            }
            if is_full || into.iter().any(|candidate| candidate.weight > 0) {
                break;
            }
        }
        is_full
    }

    /// Is notified when a full upstream may take a connection again. Ask for it before the check that finds
    /// none.
    pub(super) fn freed(&self) -> EventListener {
        self.freed.listen()
    }

    /// A place among the clients that wait, if there is one.
    pub(super) fn wait(&self) -> Option<Counted> {
        limits::enter(self.waiting, self.args.queue)
    }

    /// Takes a place at the upstream of this number, to connect to it; `None` where another was faster and it
    /// has no place left.
    pub(super) fn take(self: &Arc<Self>, place: usize) -> Option<Attempt> {
        let upstream = &self.list[place];
        let most = self.args.upstream_max_connections.unwrap_or(usize::MAX);
        let counted = match self.counts_all() {
            true => Some(limits::enter(upstream.places, most)?),
            false => None,
        };
        upstream.active.fetch_add(1, Ordering::AcqRel);
        if !upstream.is_settled.load(Ordering::Acquire) {
            locked(&upstream.health).chosen();
        }
        Some(Attempt { taken: Some(Taken(Arc::clone(upstream), counted)), upstreams: Arc::clone(self) })
    }
}

/// A connection's place at an upstream, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Upstream>, Option<Counted>);

impl Taken {
    /// Nobody listens at the upstream after all.
    pub(super) fn refused(&self, upstreams: &Upstreams) {
        let policy = &upstreams.policy;
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        self.0.change(policy, |health, now| health.refused(policy, now));
    }

    /// The connection has carried so many bytes to the upstream and from it.
    pub(super) fn carried(&self, up: u64, down: u64) {
        self.0.carried(up, down);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
        if self.1.take().is_some() {
            self.0.freed.notify(1);
        }
    }
}

/// An attempt to connect, which tells what came of it. Dropped, it was given up.
#[derive(Debug)]
pub(super) struct Attempt {
    taken: Option<Taken>,
    upstreams: Arc<Upstreams>,
}

impl Attempt {
    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.taken.as_ref().expect("taken at its end only").0
    }

    /// There is a connection, which keeps the place.
    pub(super) fn connected(mut self) -> Taken {
        let upstream = self.upstream();
        upstream.connections.fetch_add(1, Ordering::Relaxed);
        if !upstream.is_settled.load(Ordering::Acquire)
            && upstream.change(&self.upstreams.policy, |health, now| health.connected(now))
        {
            tracing::warn!(upstream = %upstream.target, "the upstream can be reached again");
        }
        self.taken.take().expect("taken here only")
    }

    /// There is none.
    pub(super) fn refused(mut self) {
        let (upstream, policy) = (self.upstream(), &self.upstreams.policy);
        upstream.failures.fetch_add(1, Ordering::Relaxed);
        upstream.change(policy, |health, now| health.refused(policy, now));
        drop(self.taken.take());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            locked(&taken.0.health).abandoned();
        }
    }
}

impl Upstream {
    fn new(address: &UpstreamAddress, places: Key, freed: Arc<Event>) -> Self {
        let addresses: Arc<[SocketAddr]> = match &address.target {
            Target::Ip(address) => Arc::new([*address]),
            Target::Name(name, port) => names::found_at_start(name, *port).into(),
            Target::Unix(_) => Arc::new([]),
        };
        let is_found = !addresses.is_empty() || matches!(address.target, Target::Unix(_));
        // The same on all machines, so that several relays send a client to the same upstream.
        let id = address.target.to_string().bytes().fold(0, |id, byte| mix(id ^ u64::from(byte)));
        Self {
            id,
            target: address.target.clone(),
            weight: address.weight,
            addresses: RwLock::new(addresses),
            health: Mutex::new(Health::new()),
            is_settled: AtomicBool::new(true),
            is_disabled: AtomicBool::new(false),
            is_found: AtomicBool::new(is_found),
            freed,
            active: AtomicUsize::new(0),
            places,
            connections: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// What it stands for now; nothing for a Unix socket.
    pub(super) fn addresses(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.addresses.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// False if they are the same as before, in whatever order: servers of DNS change that all the time.
    pub(super) fn set_addresses(&self, addresses: Vec<SocketAddr>) -> bool {
        let mut known = self.addresses.write().unwrap_or_else(PoisonError::into_inner);
        let is_in = |address: &SocketAddr| known.contains(address);
        let is_other = known.len() != addresses.len() || !addresses.iter().all(is_in);
        if **known != *addresses {
            *known = addresses.into();
        }
        self.is_found.store(!known.is_empty(), Ordering::Release);
        self.freed.notify(usize::MAX);
        is_other
    }

    /// A check has been made.
    pub(super) fn checked(&self, upstreams: &Upstreams, is_well: bool, why: &str) {
        let policy = &upstreams.policy;
        if self.change(policy, |health, now| health.checked(policy, now, is_well)) {
            match is_well {
                true => tracing::warn!(upstream = %self.target, "the upstream is up again, by its checks"),
                false => tracing::warn!(upstream = %self.target, why, "the upstream is down, by its checks"),
            }
        }
    }

    fn change(&self, policy: &Policy, change: impl FnOnce(&mut Health, Instant) -> bool) -> bool {
        let now = Instant::now();
        let mut health = locked(&self.health);
        let has_changed = change(&mut health, now);
        self.is_settled.store(health.is_settled(policy, now), Ordering::Release);
        if has_changed {
            self.freed.notify(usize::MAX);
        }
        has_changed
    }

    /// The percentage of its weight that it has now.
    fn share(&self, policy: &Policy, last_resort: bool) -> u32 {
        if self.is_disabled.load(Ordering::Acquire) {
            return 0;
        }
        if self.is_settled.load(Ordering::Acquire) {
            return 100;
        }
        let now = Instant::now();
        let health = locked(&self.health);
        match health.fitness(policy, now) {
            Fitness::Fit(share) => {
                self.is_settled.store(health.is_settled(policy, now), Ordering::Release);
                share
            }
            Fitness::LastResort if last_resort => 100,
            Fitness::LastResort | Fitness::Unfit => 0,
        }
    }

    /// A connection has carried so many bytes to it and from it.
    fn carried(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Ordering::Relaxed);
        self.bytes_down.fetch_add(down, Ordering::Relaxed);
    }

    fn status(&self, args: &UpstreamArgs) -> UpstreamStatus {
        let state = match locked(&self.health).is_up() {
            _ if self.is_disabled.load(Ordering::Acquire) => UpstreamState::Out,
            true => UpstreamState::Up,
            false => UpstreamState::Down,
        };
        UpstreamStatus {
            listener: args.written(),
            address: self.target.to_string(),
            state,
            views: [(state, 1)].into(),
            open: self.active.load(Ordering::Relaxed) as u64,
            connections: self.connections.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            bytes_up: self.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
