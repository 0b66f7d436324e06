//! The micro-operations on Annulus.

use annulus::Runtime;
use annulus::numa::plan::CoreSelection;
use annulus::time::sleep;
use annulus::{spawn, yield_now};
use annulus_benches::micro::{self, End, Measured, Op};
use clap::Parser;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Measures a micro-operation and prints the figures.
#[derive(Parser)]
struct Args {
    /// spawn, yield, timer, ping-pong or sleepers
    op: Op,
    /// How often; for sleepers, how many waves of a thousand
    #[arg(long)]
    count: u64,
    /// The CPU to run on
    #[arg(long)]
    cpu: u32,
    /// The other CPU of ping-pong
    #[arg(long)]
    other_cpu: u32,
    /// How late timers may be for the sake of others, in microseconds [default: the runtime's]
    #[arg(long)]
    timer_slack_us: Option<u64>,
}

fn main() -> annulus::Result<()> {
    let args = Args::parse();
    let cores = match args.op {
        Op::PingPong => format!("{},{}", args.cpu, args.other_cpu),
        _ => args.cpu.to_string(),
    };
    let (near, far) = micro::line();
    // Each core takes one end of the line: core 0 measures, core 1 answers, if there is one.
    let ends = Mutex::new([Some(near), Some(far)]);
    let mut builder = Runtime::builder().cores(cores.parse::<CoreSelection>()?);
    if let Some(slack) = args.timer_slack_us {
        builder = builder.timer_slack(Duration::from_micros(slack));
    }
    let runtime = builder.build()?;
    runtime.run(move || {
        let core = annulus::cores::index();
        let end = ends.lock().unwrap_or_else(PoisonError::into_inner)[core].take();
        async move {
            let Some(end) = end else { return Ok(()) };
            if core == 0 {
                println!("{}", spawn(measure(args.op, args.count, end)).await.map_err(gone)??);
            } else {
                spawn(micro::pong(end)).await.map_err(gone)?;
            }
            Ok(())
        }
    })
}

fn gone(e: annulus::JoinError) -> io::Error {
    io::Error::other(e.to_string())
}

async fn measure(op: Op, count: u64, near: End) -> io::Result<Measured> {
    let spawn_join = || spawn(async {});
    let sleeper = |length| {
        let task = spawn(micro::lateness(length, sleep));
        async { task.await.unwrap_or_default() }
    };
    match op {
        Op::Spawn => micro::one_after_the_other(count, spawn_join).await,
        Op::Yield => micro::one_after_the_other(count, yield_now).await,
        Op::Timer => micro::timers(count, sleep).await,
        Op::Sleepers => micro::sleepers(count, sleeper).await,
        Op::PingPong => micro::ping(count, near).await,
    }
}
