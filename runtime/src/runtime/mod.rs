//! The runtime: cores brought up together, run, and ended together.

mod builder;
mod end;
mod forecast;
mod handle;
mod inside;
mod options;
mod placement;
mod report;
mod running;
mod stalls;
pub(crate) mod state;
mod worker;

pub use builder::{Builder, Runtime};
pub use forecast::Forecast;
pub use handle::Handle;
pub use options::Options;
pub use placement::PlacementPolicy;
pub use report::{CoreReport, RegionReport, Report, WorkerReport};
pub use running::Running;
pub use stalls::Stall;
