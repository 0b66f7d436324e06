//! Files as text, without what is no code.

use std::fs;
use std::path::Path;

/// The columns that a comment may have.
pub(crate) const COLUMNS: usize = 110;

/// The files beneath `folder` that are not tests, by their path from there, with their text.
pub(crate) fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files = all_files(folder);
    files.retain(|(path, _)| !is_test(path));
    files
}

/// All Rust files beneath `folder`, without those of crates that lie in it.
pub(crate) fn all_files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

fn walk(top: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            if !is_left_out(&path) && !path.join("Cargo.toml").exists() {
                walk(top, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.strip_prefix(top).expect("beneath the top").to_string_lossy().into_owned();
            found.push((name, text));
        }
    }
}

/// What cargo has made, and hidden folders: they have no files of ours.
pub(crate) fn is_left_out(folder: &Path) -> bool {
    let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.starts_with('.') || name == "target"
}

fn is_test(path: &str) -> bool {
    let is_one = |part| {
        matches!(
            part,
            "tests" | "tests.rs" | "loom_tests.rs" | "model.rs" | "testing.rs" | "played" | "played.rs"
        )
    };
    path.split('/').any(is_one)
}

/// A line that is a comment, or ends in one, and is wider than it may be. Tables of documentation, links and
/// commands cannot be broken.
pub(crate) fn is_wide_comment(line: &str) -> bool {
    let text = line.trim_start();
    if line.chars().count() <= COLUMNS || !text.starts_with("//") {
        return false;
    }
    let text = text.trim_start_matches(['/', '!']).trim_start();
    let longest_word = text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    !text.starts_with('|') && longest_word < COLUMNS - 20
}

/// The code: comments, the contents of strings and of modules that are compiled for tests only, are taken
/// out.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if next == '"' {
            string_len(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        rest = &rest[len..];
    }
    without_tests(&code)
}

/// Bytes of a string with its quotes.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let (before, from) = rest.split_at(at);
        kept.push_str(before);
        let end = from.find(']').map_or(from.len(), |end| end + 1);
        let (attribute, after) = from.split_at(end);
        let is_for_tests = attribute.contains("test") && !attribute.contains("not(test");
        rest = if is_for_tests { after_item(after) } else { after };
    }
    kept.push_str(rest);
    kept
}

/// What follows the item that `code` begins with.
fn after_item(code: &str) -> &str {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return &code[at + 1..],
            b'}' => depth -= 1,
            b';' | b',' if depth == 0 => return &code[at + 1..],
            _ => {}
        }
    }
    ""
}
