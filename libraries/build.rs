//! Where a C library that a feature asks for is missing, says what to install and how to do without.
//!
//! It looks with the linker that will be used, or the C compiler, for what rustc will hand to it later. It
//! says nothing where it cannot know: for another machine (cross compilation), on docs.rs, without a C
//! compiler.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// A C library, the feature that asks for it, and its packages.
struct Library {
    feature: &'static str,
    is_there: fn(&Path) -> Option<bool>,
    debian: &'static str,
    fedora: &'static str,
}

const LIBRARIES: [Library; 2] = [
    Library {
        feature: "hwloc",
        is_there: hwloc_is_there,
        debian: "pkg-config libhwloc-dev libudev-dev",
        fedora: "pkgconf-pkg-config hwloc-devel systemd-devel",
    },
    Library {
        feature: "libnuma",
        is_there: libnuma_is_there,
        debian: "libnuma-dev",
        fedora: "numactl-devel",
    },
];

fn main() {
    for name in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "CC", "LIBRARY_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("DOCS_RS").is_some() || env::var_os("HOST") != env::var_os("TARGET") {
        return;
    }
    let out = env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR");
    let missing: Vec<&Library> = LIBRARIES
        .iter()
        .filter(|library| {
            let asked = format!("CARGO_FEATURE_{}", library.feature.to_uppercase());
            env::var_os(asked).is_some() && (library.is_there)(Path::new(&out)) == Some(false)
        })
        .collect();
    if missing.is_empty() {
        return;
    }
    let all =
        |of: fn(&Library) -> &'static str| missing.iter().map(|it| of(it)).collect::<Vec<_>>().join(" ");
    let features = missing.iter().map(|it| it.feature).collect::<Vec<_>>().join(" and ");
    let (s, it) = if missing.len() == 1 { ("", "it") } else { ("s", "them") };
    println!("cargo::error=the C libraries of the feature{s} {features} are not installed, or not whole");
    println!("cargo::error=on Debian and Ubuntu: apt-get install {}", all(|it| it.debian));
    println!("cargo::error=on Fedora: dnf install {}", all(|it| it.fedora));
    let without = r#"annulus = { version = "0.1", default-features = false }"#;
    println!("cargo::error=without {it}: {without}, by /sys and system calls alone");
}

/// As hwlocality-sys asks, which wants all that hwloc's static link line names: libudev too.
fn hwloc_is_there(out: &Path) -> Option<bool> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let asked = Command::new(program).args(["--libs", "--static", "hwloc >= 2.8", "hwloc < 3"]).output();
    match asked {
        Ok(answer) if answer.status.success() => {
            let line = String::from_utf8_lossy(&answer.stdout).into_owned();
            links(out, &line.split_whitespace().collect::<Vec<_>>())
        }
        // hwlocality-sys fails without pkg-config too.
        _ => Some(false),
    }
}

fn libnuma_is_there(out: &Path) -> Option<bool> {
    links(out, &["-lnuma"])
}

/// Whether a library of nothing can be linked with these arguments; None where nothing can be linked at all.
fn links(out: &Path, arguments: &[&str]) -> Option<bool> {
    let empty = out.join("empty.c");
    fs::write(&empty, "").ok()?;
    let linker = env::var_os("RUSTC_LINKER").or_else(|| env::var_os("CC")).unwrap_or_else(|| "cc".into());
    let link = |arguments: &[&str]| {
        let mut command = Command::new(&linker);
        command.args(["-shared", "-o"]).arg(out.join("empty.so")).arg(&empty).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    match (link(&[]), link(arguments)) {
        (false, _) => None,
        (true, found) => Some(found),
    }
}
