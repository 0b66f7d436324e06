//! Copies a file: `file_copy FROM TO [--splice]`.
//!
//! By default eight tasks read and write by the ring, each with a block of the core's node-local memory, so
//! that the disk has always something to do. With `--splice` the pages go through a pipe and never enter user
//! memory.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use annulus::buf::Block;
use annulus::fs::{File, OpenOptions};
use annulus::pipe::pipe;
use annulus::{Error, ErrorKind, Runtime, transfer};

/// Blocks under way at a time.
const DEPTH: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let splice =
        args.iter().position(|arg| arg.as_os_str() == "--splice").map(|at| args.remove(at)).is_some();
    let [from, to] = <[PathBuf; 2]>::try_from(args).map_err(|_| "usage: file_copy FROM TO [--splice]")?;
    let first = annulus::numa::thread::affinity_of_current()?.first().ok_or("no CPU to run on")?;
    Runtime::builder().cores(first.to_string().parse()?).build()?.run(move || {
        let (from, to) = (from.clone(), to.clone());
        async move {
            let bytes = copy(&from, &to, splice).await?;
            println!("copied {bytes} bytes");
            Ok(())
        }
    })?;
    Ok(())
}

/// Copies `from` to `to` and returns how many bytes it has.
pub(crate) async fn copy(from: &Path, to: &Path, splice: bool) -> annulus::Result<u64> {
    let from = File::open(from, OpenOptions::new()).await?;
    let to = File::create(to).await?;
    let size = from.stat().await?.size;
    if splice {
        by_pipe(&from, &to, size).await?
    } else {
        by_blocks(&from, &to, size).await?
    }
    Ok(size)
}

async fn by_blocks(from: &File, to: &File, size: u64) -> annulus::Result<()> {
    // The first byte that nobody copies yet.
    let next = Rc::new(Cell::new(0));
    let copiers: Vec<_> = (0..DEPTH)
        .map(|_| {
            let (from, to, next) = (from.clone(), to.clone(), Rc::clone(&next));
            annulus::spawn(async move {
                let mut block = Block::take().ok_or_else(|| {
                    Error::new(ErrorKind::Platform, "no block is left; give the cores more memory")
                })?;
                while next.get() < size {
                    let at = next.get();
                    let len = (block.capacity() as u64).min(size - at);
                    next.set(at + len);
                    block.clear();
                    block = from.read_exact_at(block, len as usize, at).await?;
                    block = to.write_all_at(block, at).await?;
                }
                annulus::Ok(())
            })
        })
        .collect();
    for copier in copiers {
        copier.await??;
    }
    Ok(())
}

async fn by_pipe(from: &File, to: &File, size: u64) -> annulus::Result<()> {
    let (reader, writer) = pipe()?;
    let (mut read, mut written) = (0, 0);
    while read < size {
        let n = transfer::splice((from, read), &writer, (size - read) as usize).await? as u64;
        if n == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        read += n;
        while written < read {
            written += transfer::splice(&reader, (to, written), (read - written) as usize).await? as u64;
        }
    }
    Ok(())
}
