//! What the cores of a node hold together: one table, one copy of each content, one budget.
//!
//! The content is written by a core of the node into memory of its own, which lies on the node
//! (`annulus::numa::thread`). A core searches here for what its own table does not have, and when it has read
//! something; a hit needs nothing of this. No core waits for another: one that finds the table in use goes on
//! without it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError, Weak};

use annulus::numa::CpuId;
use rustix::process::{Resource, getrlimit};

use super::policy::{Limit, Table};
use super::stored::Stored;
use crate::serve::options::{CacheSize, ServeArgs};

/// A name in the table: the directory that is served, by its sum, and the path with its coding.
pub(super) type Name = (u64, Arc<[u8]>);

/// The table of a node, for one set of rules.
pub(super) struct NodeCache {
    table: Mutex<Table<Name, Arc<Stored>>>,
    /// How many had to leave so far: cores let go of them when this has grown.
    left: AtomicU64,
}

/// The tables that there are: what they are for, and of which node.
static NODES: Mutex<Vec<(ServeArgs, u32, Weak<NodeCache>)>> = Mutex::new(Vec::new());

/// Open files that all caches of the process keep.
pub(super) static KEPT_FILES: AtomicU64 = AtomicU64::new(0);

/// How many open files caches may keep: half of the descriptors that the process may have when the first is
/// kept.
pub(super) fn most_files() -> u64 {
    static MOST: OnceLock<u64> = OnceLock::new();
    *MOST.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2)
}

/// The node of a CPU; 0 where the machine has none. Called when a core starts, so it may wait.
pub(super) fn of_cpu(cpu: CpuId) -> u32 {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}"));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut nodes = names.filter_map(|name| name.to_str()?.strip_prefix("node")?.parse().ok());
    nodes.next().unwrap_or(0)
}

impl NodeCache {
    /// The one of a node for files that are served as `args` say. Called when a core starts, so it may wait.
    pub(super) fn of(args: &ServeArgs, node: u32) -> Arc<Self> {
        let mut nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|(_, _, cache)| cache.strong_count() > 0);
        let known = nodes.iter().find(|(known, of, _)| *of == node && known == args);
        if let Some(cache) = known.and_then(|(_, _, cache)| cache.upgrade()) {
            return cache;
        }
        let CacheSize { bytes, entries } = args.cache;
        let entries = entries.min(usize::try_from(most_files()).unwrap_or(usize::MAX));
        let table = Mutex::new(Table::new(Limit { bytes, entries }));
        let cache = Arc::new(Self { table, left: AtomicU64::new(0) });
        nodes.push((args.clone(), node, Arc::downgrade(&cache)));
        cache
    }

    /// What is held under a name.
    pub(super) fn get(&self, name: &Name) -> Option<Arc<Stored>> {
        self.with(|table| table.get(name).cloned()).flatten()
    }

    /// Holds a version. False if it is not held.
    pub(super) fn insert(&self, name: Name, stored: &Arc<Stored>) -> bool {
        let left = self.with(|table| table.insert(name, Arc::clone(stored)));
        let Some(left) = left else { return false };
        if left > 0 {
            self.left.fetch_add(left, Ordering::Relaxed);
        }
        !stored.has_ended()
    }

    /// Forgets what is held under a name. Where the table is in use, the version stays in it and is marked as
    /// ended.
    pub(super) fn remove(&self, name: &Name) {
        self.with(|table| table.remove(name));
    }

    /// How many had to leave so far.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Has `act` use the table, unless another core does.
    fn with<T>(&self, act: impl FnOnce(&mut Table<Name, Arc<Stored>>) -> T) -> Option<T> {
        match self.table.try_lock() {
            Ok(mut table) => Some(act(&mut table)),
            Err(TryLockError::Poisoned(poisoned)) => Some(act(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
