//! What is allowed: the layers of the library, and lists that may only shrink.

/// From the top down; a file belongs to the longest entry that its path begins with. Those of one line are
/// neighbours and may import each other.
pub(crate) const LAYERS: &[&[&str]] = &[
    &["launch", "guide"],
    &["transfer", "compat", "channel", "signal"],
    &["net", "fs", "pipe"],
    &["blocking", "time"],
    &["core", "cores", "task", "block_on", "calls"],
    &["op"],
    &["buf"],
    &["ring"],
    &["time/wheel", "time/wakes", "time/timers", "sync", "metrics"],
    &["contained", "error", "limits", "place", "blocking/pool"],
];

/// The arrows up that are left, from a file to an entry of `LAYERS`, and what takes them out. The list may
/// only shrink.
pub(crate) const UPWARD: &[(&str, &str, &str)] = &[
    ("buf/blocks.rs", "core", "a block is taken from the current core: a thread-local of `buf/` instead"),
    (
        "buf/lease.rs",
        "core",
        "a lease finds the core that it is dropped on: a thread-local of `buf/` instead",
    ),
    (
        "core/mod.rs",
        "net",
        "a core owns the queues of streams that wait for buffers: a type parameter instead",
    ),
    ("op/mod.rs", "core", "operations are handed the core: a context as a type parameter instead"),
    ("op/table.rs", "core", "as `op/mod.rs`"),
];

/// The circles of files of each crate: how many files each has, largest first. They may only shrink.
pub(crate) const CIRCLES: &[(&str, &[usize])] =
    &[("runtime/src", &[34]), ("numa/src", &[]), ("server/src", &[]), ("benches/src", &[])];

/// What a file may have, tests apart.
pub(crate) const LINES_OF_A_FILE: usize = 400;
/// Those that are longer. The list may only shrink.
pub(crate) const LONG_FILES: &[&str] = &["runtime/src/net/socket.rs"];

/// Folders whose comments are narrow. The others follow.
pub(crate) const NARROW: &[&str] = &["benches", "integration-tests", "layers", "numa", "runtime", "server"];

/// The layer of a file, counted from the top, and the entry that it belongs to. None for `lib.rs`, which only
/// shows what the others have.
pub(crate) fn layer_of(file: &str) -> Option<(usize, &'static str)> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let belongs =
        |entry: &str| path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let entries = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, entries)| entries.iter().map(move |entry| (layer, *entry)));
    entries.filter(|(_, entry)| belongs(entry)).max_by_key(|(_, entry)| entry.len())
}
