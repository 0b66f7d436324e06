//! Links libnuma, where the feature asks for it. The libraries were found before: `annulus-libraries`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    annulus_libraries::link();
}
