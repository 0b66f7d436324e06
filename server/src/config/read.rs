//! Reading a file: its text in, a configuration or all that is wrong with it out.

use std::ops::{Deref, DerefMut, Range};
use std::sync::LazyLock;

use clap::Args;
use toml::de::DeTable;

use super::fault::Fault;
use super::keys::{Entry, Keys, nearest};
use super::program_keys::ProgramKeys;
use super::table::{Item, Table};
use super::{Configuration, Listener, ServiceConfig, twice};
use crate::options::listener::ListenerArgs;
use crate::options::program::{ProgramArgs, Verbosity};
use crate::proxy::options::ProxyArgs;
use crate::serve::options::ServeArgs;
use crate::serve::sites::{HostPattern, PathPattern, PathRule, SiteConfig};

/// The keys at the beginning of a file.
#[derive(Debug, Clone, Args)]
struct Head {
    #[command(flatten)]
    program: ProgramArgs,

    #[command(flatten)]
    verbosity: Verbosity,
}

/// The keys of a program, of listeners, of the files that they serve, of their relays.
pub(super) struct Definitions {
    pub(super) program: Keys,
    pub(super) listener: Keys,
    pub(super) files: Keys,
    pub(super) relay: Keys,
}

impl Definitions {
    /// All of them.
    pub(super) fn get() -> &'static Self {
        &DEFINED
    }
}

static DEFINED: LazyLock<Definitions> = LazyLock::new(|| Definitions {
    program: Keys::of::<Head>(),
    listener: Keys::of::<ListenerArgs>(),
    files: Keys::of::<ServeArgs>(),
    relay: Keys::of::<ProxyArgs>(),
});

/// Tables whose keys a later version may read.
const RESERVED: [&str; 3] = ["tls", "http", "upstream"];

/// What a file says.
#[derive(Debug)]
pub(crate) struct Read {
    /// What to do.
    pub(crate) config: Configuration,
    /// How much the log says.
    pub(crate) verbose: u8,
    /// What it says of the program.
    pub(crate) keys: ProgramKeys,
}

/// Reads the text of a file. Names are looked up, directories looked at.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Read, Vec<Fault>> {
    read_by(text, true)
}

/// Reads the text of a file that another process has read before, by rights that this one may not have.
///
/// # Errors
/// All that is wrong with the text.
pub(crate) fn read_again(text: &str) -> Result<Read, Vec<Fault>> {
    read_by(text, false)
}

/// What is wrong, and whether the machine is looked at.
struct Faults {
    all: Vec<Fault>,
    looks: bool,
}

impl Deref for Faults {
    type Target = Vec<Fault>;

    fn deref(&self) -> &Vec<Fault> {
        &self.all
    }
}

impl DerefMut for Faults {
    fn deref_mut(&mut self) -> &mut Vec<Fault> {
        &mut self.all
    }
}

fn read_by(text: &str, looks: bool) -> Result<Read, Vec<Fault>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut faults = Faults { all: Vec::new(), looks };
    let top = Table { content: document.get_ref(), span: 0..0 };
    let head = entries(&top, Place::Program, &["listener"], &mut faults);
    let keys = ProgramKeys::of(&head.all);
    let head: Option<Head> = parsed(&DEFINED.program, &head, &top.span, &mut faults);
    let mut listeners = Vec::new();
    match top.get("listener").map(|item| item.tables("listener")) {
        Some(Ok(tables)) => listeners.extend(tables.iter().filter_map(|table| listener(table, &mut faults))),
        Some(Err(fault)) => faults.push(fault),
        None => faults.push(Fault::new(text.len()..text.len(), "there is no listener: write [[listener]]")),
    }
    twice::check(&listeners, &mut faults);
    if let Some(first) = errors.iter().map(|error| error.span().unwrap_or(0..0).start).min() {
        // What stands in the line of the first of them, or behind it, may have been read as something else
        // than it is.
        let line =
            text.as_bytes()[..first.min(text.len())].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        faults.retain(|fault| fault.span.end <= line && !fault.span.is_empty());
        faults.extend(syntax(text, &errors));
    }
    match head {
        Some(head) if faults.is_empty() => {
            let listeners = listeners.into_iter().map(|(listener, _)| listener).collect();
            let config = Configuration { program: head.program, listeners };
            Ok(Read { config, verbose: head.verbosity.verbose, keys })
        }
        _ => Err(faults.all),
    }
}

/// What is no TOML: of each line the first, because the others follow from it.
fn syntax(text: &str, errors: &[toml::de::Error]) -> Vec<Fault> {
    let fault = |error: &toml::de::Error| Fault::new(error.span().unwrap_or(0..0), error.message());
    let mut faults: Vec<Fault> = errors.iter().map(fault).collect();
    faults.sort_by_key(|fault| fault.span.start);
    let line = |fault: &Fault| {
        text.as_bytes()[..fault.span.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
    };
    faults.dedup_by_key(|fault| line(fault));
    faults
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first listener.
    Program,
    /// In a listener that serves files.
    Files,
    /// In one that relays.
    Relay,
    /// In a site, or a path of one.
    Site,
}

impl Place {
    fn keys(self) -> Vec<&'static Keys> {
        match self {
            Place::Program => vec![&DEFINED.program],
            Place::Files => vec![&DEFINED.listener, &DEFINED.files],
            Place::Relay => vec![&DEFINED.listener, &DEFINED.relay],
            Place::Site => vec![&DEFINED.files],
        }
    }

    fn has(self, key: &str) -> bool {
        self.keys().iter().any(|keys| keys.find(key).is_some())
    }

    /// What is wrong with a key that has no meaning here.
    fn unknown(self, key: &str, own: &[&str]) -> String {
        if RESERVED.contains(&key) {
            return format!("`{key}` is kept for a later version: leave it out");
        }
        if Place::Program.has(key) {
            return format!("`{key}` holds for the whole program: write it before the first [[listener]]");
        }
        if self == Place::Site && DEFINED.listener.find(key).is_some() {
            return format!("`{key}` belongs to a listener: write it below [[listener]], before its sites");
        }
        let belongs = |what: &str| format!("`{key}` belongs to a listener that {what}");
        match self {
            Place::Relay if DEFINED.files.find(key).is_some() => {
                return belongs("serves files: one with `root`");
            }
            Place::Files | Place::Site if DEFINED.relay.find(key).is_some() => {
                return belongs("relays: one with `to`");
            }
            Place::Program if DEFINED.listener.find(key).is_some() => {
                return belongs("has a table: write [[listener]] above it");
            }
            Place::Program if Place::Files.has(key) || Place::Relay.has(key) => {
                return belongs("has a table: write [[listener]] above it");
            }
            _ => {}
        }
        let names: Vec<String> = self.keys().iter().flat_map(|keys| keys.names()).collect();
        let all = names.iter().map(String::as_str).chain(own.iter().copied());
        match nearest(key, all) {
            Some(near) => format!("there is no `{key}` here; did you mean `{near}`?"),
            None => {
                let command = if self == Place::Relay { "proxy" } else { "serve" };
                format!("there is no `{key}` here; keys are the flags of `annulus {command} --help`")
            }
        }
    }
}

/// What the flags of a table are set to.
#[derive(Clone)]
struct Entries {
    all: Vec<Entry>,
    /// Nothing of the table was wrong and left out.
    complete: bool,
}

/// The entries of a table whose keys are flags. Its `own` keys are read elsewhere.
fn entries(table: &Table<'_>, place: Place, own: &[&str], faults: &mut Faults) -> Entries {
    let before = faults.len();
    let mut entries = Vec::new();
    for item in table.items().filter(|item| !own.contains(&item.key())) {
        if !place.has(item.key()) {
            faults.push(Fault::new(item.key_span(), place.unknown(item.key(), own)));
            continue;
        }
        match item.entry() {
            Ok(entry) => entries.push(entry),
            Err(wrong) => faults.extend(wrong),
        }
    }
    // The text's order is the order of flags that may be given several times.
    entries.sort_by_key(|entry| entry.key_span.start);
    Entries { all: entries, complete: faults.len() == before }
}

fn parsed<T: clap::FromArgMatches>(
    keys: &Keys,
    entries: &Entries,
    span: &Range<usize>,
    faults: &mut Faults,
) -> Option<T> {
    keys.parse(&entries.all, span, entries.complete).map_err(|wrong| faults.extend(wrong)).ok()
}

/// A listener, and where it begins.
fn listener(table: &Table<'_>, faults: &mut Faults) -> Option<(Listener, Range<usize>)> {
    let sites = table.get("site").or_else(|| table.get("path"));
    let place = match (table.get("to"), table.get("root")) {
        (Some(_), None) => Place::Relay,
        (None, Some(_)) => Place::Files,
        (None, None) if sites.is_some() => Place::Files,
        (Some(_), Some(root)) => {
            let what = "a listener either serves files, with `root`, or relays, with `to`: leave out one";
            faults.push(Fault::new(root.key_span(), what));
            return None;
        }
        (None, None) => {
            let what = "a listener needs `root`, to serve files, or `to`, to relay connections";
            faults.push(Fault::new(table.span.clone(), what));
            return None;
        }
    };
    let own: &[&str] = if place == Place::Files { &["site", "path"] } else { &[] };
    let entries = entries(table, place, own, faults);
    let complete = entries.complete;
    let (common, service): (Vec<Entry>, Vec<Entry>) =
        entries.all.into_iter().partition(|entry| DEFINED.listener.find(&entry.key).is_some());
    let (common, service) = (Entries { all: common, complete }, Entries { all: service, complete });
    let args = parsed(&DEFINED.listener, &common, &table.span, faults);
    let service = match place {
        Place::Relay => parsed(&DEFINED.relay, &service, &table.span, faults)
            .map(|relay| ServiceConfig::Relay(Box::new(relay))),
        _ => files(table, &service, faults).map(ServiceConfig::Files),
    };
    let listener = Listener { args: args?, service: service? };
    if let ServiceConfig::Relay(relay) = &listener.service {
        let addresses = listener.addresses();
        let listens: Vec<_> = addresses.iter().flat_map(|address| address.place().candidates()).collect();
        if faults.looks
            && let Err(why) = relay.check(&listens)
        {
            faults.push(Fault::new(table.span.clone(), why));
        }
    }
    Some((listener, table.span.clone()))
}

/// The sites of a listener: each inherits what stands in the listener, and the listener itself is the last,
/// for all other names.
fn files(table: &Table<'_>, inherited: &Entries, faults: &mut Faults) -> Option<Vec<SiteConfig>> {
    let before = faults.len();
    let mut sites = Vec::new();
    for table in tables(table, "site", "listener.site", faults) {
        let hosts = patterns::<HostPattern>(&table, "host", faults);
        let own = entries(&table, Place::Site, &["host", "path"], faults);
        if let Some(site) = site(&table, hosts, merged(inherited, own), "listener.site.path", faults) {
            sites.push(site);
        }
    }
    if table.get("root").is_some() || sites.is_empty() {
        sites.extend(site(table, Vec::new(), inherited.clone(), "listener.path", faults));
    } else if let Some(item) = table.get("path") {
        let what =
            "these paths belong to no site: give the listener a `root`, or write [[listener.site.path]]";
        faults.push(Fault::new(item.key_span(), what));
    }
    (faults.len() == before).then_some(sites)
}

fn site(
    table: &Table<'_>,
    hosts: Vec<HostPattern>,
    entries: Entries,
    written: &str,
    faults: &mut Faults,
) -> Option<SiteConfig> {
    let args = with_root(table, &entries, faults);
    let mut paths = Vec::new();
    for table in tables(table, "path", written, faults) {
        let patterns = patterns::<PathPattern>(&table, "match", faults);
        let own = self::entries(&table, Place::Site, &["match"], faults);
        if let Some(args) = with_root(&table, &merged(&entries, own), faults) {
            paths.push(PathRule { patterns, args });
        }
    }
    Some(SiteConfig { hosts, args: args?, paths })
}

/// What the entries say, with a root that is there.
fn with_root(table: &Table<'_>, entries: &Entries, faults: &mut Faults) -> Option<ServeArgs> {
    let Some(root) = entries.all.iter().find(|entry| entry.key == "root") else {
        faults.push(Fault::new(table.span.clone(), "`root` is missing: the directory to serve"));
        return None;
    };
    for value in &root.values {
        if faults.looks
            && let Err(failure) = crate::serve::check_root(value.text.as_ref())
        {
            faults.push(Fault::new(value.span.clone(), failure.to_string()));
        }
    }
    parsed(&DEFINED.files, entries, &table.span, faults)
}

/// The entries of an outer table, with those of an inner one in their place.
fn merged(outer: &Entries, inner: Entries) -> Entries {
    let kept = outer.all.iter().filter(|entry| inner.all.iter().all(|own| own.key != entry.key)).cloned();
    let all = kept.collect::<Vec<_>>().into_iter().chain(inner.all.iter().cloned()).collect();
    Entries { all, complete: outer.complete && inner.complete }
}

/// The tables of `[[key]]` within a table.
fn tables<'t>(table: &Table<'t>, key: &str, written: &str, faults: &mut Faults) -> Vec<Table<'t>> {
    match table.get(key).map(|item| item.tables(written)) {
        Some(Ok(tables)) => tables,
        Some(Err(fault)) => {
            faults.push(fault);
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// The patterns that a table holds for.
fn patterns<P: std::str::FromStr<Err = String>>(table: &Table<'_>, key: &str, faults: &mut Faults) -> Vec<P> {
    let Some(item) = table.get(key) else {
        faults.push(Fault::new(table.span.clone(), format!("`{key}` is missing: what this table holds for")));
        return Vec::new();
    };
    read_patterns(item, faults)
}

fn read_patterns<P: std::str::FromStr<Err = String>>(item: Item<'_>, faults: &mut Faults) -> Vec<P> {
    let entry = match item.entry() {
        Ok(entry) => entry,
        Err(wrong) => {
            faults.extend(wrong);
            return Vec::new();
        }
    };
    let mut patterns = Vec::new();
    for value in &entry.values {
        match value.text.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => {
                let what = format!("{:?} is no value for `{}`: {why}", value.text, item.key());
                faults.push(Fault::new(value.span.clone(), what));
            }
        }
    }
    patterns
}
