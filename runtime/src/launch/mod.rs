//! Cores are brought up together, run, and ended together.

mod bring_up;
mod builder;
mod core_thread;
mod end;
pub mod entry;
mod faults;
mod forecast;
mod locked;
mod observer;
mod options;
#[cfg(all(any(test, feature = "played"), not(loom)))]
pub(crate) mod played;
mod report;
mod roots;
mod running;
mod stalls;
mod start;

pub use builder::{Builder, Runtime};
pub use forecast::Forecast;
pub use observer::Observer;
pub use report::{CoreReport, RegionReport, Report, WorkerReport};
pub use running::Running;
pub use stalls::Stall;
