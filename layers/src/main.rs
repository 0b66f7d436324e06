//! Which crate may depend on which, the layers of the library and of the program, circles, long files and
//! wide comments of all crates, and what pages name that is not there: `scripts/test --only layers`.
//!
//! What a file imports is read from its text: `use` lines and paths that begin with `crate`, `super` or
//! `self`, through re-exports to the file that defines the name. Tests are left out, and so is what comes by
//! a method: therefore inherent methods stand in the layer of their type.
//!
//! Exit status: 0 all is well, 1 something is not.

mod docs;
mod manifests;
mod modules;
mod rules;
mod source;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use modules::Crate;
use rules::{CRATES, LINES_OF_A_FILE, LONG_FILES, Layers, Rules};

fn main() -> ExitCode {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above the crate");
    let manifests = manifests::read(workspace);
    let mut wrong = manifests::unknown(CRATES, &manifests);
    wrong.extend(manifests::dependencies(CRATES, &manifests));
    let known = CRATES.iter().filter(|rules| manifests.contains_key(rules.folder));
    wrong.extend(known.flat_map(|rules| check(workspace, rules)));
    wrong.extend(docs::wrong(workspace));
    for line in &wrong {
        println!("{line}");
    }
    let upward = CRATES.iter().filter_map(|rules| rules.layers).map(|layers| layers.upward.len());
    println!("{} crates, {} arrows up are left", manifests.len(), upward.sum::<usize>());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is wrong in a crate.
fn check(workspace: &Path, rules: &Rules) -> Vec<String> {
    let folder = workspace.join(rules.folder);
    let modules = folder.join(rules.modules);
    let its = Crate::read(&modules);
    let mut wrong = Vec::new();
    if let Some(layers) = rules.layers {
        wrong.extend(arrows(layers, &its));
        wrong.extend(far_methods(layers, &its));
        let architecture = fs::read_to_string(workspace.join("ARCHITECTURE.md")).unwrap_or_default();
        let picture = layers.picture(|entry| !modules.join(format!("{entry}.rs")).exists());
        if !architecture.contains(&picture) {
            wrong.push(format!("ARCHITECTURE.md does not show the layers of {}:\n{picture}", layers.folder));
        }
    }
    let place = format!("{}/{}", rules.folder, rules.modules);
    wrong.extend(circles(&place, &its, rules.circles));
    wrong.extend(long_files(&place, &source::files(&modules), LONG_FILES));
    wrong.extend(wide_comments(rules.folder, &source::all_files(&folder)));
    wrong
}

/// Arrows up that are not allowed, and allowed ones that nothing needs.
fn arrows(layers: &Layers, its: &Crate) -> Vec<String> {
    let Layers { folder, upward, .. } = layers;
    let mut wrong = Vec::new();
    let is_root = |file: &str| matches!(file, "lib.rs" | "main.rs");
    let unplaced = its.files().filter(|file| !is_root(file) && layers.of(file).is_none());
    wrong.extend(
        unplaced.map(|file| {
            format!("{folder}/{file} is in no layer: say in layers/src/rules.rs where it belongs")
        }),
    );
    let mut found: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
    for (from, to, name) in its.imports() {
        let (Some(lower), Some(upper)) = (layers.of(&from), layers.of(&to)) else { continue };
        if upper.0 < lower.0 {
            found.entry((from, upper.1)).or_default().insert(name);
        }
    }
    for ((from, to), names) in &found {
        if !upward.iter().any(|(file, above, _)| file == from && above == to) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            wrong.push(format!("{folder}/{from} imports {to}, which is above it: {}", names.join(", ")));
        }
    }
    for (from, to, _) in *upward {
        if !found.contains_key(&((*from).to_owned(), *to)) {
            wrong.push(format!(
                "{folder}/{from} does not import {to} any more: take it out of layers/src/rules.rs"
            ));
        }
    }
    wrong
}

/// Inherent methods in another layer than their type.
fn far_methods(layers: &Layers, its: &Crate) -> Vec<String> {
    let layer = |file: &str| layers.of(file).map(|(layer, _)| layer);
    let far = its.inherent_methods().into_iter().filter(|(file, of_type, _)| layer(file) != layer(of_type));
    far.map(|(file, of_type, name)| {
        format!(
            "{}/{file} has methods of {name}, which is defined in {of_type}, another layer",
            layers.folder
        )
    })
    .collect()
}

/// Circles of files that import each other, where there are more than are known, or larger ones.
fn circles(folder: &str, its: &Crate, known: &[usize]) -> Option<String> {
    let mut circles = its.circles();
    circles.sort_by_key(|circle| Reverse(circle.len()));
    let is_known = circles
        .iter()
        .enumerate()
        .all(|(at, circle)| known.get(at).is_some_and(|most| circle.len() <= *most));
    (!is_known).then(|| {
        let circles: Vec<_> = circles.iter().map(|circle| arrows_within(its, circle)).collect();
        format!(
            "{folder}: files import each other in circles; of {known:?} files are known, and there are:{}",
            circles.concat()
        )
    })
}

/// The files of a circle, each with what it imports of the others.
fn arrows_within(its: &Crate, circle: &[String]) -> String {
    let mut arrows: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (from, to, path) in its.imports() {
        if circle.contains(&from) && circle.contains(&to) {
            let name = path.rsplit("::").next().unwrap_or(&path).to_owned();
            arrows.entry((from, to)).or_default().insert(name);
        }
    }
    let arrow = |((from, to), names): (&(String, String), &BTreeSet<String>)| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        format!("\n    {from} -> {to}: {}", names.join(", "))
    };
    format!("\n  {} files:{}", circle.len(), arrows.iter().map(arrow).collect::<String>())
}

fn long_files(folder: &str, files: &[(String, String)], known: &[&str]) -> Vec<String> {
    let lines = files.iter().map(|(file, text)| (format!("{folder}/{file}"), text.lines().count()));
    let long = lines.filter(|(file, lines)| *lines > LINES_OF_A_FILE && !known.contains(&file.as_str()));
    long.map(|(file, lines)| format!("{file} has {lines} lines, of {LINES_OF_A_FILE} at most")).collect()
}

fn wide_comments(folder: &str, files: &[(String, String)]) -> Vec<String> {
    let mut wide = Vec::new();
    for (file, text) in files {
        let lines = text.lines().enumerate().filter(|(_, line)| source::is_wide_comment(line));
        wide.extend(lines.map(|(at, _)| {
            format!("{folder}/{file}:{}: a comment of more than {} columns", at + 1, source::COLUMNS)
        }));
    }
    wide
}

#[cfg(test)]
mod tests;
