//! Channels between cores, and between cores and outside threads.
//!
//! [`bounded`] makes a queue from many senders to one receiver, in the memory of the core that receives. A
//! sender writes there, so what the receiver reads is local to it. The receiver stays on its core. Senders
//! may be anywhere, on outside threads and in tasks of other runtimes too. [`oneshot()`] carries a single
//! value from one thread to another.
//!
//! A message that wakes a sleeping core costs tens of microseconds on some machines; one that finds it awake
//! costs almost nothing. A core is notified once for all wakes of a tick, so send in batches where you can.
//!
//! ```
//! # fn main() -> annulus::Result<()> {
//! # let runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
//! # let running = runtime.start(|| async {
//! #     annulus::cores::stopping().await;
//! #     annulus::Ok(())
//! # })?;
//! // A host's main thread gets a way to a queue on core 0.
//! let lines = running.handle().submit_to_blocking(0, async || {
//!     let (sender, mut receiver) = annulus::channel::bounded::<String>(64);
//!     annulus::spawn(async move {
//!         while let Some(line) = receiver.recv().await {
//!             println!("{line}");
//!         }
//!     })
//!     .detach();
//!     sender
//! })?;
//! lines.blocking_send("hello".to_owned()).map_err(annulus::Error::other)?;
//! # running.stop();
//! # running.wait()
//! # }
//! ```

mod mpsc;
mod oneshot;

pub use mpsc::{Receiver, SendError, Sender, TryRecvError, TrySendError, bounded};
pub use oneshot::{OneReceiver, OneSender, Vanished, oneshot};
