//! Nothing but the programs beside it: TLS, HTTP/2, axum and WebSocket on Annulus, by crates that the runtime
//! does not depend on. `cargo run -p annulus-examples --example https` runs one.
//!
//! They are a crate of their own, so that nobody who builds or tests the runtime builds rustls.

/// The page of the guide, whose programs need rustls: the runtime shows it, and here it is compiled and run.
#[doc = include_str!("../../runtime/src/guide/tls.md")]
#[cfg(doctest)]
struct Tls;
