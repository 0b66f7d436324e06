//! What the pages for readers name: files that are there, and flags that the program has.
//!
//! A page names a file in code (`runtime/src/lib.rs`, or the end of a path, `lib.rs`) or by a link, and a
//! flag in code (`--listen ADDR`) or on a command line that begins with `annulus`. CHANGELOG.md tells what
//! was, so it is no such page.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::source;

/// Flags that clap adds to each command.
const OF_CLAP: [&str; 2] = ["help", "version"];

/// What the repository has to be named.
pub(crate) struct Known {
    /// Files and folders, from the top.
    paths: BTreeSet<String>,
    /// Long flags of the program, without dashes.
    flags: BTreeSet<String>,
    /// Long flags that scripts and benches name: theirs, and those of the tools that they call.
    others: BTreeSet<String>,
}

/// What pages name that is not there.
pub(crate) fn wrong(top: &Path) -> Vec<String> {
    let known = Known::read(top);
    let mut pages = markdown(top, "");
    pages.retain(|page| page != "CHANGELOG.md");
    pages.extend(markdown(top, "docs"));
    let text = |page: &str| fs::read_to_string(top.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
    pages.iter().flat_map(|page| known.wrong_in(page, &text(page))).collect()
}

/// The pages in a folder, from the top.
fn markdown(top: &Path, folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(top.join(folder)) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pages = names.filter(|name| name.ends_with(".md"));
    pages.map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") }).collect()
}

impl Known {
    pub(crate) fn read(top: &Path) -> Self {
        let mut this = Self { paths: BTreeSet::new(), flags: BTreeSet::new(), others: BTreeSet::new() };
        this.walk(top, "");
        this.flags.extend(OF_CLAP.map(str::to_owned));
        this
    }

    fn walk(&mut self, top: &Path, folder: &str) {
        let entries = fs::read_dir(top.join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        for entry in entries {
            let path = entry.expect("a directory can be listed").path();
            if path.is_symlink() || path.is_dir() && source::is_left_out(&path) {
                continue;
            }
            let name = path.strip_prefix(top).expect("beneath the top").to_string_lossy().into_owned();
            if path.is_dir() {
                self.walk(top, &name);
            } else if name.starts_with("server/src/") {
                self.flags.extend(flags_of(&fs::read_to_string(&path).unwrap_or_default()));
            } else if name.starts_with("scripts/") || name.starts_with("benches/") {
                self.others.extend(named_flags(&fs::read_to_string(&path).unwrap_or_default()));
            }
            self.paths.insert(name);
        }
    }

    /// What a page names that is not there.
    pub(crate) fn wrong_in(&self, page: &str, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut is_code = false;
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
                continue;
            }
            let mut tell = |what: String| wrong.push(format!("{page}:{}: {what}", at + 1));
            let pieces: Vec<&str> =
                if is_code { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
            for piece in &pieces {
                for path in paths_in(piece).filter(|path| !is_code && !self.has_path(path)) {
                    tell(format!("{path} is no file or folder here"));
                }
                for flag in self.unknown_flags(piece) {
                    tell(format!("--{flag} is no flag"));
                }
            }
            for link in links_in(line).filter(|_| !is_code) {
                if !self.paths.contains(&beside(page, link)) {
                    tell(format!("the link to {link} leads nowhere"));
                }
            }
        }
        wrong
    }

    /// Whether there is this path, or one that ends like it.
    fn has_path(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let top = path.split('/').next().unwrap_or(path);
        if !self.paths.contains(top) && !path.ends_with(".rs") {
            return true;
        }
        self.paths.contains(path) || self.paths.iter().any(|known| known.ends_with(&format!("/{path}")))
    }

    fn unknown_flags(&self, code: &str) -> Vec<String> {
        let first = code.split_whitespace().next().unwrap_or_default();
        let is_program = first == "annulus" || first.ends_with("/annulus");
        if !is_program && !code.starts_with("--") {
            return Vec::new();
        }
        let command = code.split([';', '|', '&', '#']).next().unwrap_or(code);
        let is_known = |flag: &String| self.flags.contains(flag) || !is_program && self.others.contains(flag);
        named_flags(command).filter(|flag| !is_known(flag)).collect()
    }
}

/// The words of a piece of code that are paths: of Rust files, or with a folder before them. Names in
/// capitals stand for others.
fn paths_in(code: &str) -> impl Iterator<Item = &str> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = code.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ';', ':']));
    words.filter(move |word| {
        let stem = word.rsplit('/').next().unwrap_or(word).split('.').next().unwrap_or_default();
        let is_example = stem.len() > 1 && stem.chars().all(|c| c.is_ascii_uppercase());
        let is_path = word.ends_with(".rs") || word.contains('/') && !word.starts_with(['/', '.', '-']);
        is_path && !is_example && word.chars().all(is_of_path)
    })
}

/// The targets of a line's links that are files, without what they say of a place in them.
fn links_in(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://"))
}

/// The path of a link on a page, from the top.
fn beside(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Long flags that a text names, without dashes.
fn named_flags(text: &str) -> impl Iterator<Item = String> {
    let found = text.match_indices("--").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-')
    });
    let names = found.map(|(at, dashes)| {
        let rest = &text[at + dashes.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-');
        rest[..end.unwrap_or(rest.len())].to_owned()
    });
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Long flags that the fields of a file's clap structs define, without dashes.
fn flags_of(code: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for (_, rest) in code.match_indices("#[arg(").map(|(at, word)| code.split_at(at + word.len())) {
        let Some((settings, rest)) = rest.split_once(")]\n") else { continue };
        let is_long = |setting: &str| setting.trim() == "long";
        if let Some((_, name)) = settings.split_once("long = \"") {
            flags.extend(name.split('"').next().map(str::to_owned));
        } else if settings.split(',').any(is_long) {
            let field = rest.lines().map(str::trim).find(|line| !line.starts_with(['#', '/']));
            let name = field.and_then(|field| field.split(':').next()?.split_whitespace().next_back());
            flags.extend(name.map(|name| name.replace('_', "-")));
        }
    }
    flags
}
