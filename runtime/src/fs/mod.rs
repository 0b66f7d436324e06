//! Files.
//!
//! A [`File`] is read and written at offsets, with buffers that are lent to the kernel by value. Blocks of
//! the core's pool ([`Block`](crate::buf::Block)) lie on its node, and where they are registered with the
//! ring the kernel need not pin their pages each time. A [`Dir`] opens, makes, renames and removes only what
//! lies beneath it.
//!
//! | you want | look at |
//! |---|---|
//! | a whole file | [`read`], [`read_to_string`], [`write()`], [`append`], [`copy`] |
//! | one read or written from beginning to end | [`Cursor`], [`BufReader`] (lines), [`BufWriter`], [`compat::FileIo`](crate::compat::FileIo) |
//! | what paths name, as the process sees them | [`stat`], [`rename`], [`symlink`], [`create_dir_all`], [`remove_dir_all`], ... |
//! | what lies beneath a directory, and nothing else | [`Dir`] |
//! | a file or directory for a while | [`temp_file`], [`TempDir`] |
//! | to be told of changes | [`Watcher`] |
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
mod cursor;
mod dir;
mod direct;
mod file;
mod names;
mod open;
mod reader;
mod residency;
mod space;
mod stat;
mod temp;
mod watch;
mod whole;
mod writer;

pub use advice::Advice;
pub use cursor::Cursor;
pub use dir::{Dir, DirEntry};
pub use direct::Alignment;
pub use file::File;
pub use names::{
    canonicalize, copy, create_dir, create_dir_all, exists, hard_link, read_dir, read_link, remove_dir,
    remove_dir_all, remove_file, rename, set_mode, stat, stat_link, symlink,
};
pub use open::OpenOptions;
pub use reader::BufReader;
pub(crate) use residency::{cached, has_cachestat};
pub use stat::{FileKind, Stat};
pub use temp::{TempDir, temp_file};
pub use watch::{Change, WatchId, Watcher};
pub use whole::{append, read, read_to_string, write};
pub use writer::BufWriter;
