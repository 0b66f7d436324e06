//! Files.
//!
//! A [`File`] is read and written at offsets, with buffers that are lent to the kernel by value; blocks of
//! the core's pool ([`Block`](crate::buf::Block)) lie on its node, and where they are registered with the
//! ring the kernel need not pin their pages each time. A [`Dir`] opens, makes, renames and removes what lies
//! beneath it, and nothing else.
//!
//! ```
//! use annulus::buf::Block;
//! use annulus::fs::{Dir, OpenOptions};
//!
//! # let name = format!("annulus-doc-{}", std::process::id());
//! # annulus::Runtime::builder().cores("all".parse()?).pool_bytes(1 << 20).build()?.run(move || {
//! # let name = format!("{name}-{}", annulus::cores::index());
//! # async move {
//! let dir = Dir::open(std::env::temp_dir()).await?;
//! let file = dir.open_beneath(&name, OpenOptions::new().write(true).create(true)).await?;
//! file.write_all_at(b"to the disk".to_vec(), 0).await?;
//! file.sync_data().await?;
//! let block = Block::take().expect("a fresh pool has blocks");
//! let (n, block) = file.read_at(block, 3).await?;
//! assert_eq!(block[..n], *b"the disk");
//! dir.remove_file(&name).await?;
//! # Ok(())
//! # }})?;
//! # Ok::<(), annulus::Error>(())
//! ```

mod advice;
mod dir;
mod direct;
mod file;
mod open;
mod residency;
mod space;
mod stat;
mod watch;

pub use advice::Advice;
pub use dir::{Dir, DirEntry};
pub use direct::Alignment;
pub use file::File;
pub use open::OpenOptions;
pub(crate) use residency::{cached, has_cachestat};
pub use stat::{FileKind, Stat};
pub use watch::{Change, WatchId, Watcher};
