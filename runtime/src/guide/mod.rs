//! Pages: what a build needs, what you may do, what to do where `io_uring` is refused, what things weigh,
//! what of other crates works here; and for people who come from elsewhere, what is called what here, and
//! what is different on purpose. The last is for those who knew the names before.
//!
//! There is nothing in these modules but their text.

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
