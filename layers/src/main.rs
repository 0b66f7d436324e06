//! The layers of the library, and the circles of all crates: `scripts/test --only layers`.
//!
//! What a file imports is read from its text: `use` lines and paths that begin with `crate`, `super` or
//! `self`, through re-exports to the file that defines the name. Tests are left out, and so is what comes by
//! a method: therefore inherent methods stand in the layer of their type.
//!
//! Exit status: 0 all is well, 1 something is not.

mod modules;
mod rules;
mod source;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use modules::Crate;
use rules::{CIRCLES, LINES_OF_A_FILE, LONG_FILES, NARROW, UPWARD, layer_of};

fn main() -> ExitCode {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above the crate");
    let library = Crate::read(&workspace.join("runtime/src"));
    let mut wrong = arrows(&library, UPWARD);
    wrong.extend(far_methods(&library));
    for (folder, known) in CIRCLES {
        wrong.extend(circles(folder, &Crate::read(&workspace.join(folder)), known));
    }
    for folder in ["layers/src", "numa/src", "runtime/src", "server/src"] {
        wrong.extend(long_files(folder, &source::files(&workspace.join(folder)), LONG_FILES));
    }
    for folder in NARROW {
        wrong.extend(wide_comments(folder, &source::all_files(&workspace.join(folder))));
    }
    for line in &wrong {
        println!("{line}");
    }
    println!("{} arrows up are left, of {} files", UPWARD.len(), library.files().count());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Arrows up that are not allowed, and allowed ones that nothing needs.
fn arrows(library: &Crate, allowed: &[(&str, &str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let unplaced = library.files().filter(|file| *file != "lib.rs" && layer_of(file).is_none());
    wrong.extend(unplaced.map(|file| {
        format!("runtime/src/{file} is in no layer: say in layers/src/rules.rs where it belongs")
    }));
    let mut found: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
    for (from, to, name) in library.imports() {
        let (Some(lower), Some(upper)) = (layer_of(&from), layer_of(&to)) else { continue };
        if upper.0 < lower.0 {
            found.entry((from, upper.1)).or_default().insert(name);
        }
    }
    for ((from, to), names) in &found {
        if !allowed.iter().any(|(file, above, _)| file == from && above == to) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            wrong.push(format!("runtime/src/{from} imports {to}, which is above it: {}", names.join(", ")));
        }
    }
    for (from, to, _) in allowed {
        if !found.contains_key(&((*from).to_owned(), *to)) {
            wrong.push(format!(
                "{from} does not import {to} any more: take it out of UPWARD in layers/src/rules.rs"
            ));
        }
    }
    wrong
}

/// Inherent methods in another layer than their type.
fn far_methods(library: &Crate) -> Vec<String> {
    let layer = |file: &str| layer_of(file).map(|(layer, _)| layer);
    let far = library.inherent_methods().into_iter().filter(|(file, home, _)| layer(file) != layer(home));
    far.map(|(file, home, name)| {
        format!("runtime/src/{file} has methods of {name}, which is defined in {home}, another layer")
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
