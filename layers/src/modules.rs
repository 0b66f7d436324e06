//! The modules of a crate: what each imports, and from which file it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source;

/// The files of a crate, by module.
pub(crate) struct Crate {
    /// Module path, such as `["net", "socket"]`, to its file.
    files: BTreeMap<Vec<String>, String>,
    code: BTreeMap<String, String>,
    /// What a module re-exports: its path and a name, to the path that the name comes from.
    shown: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Crate {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut this = Self { files: BTreeMap::new(), code: BTreeMap::new(), shown: BTreeMap::new() };
        for (file, text) in source::files(folder) {
            if file.starts_with("bin/") || file == "build.rs" {
                continue;
            }
            this.files.insert(module_of(&file), file.clone());
            this.code.insert(file, source::code(&text));
        }
        for (file, code) in &this.code {
            let module = module_of(file);
            for path in uses(code).filter(|path| path.shows) {
                let Some(target) = absolute(&module, &path.segments, &this.files) else { continue };
                if let Some(name) = path.name() {
                    this.shown.insert((module.clone(), name.to_owned()), target);
                }
            }
        }
        this
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.values()
    }

    /// From a file to a file, and the path by which it is named there. Re-exports of a module's own children
    /// are none.
    pub(crate) fn imports(&self) -> Vec<(String, String, String)> {
        let mut imports = Vec::new();
        for (file, code) in &self.code {
            let module = module_of(file);
            let inline = paths(code);
            for path in uses(code)
                .filter(|path| !path.shows || !path.is_of_a_child(&module, &self.files))
                .map(|path| path.segments)
                .chain(inline)
            {
                let Some(absolute) = absolute(&module, &path, &self.files) else { continue };
                let Some(target) = self.file_of(&absolute, 0) else { continue };
                if target != *file {
                    imports.push((file.clone(), target, path.join("::")));
                }
            }
        }
        imports
    }

    /// The file that defines what `path` names.
    fn file_of(&self, path: &[String], depth: usize) -> Option<String> {
        let module = (0..=path.len()).rev().find(|len| self.files.contains_key(&path[..*len]))?;
        if let Some(name) = path.get(module)
            && let Some(from) = self.shown.get(&(path[..module].to_vec(), name.clone()))
            && depth < 8
        {
            return self.file_of(from, depth + 1);
        }
        self.files.get(&path[..module]).cloned()
    }

    /// Inherent impls that do not stand in the file of their type: the file, the type's file, the type.
    pub(crate) fn inherent_methods(&self) -> Vec<(String, String, String)> {
        let mut homes: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for (file, code) in &self.code {
            for name in defined(code) {
                homes.entry(name).or_default().insert(file);
            }
        }
        let mut far = Vec::new();
        for (file, code) in &self.code {
            for name in implemented(code) {
                let Some(files) = homes.get(name) else { continue };
                if !files.contains(file) {
                    far.extend(files.iter().map(|home| (file.clone(), (*home).clone(), name.to_owned())));
                }
            }
        }
        far
    }

    /// Circles of files that import each other, each sorted.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to, _) in self.imports() {
            if from != "lib.rs" && to != "lib.rs" && from != "main.rs" && to != "main.rs" {
                below.entry(from).or_default().insert(to);
            }
        }
        let reached = |from: &String| {
            let mut seen = BTreeSet::new();
            let mut todo = vec![from];
            while let Some(file) = todo.pop() {
                for next in below.get(file).into_iter().flatten() {
                    if seen.insert(next.clone()) {
                        todo.push(next);
                    }
                }
            }
            seen
        };
        let all: BTreeMap<&String, BTreeSet<String>> =
            below.keys().map(|file| (file, reached(file))).collect();
        let mut circles = BTreeSet::new();
        for (file, reach) in &all {
            if reach.contains(*file) {
                let circle: Vec<String> = reach
                    .iter()
                    .filter(|other| all.get(other).is_some_and(|back| back.contains(*file)))
                    .cloned()
                    .collect();
                circles.insert(circle);
            }
        }
        circles.into_iter().filter(|circle| circle.len() > 1).collect()
    }
}

fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    if matches!(segments.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        segments.pop();
    }
    segments
}

/// A path as a `use` line has it.
struct Use {
    segments: Vec<String>,
    alias: Option<String>,
    /// `pub use`, in whichever scope.
    shows: bool,
}

impl Use {
    fn name(&self) -> Option<&str> {
        self.alias.as_deref().or(self.segments.last().map(String::as_str))
    }

    fn is_of_a_child(&self, module: &[String], files: &BTreeMap<Vec<String>, String>) -> bool {
        absolute(module, &self.segments, files)
            .is_some_and(|path| path.starts_with(module) && path.len() > module.len())
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn uses(code: &str) -> impl Iterator<Item = Use> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end();
        let begins = before.is_empty()
            || before.ends_with([';', '}', '{', ']'])
            || before.ends_with("pub")
            || before.ends_with(')');
        if !begins || code[..at].chars().next_back().is_some_and(is_name) {
            continue;
        }
        let shows = before.ends_with("pub") || before.ends_with(')');
        let line = code[at + 4..].split(';').next().unwrap_or_default();
        let compact: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&compact, &[], shows, &mut found);
    }
    found.into_iter()
}

/// Writes the paths of a tree such as `a::{b, c::{d, e as f}}` out.
fn expand(tree: &str, prefix: &[String], shows: bool, found: &mut Vec<Use>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut segments = prefix.to_vec();
        segments.extend(
            path.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty()),
        );
        if segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        found.push(Use { segments, alias: alias.map(|alias| alias.trim().to_owned()), shows });
        return;
    };
    let mut prefix = prefix.to_vec();
    prefix.extend(
        tree[..open]
            .split("::")
            .map(|segment| segment.trim().to_owned())
            .filter(|segment| !segment.is_empty()),
    );
    let inner = tree[open + 1..].strip_suffix('}').unwrap_or(&tree[open + 1..]);
    let (mut depth, mut from) = (0, 0);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                expand(&inner[from..at], &prefix, shows, found);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inner[from..].trim().is_empty() {
        expand(&inner[from..], &prefix, shows, found);
    }
}

/// Paths in code that begin with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(begin) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_name(c) || c == ':' || c == '$') || code[..at].ends_with("use ") {
                continue;
            }
            let path: String = code[at..].chars().take_while(|c| is_name(*c) || *c == ':').collect();
            found.push(path.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}

/// The path from the top of the crate; None for one into another crate.
fn absolute(
    module: &[String],
    path: &[String],
    files: &BTreeMap<Vec<String>, String>,
) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        // A child of this module, named without `self`.
        child => {
            let mut own = module.to_vec();
            own.push(child.to_owned());
            return files.contains_key(&own).then(|| {
                own.extend(rest.iter().cloned());
                own
            });
        }
    };
    let mut rest = rest.iter().peekable();
    while rest.next_if(|segment| *segment == "super").is_some() {
        base.pop();
    }
    base.extend(rest.cloned());
    Some(base)
}

/// Names of the types that a file defines.
fn defined(code: &str) -> impl Iterator<Item = &str> {
    ["struct ", "enum ", "union "].into_iter().flat_map(move |word| {
        let found =
            code.match_indices(word).filter(|(at, _)| !code[..*at].chars().next_back().is_some_and(is_name));
        found.map(move |(at, _)| name_at(&code[at + word.len()..]))
    })
}

/// Names of the types that a file has inherent methods of.
fn implemented(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("\nimpl").filter_map(|(at, word)| {
        let mut rest = &code[at + word.len()..];
        if let Some(generics) = rest.strip_prefix('<') {
            let mut depth = 1;
            let end = generics.char_indices().find(|(at, c)| {
                match c {
                    '<' => depth += 1,
                    '>' if !generics[..*at].ends_with('-') => depth -= 1,
                    _ => {}
                }
                depth == 0
            })?;
            rest = &generics[end.0 + 1..];
        }
        let header = rest.split('{').next()?.split(" where").next()?;
        (!header.contains(" for ")).then(|| name_at(header.trim_start()))
    })
}

fn name_at(code: &str) -> &str {
    let end = code.find(|c| !is_name(c)).unwrap_or(code.len());
    &code[..end]
}
