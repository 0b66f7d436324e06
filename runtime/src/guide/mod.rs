//! The book: pages that build on each other, and pages to look things up in.
//!
//! To be read in this order, each block compiled and run with the tests:
//!
//! 1. [a first server](first_server): a connection, every core, clients that do nothing, the end
//! 2. [state]: within a core, and split by core
//! 3. [cancellation]: what dropping a future means
//! 4. [buffers]: what a receive gives, and what a send takes
//! 5. [files]: whole, by lines, safely, beneath a directory, to a socket
//! 6. [TLS](tls), and what is spoken over it: HTTP/2, axum, WebSocket
//! 7. [testing]
//! 8. [finding out why it is slow](slow)
//! 9. [placement]: cores on CPUs, memory on nodes
//! 10. [containers]
//! 11. [what is missing, and why](missing)
//!
//! To look things up: [what a build needs](building), [what you may do](may), [where `io_uring` is
//! refused](refused), [what things weigh](weights), [what of other crates works here](beside), [this runtime
//! beside others](compared).
//!
//! For people who come from elsewhere, what is called what here, and what is different on purpose:
//! [tokio](from_tokio), [monoio](from_monoio), [glommio](from_glommio), [compio](from_compio),
//! [Seastar](from_seastar); and [those who knew the names before](old_names).
//!
//! There is nothing in these modules but their text. `examples/` has whole programs.

#[doc = include_str!("first_server.md")]
pub mod first_server {}

#[doc = include_str!("state.md")]
pub mod state {}

#[doc = include_str!("cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("buffers.md")]
pub mod buffers {}

#[doc = include_str!("files.md")]
pub mod files {}

// Its programs need rustls: the crate `examples/` compiles and runs them.
#[cfg_attr(not(doctest), doc = include_str!("tls.md"))]
pub mod tls {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("slow.md")]
pub mod slow {}

#[doc = include_str!("placement.md")]
pub mod placement {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("missing.md")]
pub mod missing {}

#[doc = include_str!("building.md")]
pub mod building {}

#[doc = include_str!("may.md")]
pub mod may {}

#[doc = include_str!("refused.md")]
pub mod refused {}

#[doc = include_str!("weights.md")]
pub mod weights {}

#[doc = include_str!("beside.md")]
pub mod beside {}

#[doc = include_str!("compared.md")]
pub mod compared {}

#[doc = include_str!("from_tokio.md")]
pub mod from_tokio {}

#[doc = include_str!("from_monoio.md")]
pub mod from_monoio {}

#[doc = include_str!("from_glommio.md")]
pub mod from_glommio {}

#[doc = include_str!("from_compio.md")]
pub mod from_compio {}

#[doc = include_str!("from_seastar.md")]
pub mod from_seastar {}

#[doc = include_str!("old_names.md")]
pub mod old_names {}
