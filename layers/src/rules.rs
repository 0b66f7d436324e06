//! What is allowed: the layers of the library and of the program, and lists that may only shrink.

/// A layer: the files and folders that belong to it, and what it is.
pub(crate) struct Layer {
    /// Paths without `.rs`. A file belongs to the longest one that its path begins with. The entries of one
    /// layer may import each other.
    pub(crate) entries: &'static [&'static str],
    /// What ARCHITECTURE.md says of it.
    pub(crate) what: &'static str,
}

const fn layer(entries: &'static [&'static str], what: &'static str) -> Layer {
    Layer { entries, what }
}

/// The layers of a crate.
pub(crate) struct Layers {
    /// Where its files are, for what is printed.
    pub(crate) folder: &'static str,
    /// From the top down.
    pub(crate) layers: &'static [Layer],
    /// The arrows up that are left, from a file to an entry of a layer, and what takes them out. The list may
    /// only shrink.
    pub(crate) upward: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) const LIBRARY: Layers = Layers {
    folder: "runtime/src",
    layers: &[
        layer(&["launch", "guide"], "starts cores, watches and ends them"),
        layer(
            &["transfer", "compat", "channel", "process", "signal", "waits"],
            "what is built from the rest",
        ),
        layer(
            &["net", "fs", "pipe", "fd", "operation"],
            "sockets, files, pipes, any descriptor; operations on sockets",
        ),
        layer(&["blocking", "time"], "threads for closures that block; the futures of timers"),
        layer(
            &["core", "cores", "task", "block_on", "calls"],
            "what a core owns, its loop, its tasks, the futures of operations",
        ),
        layer(&["op"], "operations, their life and memory"),
        layer(&["buf"], "receive buffers, leases, blocks"),
        layer(&["ring"], "the io_uring itself"),
        layer(
            &["time/wheel", "time/wakes", "time/timers", "sync", "metrics"],
            "timers as data; what threads share; counters",
        ),
        layer(
            &["clock", "contained", "current", "error", "limits", "place", "privilege", "blocking/pool"],
            "what imports nothing of ours",
        ),
    ],
    upward: &[],
};

pub(crate) const PROGRAM: Layers = Layers {
    folder: "server/src",
    layers: &[
        layer(&["cli"], "the commands"),
        layer(&["supervise", "processes/parent"], "the main thread: signals, and the processes of all nodes"),
        layer(
            &["admin", "orders", "stats", "upgrade"],
            "what operators ask, order and read; a new program in this one's place",
        ),
        layer(&["processes"], "one process for each node: members, and what is said between processes"),
        layer(&["service"], "the services of a core, and reloads"),
        layer(&["config"], "what the program is to do, from flags or a file"),
        layer(&["serve", "proxy"], "files over HTTP, and relayed connections"),
        layer(&["doctor", "roads", "numa_bench"], "commands that inspect the machine or measure it"),
        layer(&["options"], "the flags, one clap struct for each kind of thing"),
        layer(&["service_manager"], "what systemd is told"),
        layer(
            &["listen", "limits", "topology", "descriptors", "filters", "confine", "admin/options"],
            "addresses, sockets, who may connect; what the machine has and allows",
        ),
        layer(&["metrics", "slow"], "counts of what clients do; where the time of what is slow goes"),
        layer(&["exit"], "errors that end the program, and exit codes"),
        layer(
            &["http", "log", "lifecycle", "lingering_close", "signals", "allocator", "options/values"],
            "HTTP without I/O, the logs, and what imports nothing of ours",
        ),
    ],
    upward: &[],
};

/// A crate of the repository, and what is checked of it. All crates: which of ours they depend on, circles,
/// the length of files, the width of comments.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) folder: &'static str,
    /// Where its modules are, beneath its folder.
    pub(crate) modules: &'static str,
    /// The folders of the crates that it may depend on.
    pub(crate) depends_on: &'static [&'static str],
    /// How many files each circle has of files that import each other, largest first. They may only shrink.
    pub(crate) circles: &'static [usize],
    pub(crate) layers: Option<&'static Layers>,
}

const fn rules(folder: &'static str, depends_on: &'static [&'static str]) -> Rules {
    Rules { folder, modules: "src", depends_on, circles: &[], layers: None }
}

/// Every crate of the repository, those outside the workspace too. What imports no crate of ours comes first.
pub(crate) const CRATES: &[Rules] = &[
    rules("libraries", &[]),
    rules("numa", &["libraries"]),
    rules("macros", &[]),
    Rules { circles: &[8], layers: Some(&LIBRARY), ..rules("runtime", &["macros", "numa"]) },
    Rules { layers: Some(&PROGRAM), ..rules("server", &["runtime"]) },
    rules("benches", &["runtime"]),
    rules("benches/peers/common", &[]),
    rules("benches/peers/compio", &["benches/peers/common"]),
    rules("benches/peers/glommio", &["benches/peers/common"]),
    rules("benches/peers/monoio", &["benches/peers/common"]),
    rules("benches/peers/tokio", &["benches/peers/common"]),
    rules("examples", &["runtime"]),
    rules("integration-tests", &["runtime"]),
    rules("layers", &[]),
    Rules { modules: "fuzz_targets", ..rules("fuzz", &[]) },
];

/// Lines that a file may have, tests apart.
pub(crate) const LINES_OF_A_FILE: usize = 400;
/// Those that are longer. The list may only shrink.
pub(crate) const LONG_FILES: &[&str] = &[];

impl Layers {
    /// The layer of a file, counted from the top, and the entry that it belongs to. None for `lib.rs` and
    /// `main.rs`, which only name the others.
    pub(crate) fn of(&self, file: &str) -> Option<(usize, &'static str)> {
        let path = file.strip_suffix(".rs").unwrap_or(file);
        let belongs = |entry: &str| {
            path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let layers = self.layers.iter().enumerate();
        let entries = layers.flat_map(|(layer, its)| its.entries.iter().map(move |entry| (layer, *entry)));
        entries.filter(|(_, entry)| belongs(entry)).max_by_key(|(_, entry)| entry.len())
    }

    /// The picture of them that ARCHITECTURE.md shows: a line for each layer, folders with a slash.
    pub(crate) fn picture(&self, is_folder: impl Fn(&str) -> bool) -> String {
        let name = |entry: &&str| if is_folder(entry) { format!("{entry}/") } else { format!("{entry}.rs") };
        let entries: Vec<String> = self
            .layers
            .iter()
            .map(|layer| layer.entries.iter().map(name).collect::<Vec<_>>().join("  "))
            .collect();
        let lines = entries.iter().zip(self.layers).map(|(entries, layer)| {
            // Entries that are too wide have their words on the next line.
            if entries.len() > WIDEST {
                format!("{entries}\n{:WIDEST$}  {}\n", "", layer.what)
            } else {
                format!("{entries:WIDEST$}  {}\n", layer.what)
            }
        });
        lines.collect()
    }
}

/// Columns of the entries of a layer in the picture, beside which there are words.
const WIDEST: usize = 46;
