//! A number goes from one core to another and back, over and over: `ping_pong [CPULIST] [ROUND TRIPS]`, on
//! the first two of `all` CPUs and 20,000 times by default. Once by `submit_to`, once through a pair of
//! channels.

use std::time::{Duration, Instant};

use annulus::channel::{Sender, bounded};
use annulus::cores::{self, submit_to};
use annulus::numa::plan::CoreSelection;
use annulus::{Error, ErrorKind, Result, Runtime};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;
    let rounds: u64 = match args.next().map(|rounds| rounds.parse()).transpose() {
        Ok(rounds) => rounds.unwrap_or(20_000),
        Err(e) => return Err(Error::new(ErrorKind::Input, format!("the number of round trips: {e}"))),
    };
    let runtime = Runtime::builder().cores(cores).pool_bytes(1 << 20).build()?;
    if runtime.plan().cores().len() < 2 {
        return Err(Error::new(ErrorKind::Input, "two cores are needed; name two CPUs"));
    }
    runtime.run(move || async move {
        if cores::index() != 0 {
            // This core does what it is sent.
            cores::stopping().await;
            return Ok(());
        }
        if let Some(other) = cores::neighbours().iter().find(|other| other.core == 1) {
            println!("from CPU {} to CPU {}: {}", cores::cpu(), other.cpu, other.proximity);
        }
        report("submit_to", rounds, by_submit(rounds).await?);
        report("channel", rounds, by_channel(rounds).await?);
        cores::handle().stop();
        Ok(())
    })
}

async fn by_submit(rounds: u64) -> Result<Duration> {
    let start = Instant::now();
    for number in 0..rounds {
        let back = submit_to(1, async move || number + 1).await?;
        assert_eq!(back, number + 1);
    }
    Ok(start.elapsed())
}

async fn by_channel(rounds: u64) -> Result<Duration> {
    // Each queue is made where it is read.
    let (back, mut returns) = bounded(1);
    let there: Sender<u64> = submit_to(1, async || {
        let (there, mut arrives) = bounded(1);
        annulus::spawn(async move {
            while let Some(number) = arrives.recv().await {
                if back.send(number + 1).await.is_err() {
                    return;
                }
            }
        })
        .detach();
        there
    })
    .await?;
    let start = Instant::now();
    for number in 0..rounds {
        there.send(number).await.map_err(Error::other)?;
        assert_eq!(returns.recv().await, Some(number + 1));
    }
    Ok(start.elapsed())
}

fn report(way: &str, rounds: u64, took: Duration) {
    println!("{way}: {rounds} round trips in {took:.3?}, {:.3?} each", took / rounds.max(1) as u32);
}
