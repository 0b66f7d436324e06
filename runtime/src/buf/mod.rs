//! Buffers: what a send takes and a receive gives.
//!
//! A receive gives a [`Lease`] on a block of the core's provided-buffer ring. A send, a write or a read at an
//! offset takes a buffer by value ([`IoBuf`], [`IoBufMut`]) and gives it back, also with an error
//! ([`BufError`]). The kernel never has borrowed memory across an await.

pub(crate) mod blocks;
pub(crate) mod brought;
pub(crate) mod chain;
mod copy_out;
mod fragments;
mod free_buffers;
mod grown;
mod kinds;
mod lease;
mod lend;
pub(crate) mod memory;
pub(crate) mod owned;
pub(crate) mod returns;
pub(crate) mod ring;
mod shares;
mod wrapped;

pub use blocks::{Block, GetBlock};
pub use grown::Grown;
pub use lease::Lease;
pub use owned::{BufError, IoBuf, IoBufMut, IoBufs};
pub use wrapped::{Filled, Owned};
