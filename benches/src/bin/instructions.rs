//! A number of operations of one kind on one core of Annulus, and nothing else: `scripts/instructions` counts
//! what the processor executes for them.

use annulus::net::UnixStream;
use annulus::{Runtime, spawn, yield_now};
use clap::{Parser, ValueEnum};

/// Does one thing over and over.
#[derive(Parser)]
struct Args {
    /// What to do
    op: Op,
    /// How often
    count: u64,
    /// The CPU to run on
    #[arg(long, default_value_t = 0)]
    cpu: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Op {
    /// Spawn a task that is ready at once, and await it: two polls
    Spawn,
    /// Give way to other tasks, of which there are none: a poll
    Poll,
    /// Send 100 bytes to a task at the other end of a socket and get them back: two sends, two receives
    Echo,
}

fn main() -> annulus::Result<()> {
    let Args { op, count, cpu } = Args::parse();
    Runtime::builder()
        .cores(cpu.to_string().parse()?)
        .pool_bytes(1 << 20)
        .build()?
        .run(move || async move { spawn(work(op, count)).await? })
}

async fn work(op: Op, count: u64) -> annulus::Result<()> {
    match op {
        Op::Spawn => {
            for _ in 0..count {
                spawn(async {}).await?;
            }
        }
        Op::Poll => {
            for _ in 0..count {
                yield_now().await;
            }
        }
        Op::Echo => {
            let (near, far) = UnixStream::pair()?;
            let echo = spawn(async move {
                while let Some(chunk) = far.recv().await? {
                    far.send_all(chunk).await?;
                }
                annulus::Ok(())
            });
            let mut message = vec![7; 100];
            for _ in 0..count {
                message = near.send_all(message).await?;
                let mut left = message.len();
                while left > 0 {
                    left -= near.recv().await?.map_or(left, |chunk| chunk.len());
                }
            }
            drop(near);
            echo.await??;
        }
    }
    Ok(())
}
