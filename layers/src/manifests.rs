//! The crates of the repository, and which of them depend on which, from their manifests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::rules::Rules;
use crate::source;

/// The manifest of each crate, by the crate's folder.
pub(crate) type Manifests = BTreeMap<String, String>;

/// The manifests of all crates beneath `top`. A manifest without a package is a workspace's alone.
pub(crate) fn read(top: &Path) -> Manifests {
    let mut found = Manifests::new();
    find(top, top, &mut found);
    found
}

fn find(top: &Path, folder: &Path, found: &mut Manifests) {
    if let Ok(text) = fs::read_to_string(folder.join("Cargo.toml"))
        && text.lines().any(|line| line.trim() == "[package]")
    {
        let name = folder.strip_prefix(top).expect("beneath the top").to_string_lossy().into_owned();
        found.insert(name, text);
    }
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() && !path.is_symlink() && !source::is_left_out(&path) {
            find(top, &path, found);
        }
    }
}

/// Crates that are in no list, and entries of the list that are no crate.
pub(crate) fn unknown(known: &[Rules], manifests: &Manifests) -> Vec<String> {
    let is_known = |folder: &str| known.iter().any(|rules| rules.folder == folder);
    let new = manifests.keys().filter(|folder| !is_known(folder));
    let new = new.map(|folder| format!("{folder} is a crate of which layers/src/rules.rs says nothing"));
    let gone = known.iter().map(|rules| rules.folder).filter(|folder| !manifests.contains_key(*folder));
    let gone =
        gone.map(|folder| format!("{folder} is no crate any more: take it out of layers/src/rules.rs"));
    new.chain(gone).collect()
}

/// Dependencies between crates that are not allowed, and allowed ones that no manifest has.
pub(crate) fn dependencies(known: &[Rules], manifests: &Manifests) -> Vec<String> {
    let folder_of = |key: &str| {
        let is_named = |text: &String| package(text) == Some(key);
        manifests.iter().find(|(_, text)| is_named(text)).map(|(folder, _)| folder.as_str())
    };
    let mut wrong = Vec::new();
    for rules in known {
        let Some(text) = manifests.get(rules.folder) else { continue };
        // A crate that names itself has its examples and tests use its features.
        let found: Vec<_> =
            keys(text).filter_map(folder_of).filter(|folder| *folder != rules.folder).collect();
        let more = found.iter().filter(|folder| !rules.depends_on.contains(folder));
        wrong.extend(more.map(|folder| {
            format!("{} depends on {folder}, which layers/src/rules.rs does not allow", rules.folder)
        }));
        let fewer = rules.depends_on.iter().filter(|folder| !found.contains(folder));
        wrong.extend(fewer.map(|folder| {
            format!(
                "{} does not depend on {folder} any more: take it out of layers/src/rules.rs",
                rules.folder
            )
        }));
    }
    wrong
}

/// The name of the package.
fn package(manifest: &str) -> Option<&str> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = "))?;
    Some(name.trim().trim_matches('"'))
}

/// What the lines of all tables of dependencies begin with: names of packages.
fn keys(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_wanted = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_wanted = line.trim().ends_with("dependencies]");
            return None;
        }
        let end = line.find([' ', '.', '='])?;
        (is_wanted && !line.starts_with('#')).then_some(&line[..end])
    })
}
