//! A number of operations of one kind on one core of Annulus, and nothing else: `scripts/instructions` counts
//! what the processor executes for them.

use annulus::net::UnixStream;
use annulus::transfer::{Road, relay};
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
    /// The same with 1 KiB through a relay: two messages of it, beside the echo
    Relay,
}

/// Relays at once: a core that relays has more than one message in a tick.
const RELAYS: u64 = 16;

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
            let echo = spawn(echo(far));
            ask(near, 100, count).await?;
            echo.await??;
        }
        Op::Relay => {
            let tasks = (0..RELAYS).map(|_| spawn(relayed(count / RELAYS)));
            for task in tasks.collect::<Vec<_>>() {
                task.await??;
            }
        }
    }
    Ok(())
}

async fn relayed(count: u64) -> annulus::Result<()> {
    let ((near, a), (b, far)) = (UnixStream::pair()?, UnixStream::pair()?);
    let relaying = spawn(relay(a, b, Road::Inline));
    let echo = spawn(echo(far));
    ask(near, 1024, count).await?;
    echo.await??;
    relaying.await?.result
}

/// Sends back what comes.
async fn echo(stream: UnixStream) -> annulus::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
    }
    Ok(())
}

/// Sends `count` messages of `len` bytes, each when the one before has come back.
async fn ask(stream: UnixStream, len: usize, count: u64) -> annulus::Result<()> {
    let mut message = vec![7; len];
    for _ in 0..count {
        message = stream.send_all(message).await?;
        let mut left = message.len();
        while left > 0 {
            left -= stream.recv().await?.map_or(left, |chunk| chunk.len());
        }
    }
    Ok(())
}
