//! Annulus in a program that has a life of its own: `embed [FILE...]`, or `embed --until-ctrl-c`.
//!
//! The main thread runs tokio; Annulus has a core of its own beside it. Messages go both ways: tokio asks for
//! the size of files, which the core opens by its ring, and the core tells tokio what happens there. Wakers
//! of both are sound from any thread, so any channel will do; here it is tokio's.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use annulus::fs::{File, OpenOptions};
use annulus::signal::{self, Signal};
use annulus::{Error, Runtime};
use tokio::sync::{mpsc, oneshot};

/// What tokio asks of the core.
struct Question {
    path: PathBuf,
    answer: oneshot::Sender<annulus::Result<u64>>,
}

/// What the core's task takes with it.
struct Ends {
    questions: mpsc::Receiver<Question>,
    events: mpsc::UnboundedSender<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    let until_ctrl_c =
        args.iter().position(|arg| arg == "--until-ctrl-c").map(|at| args.remove(at)).is_some();
    if until_ctrl_c {
        // Before any thread is started.
        signal::block_before_threads(&[Signal::INTERRUPT])?;
    }
    for line in run(args.into_iter().map(PathBuf::from).collect(), until_ctrl_c)? {
        println!("{line}");
    }
    Ok(())
}

/// Asks for the size of each file, and returns what was answered, and told.
pub(crate) fn run(
    paths: Vec<PathBuf>,
    until_ctrl_c: bool,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let (asks, questions) = mpsc::channel(16);
    let (events, mut told) = mpsc::unbounded_channel();
    let ends = Mutex::new(Some(Ends { questions, events }));
    let first = annulus::numa::thread::affinity_of_current()?.first().ok_or("no CPU to run on")?;
    let runtime = Runtime::builder().cores(first.to_string().parse()?).pool_bytes(1 << 20).build()?;
    let running = runtime.start(move || {
        let ends = ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            match ends {
                Some(ends) => on_the_core(ends, until_ctrl_c).await,
                None => Ok(()),
            }
        }
    })?;
    let mut lines = Vec::new();
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        for path in paths {
            let (answer, answered) = oneshot::channel();
            let name = path.display().to_string();
            asks.send(Question { path, answer }).await.map_err(|_| "the core has ended")?;
            lines.push(match answered.await? {
                Ok(size) => format!("{name}: {size} bytes"),
                Err(e) => format!("{e}"),
            });
        }
        // Nobody asks any more: the core's task comes to its end, and with it the events.
        drop(asks);
        while let Some(event) = told.recv().await {
            if until_ctrl_c {
                eprintln!("{event}");
            }
            lines.push(event);
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    running.wait()?;
    Ok(lines)
}

async fn on_the_core(mut ends: Ends, until_ctrl_c: bool) -> annulus::Result<()> {
    let tell = |event: String| ends.events.send(event).map_err(Error::other);
    tell(format!("the core runs on CPU {}", annulus::cores::cpu()))?;
    while let Some(Question { path, answer }) = ends.questions.recv().await {
        // Each by itself: a slow disk keeps nobody else waiting.
        annulus::spawn(async move {
            let size = async { File::open(&path, OpenOptions::new()).await?.stat().await };
            // Whoever asked may have gone.
            drop(answer.send(size.await.map(|stat| stat.size)));
        })
        .detach();
    }
    if until_ctrl_c {
        tell("press Ctrl-C".to_owned())?;
        signal::ctrl_c().await?;
        tell("interrupted".to_owned())?;
    }
    Ok(())
}
