//! Finds the C libraries that the features of annulus-numa ask for.
//!
//! `build.rs` looks for them. It is not the build script of annulus-numa, because cargo ends a build at the
//! first script that fails, and that of hwlocality-sys fails without hwloc too, with a message that names no
//! package. Of what could run, cargo runs first what most depends on. As a crate that the build script of
//! annulus-numa is built with, this one has more behind it than hwlocality-sys.

/// For the build script of annulus-numa: has the libraries of the features linked that nobody else links.
pub fn link() {
    if cfg!(feature = "libnuma") {
        println!("cargo::rustc-link-lib=numa");
    }
}
