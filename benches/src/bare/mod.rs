//! What the bare-ring servers share: as little as a correct server needs, on the io-uring crate alone.
//!
//! No runtime and no tasks: one thread, one ring, one loop over events. These servers are the limit that the
//! runtime is measured against, so nothing here does more work per operation than the operation needs. Memory
//! the kernel sees is never unmapped while the process lives, which is what lets the rest be safe code.
//! Minimum kernel: 6.1 (multishot receive, DEFER_TASKRUN).

mod args;
mod blocks;
mod bufring;
mod core;
mod ops;
mod pipe;
mod request;
mod ring;
mod road;
mod serve;
mod socket;

pub use self::core::{Conn, Core, Event, FIRST_OP};
pub use args::Common;
pub use blocks::{BlockPool, Blocks, Slot};
pub use bufring::{Block, BufRing};
pub use ops::SendSlot;
pub use pipe::{Pipe, PipePool};
pub use request::{HeadCounter, response_head};
pub use ring::{Cqe, Ring};
pub use road::{FileRoad, RelayRoad};
pub use serve::serve;
pub use socket::{connect_result, connect_start, listen};
