//! The checker, on crates of a few lines.

use std::fs;
use std::path::PathBuf;

use super::*;

use crate::rules::{LIBRARY, PROGRAM};

/// The layers of the library, with these arrows up.
fn layers(upward: &'static [(&'static str, &'static str, &'static str)]) -> Layers {
    Layers { upward, ..LIBRARY }
}

/// A crate on disk, until dropped.
struct Made(PathBuf);

impl Made {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let top = std::env::temp_dir().join(format!("annulus-layers-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = top.join(file);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        Self(top)
    }

    fn read(&self) -> Crate {
        Crate::read(&self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// `net/` is above `buf/`: whichever way a name of it is written, the arrow is found, and only there.
#[test]
fn an_arrow_up_is_found_however_it_is_written() {
    let up = [
        "use crate::net::Listener;",
        "use crate::{net::listener::Listener, error::Error};",
        "use super::super::net::listener;",
        "fn f() -> crate::net::listener::Listener { todo!() }",
        "pub(crate) use crate::Listener as Other;",
    ];
    for (n, line) in up.iter().enumerate() {
        let made = Made::new(
            &format!("up{n}"),
            &[
                ("lib.rs", "mod buf;\nmod error;\nmod net;\npub use net::Listener;"),
                ("net/mod.rs", "mod listener;\npub use listener::Listener;"),
                ("net/listener.rs", "use crate::buf::lease::Lease;\npub struct Listener(Lease);"),
                ("buf/mod.rs", "mod chain;\nmod lease;"),
                ("buf/chain.rs", line),
                ("buf/lease.rs", "pub struct Lease;"),
                ("error.rs", "pub struct Error;"),
            ],
        );
        let library = made.read();
        let wrong = arrows(&layers(&[]), &library);
        assert!(wrong.len() == 1 && wrong[0].contains("buf/chain.rs imports net"), "{line}: {wrong:?}");
        assert!(arrows(&layers(&[("buf/chain.rs", "net", "known")]), &library).is_empty(), "{line}");
    }
}

#[test]
fn what_is_no_code_of_the_library_is_no_arrow() {
    let text = "//! [`Listener`](crate::net::Listener)\n\
                /// crate::net::Listener\n\
                fn f() -> &'static str { \"crate::net::Listener\" }\n\
                #[cfg(all(test, not(loom)))]\nmod tests {\n    use crate::net::Listener;\n}\n";
    let made = Made::new(
        "none",
        &[
            ("lib.rs", ""),
            ("net/mod.rs", "pub struct Listener;"),
            ("buf/mod.rs", "mod chain;"),
            ("buf/chain.rs", text),
        ],
    );
    assert_eq!(arrows(&layers(&[]), &made.read()), Vec::<String>::new());
    let needless = arrows(&layers(&[("buf/chain.rs", "net", "was needed once")]), &made.read());
    assert!(needless.len() == 1 && needless[0].contains("any more"), "{needless:?}");
}

#[test]
fn methods_far_from_their_type_are_found() {
    let made = Made::new(
        "far",
        &[
            ("lib.rs", ""),
            ("core/mod.rs", "pub struct Core;\nimpl Core {}\n"),
            ("core/close.rs", "\nimpl Core {}\n"),
            (
                "net/mod.rs",
                "pub struct Pair<A, B>(A, B);\n\nimpl<A: Into<u8>, B> Pair<A, B> {}\n\nimpl Clone for Core {}\n",
            ),
            ("launch/end.rs", "\nimpl<T> Core {\n}\n"),
            ("fs/mod.rs", "\nimpl<A: Fn() -> u8, B> Pair<A, B> {\n}\n"),
        ],
    );
    let far = far_methods(&LIBRARY, &made.read());
    assert!(far.len() == 1 && far[0].contains("launch/end.rs has methods of Core"), "{far:?}");
}

#[test]
fn circles_are_found_through_re_exports() {
    let made = Made::new(
        "circle",
        &[
            ("lib.rs", "mod a;\nmod b;\nmod c;"),
            ("a/mod.rs", "mod deep;\npub(crate) use deep::Deep;"),
            ("a/deep.rs", "use crate::b::B;\npub(crate) struct Deep(B);"),
            ("b.rs", "use crate::a::Deep;\npub(crate) struct B(Deep);"),
            ("c.rs", "use crate::{a::Deep, b::B};"),
        ],
    );
    assert_eq!(made.read().circles(), [["a/deep.rs", "b.rs"]]);
    assert!(circles("x", &made.read(), &[]).is_some() && circles("x", &made.read(), &[2]).is_none());
}

#[test]
fn long_files_and_wide_comments_are_found() {
    let file = |lines: usize| vec![("a.rs".to_owned(), "\n".repeat(lines))];
    assert_eq!(long_files("x", &file(LINES_OF_A_FILE), &[]), Vec::<String>::new());
    assert_eq!(long_files("x", &file(LINES_OF_A_FILE + 1), &[]).len(), 1);
    assert_eq!(long_files("x", &file(LINES_OF_A_FILE + 1), &["x/a.rs"]), Vec::<String>::new());
    let comment = |columns: usize| format!("    // {}", "word ".repeat(columns))[..columns].to_owned();
    assert!(!source::is_wide_comment(&comment(source::COLUMNS)));
    assert!(source::is_wide_comment(&comment(source::COLUMNS + 1)));
    assert!(!source::is_wide_comment(&format!("/// | {} |", "a table ".repeat(20))));
    assert!(!source::is_wide_comment(&format!("//! <https://example.org/{}>", "path".repeat(40))));
}

/// Seen to fail: with the words of wide entries left out.
#[test]
fn each_layer_has_its_line_in_the_picture() {
    for layers in [LIBRARY, PROGRAM] {
        let picture = layers.picture(|entry| !entry.contains('/'));
        for layer in layers.layers {
            assert!(!layer.what.is_empty() && picture.contains(layer.what), "{picture}");
            assert!(layer.entries.iter().all(|entry| picture.contains(entry)), "{picture}");
        }
        assert!(picture.lines().all(|line| line.chars().count() <= 120), "{picture}");
    }
}

/// Seen to fail: with `fuzz` left out of the list, the step names it.
#[test]
fn crates_that_the_list_does_not_know_are_found() {
    let package = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
    let made = Made::new(
        "crates",
        &[
            ("Cargo.toml", "[workspace]\nmembers = [\"low\", \"high\"]"),
            ("low/Cargo.toml", &package("its-low", "")),
            ("high/Cargo.toml", &package("its-high", "[dependencies]\nits-low = { path = \"../low\" }")),
            ("deep/fuzz/Cargo.toml", &package("its-fuzz", "[dev-dependencies]\nits-high.workspace = true")),
            ("target/package/Cargo.toml", &package("not-ours", "")),
        ],
    );
    let manifests = manifests::read(&made.0);
    assert_eq!(manifests.keys().collect::<Vec<_>>(), ["deep/fuzz", "high", "low"]);
    let rules = |folder, depends_on| Rules { folder, depends_on, ..CRATES[0] };

    let all = [rules("low", &[]), rules("high", &["low"]), rules("deep/fuzz", &["high"])];
    assert_eq!(manifests::unknown(&all, &manifests), Vec::<String>::new());
    assert_eq!(manifests::dependencies(&all, &manifests), Vec::<String>::new());

    let unknown =
        manifests::unknown(&[rules("low", &[]), rules("gone", &[]), rules("high", &[])], &manifests);
    assert!(unknown.len() == 2 && unknown[0].starts_with("deep/fuzz is a crate of which"), "{unknown:?}");
    assert!(unknown[1].starts_with("gone is no crate any more"), "{unknown:?}");
    let wrong = manifests::dependencies(&[rules("low", &["high"]), rules("high", &[])], &manifests);
    assert!(wrong.len() == 2 && wrong[0].starts_with("low does not depend on high"), "{wrong:?}");
    assert!(wrong[1].starts_with("high depends on low"), "{wrong:?}");
}

/// Seen to fail: with a page of the repository that names `runtime/src/gone.rs` and `--gone`.
#[test]
fn what_pages_name_is_there() {
    let made = Made::new(
        "docs",
        &[
            (
                "server/src/flags.rs",
                "#[arg(long, default_value = \"a\")]\n    pub(crate) idle_timeout: u64,\n",
            ),
            (
                "server/src/more.rs",
                "    #[arg(short, long = \"as-user\")]\n    /// Its user\n    user: String,\n",
            ),
            ("scripts/bench", "bench --only hello"),
            ("docs/page.md", ""),
        ],
    );
    let known = docs::Known::read(&made.0);
    let right = "`src/flags.rs`, `flags.rs`, `server/`, `src/NAME.rs`, `docs/page.md`, `text/html`, `/etc/hosts`\n\
                 [a](page.md#there) [b](../server/src) [c](https://example.org/none)\n\
                 `--idle-timeout SECS`, `--only`, `curl --gone`, `annulus serve --as-user www --help`\n\
                 ```sh\nannulus serve --idle-timeout 1 # --gone\nnone.rs\n```\n";
    assert_eq!(known.wrong_in("docs/page.md", right), Vec::<String>::new());
    let wrong =
        "`flag.rs`, `server/src/none`\n[a](docs/page.md)\n`--user`\n```\n./annulus serve --only x\n```\n";
    let wrong = known.wrong_in("docs/page.md", wrong);
    let expected =
        ["1: flag.rs is", "1: server/src/none is", "2: the link to docs/page.md", "3: --user", "5: --only"];
    assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
    for (line, begins) in wrong.iter().zip(expected) {
        assert!(line.starts_with(&format!("docs/page.md:{begins}")), "{line}");
    }
}
