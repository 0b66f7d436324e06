//! The runtime: cores brought up together, run, and ended together.

mod builder;
mod end;
mod report;
mod running;
pub(crate) mod state;
mod worker;

pub use builder::{Builder, Runtime};
pub use report::{CoreReport, RegionReport, Report};
pub use running::Running;
