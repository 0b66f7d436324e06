//! `annulus topology`: the machine, the cores that would run on it, and proof of where their memory lies.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};

use annulus::PlacementPolicy;
use annulus::numa::plan::{Circumstances, CorePlan, CoreSelection};
use annulus::numa::topology::Topology;

use crate::exit::{Failure, Kind};

/// How long a pool's growth is waited for.
const GROWN_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Prints numactl --hardware's lines, then the core plan.
pub(crate) fn show(selection: &CoreSelection, nic: Option<&str>) -> Result<(), Failure> {
    let topology = Topology::discover()?;
    let plan = CorePlan::under(&topology, selection, &Circumstances::of_this_process(nic)?)?;
    let mut text = topology.hardware().to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&describe(&plan));
    print(&text)
}

/// The core plan, a line for each core.
fn describe(plan: &CorePlan) -> String {
    let cores = plan.cores();
    let mut text = format!("core plan: {} core{}\n", cores.len(), if cores.len() == 1 { "" } else { "s" });
    for core in cores {
        text.push_str(&format!(
            "core {}: cpu {} node {} memory {}",
            core.index, core.cpu, core.node, core.memory
        ));
        if core.smt_rank > 0 {
            text.push_str(" (shares its physical core)");
        }
        text.push('\n');
    }
    for reason in plan.reasons() {
        text.push_str(&format!("core plan: {reason}\n"));
    }
    text
}

/// Starts the runtime on the cores, makes each do a little of everything, finds out where every page of it
/// lies and where its io-wq workers may run, and says so.
///
/// # Errors
/// [`Kind::Failed`] when a page lies elsewhere, or cannot be told.
pub(crate) fn verify(selection: CoreSelection, placement: PlacementPolicy) -> Result<(), Failure> {
    let runtime = annulus::Runtime::builder().cores(selection).placement(placement).build()?;
    let cores = runtime.plan().cores().len();
    let (worked, done) = sync_channel(cores);
    let running = runtime.start(move || {
        let worked = Tell(worked.clone());
        async move {
            let result = work().await;
            drop(worked);
            result?;
            annulus::cores::stopping().await;
            Ok::<(), Failure>(())
        }
    })?;
    for _ in done.iter().take(cores) {}
    let report = running.report();
    running.stop();
    running.wait()?;
    print(&report.to_string())?;
    let strays = report.strays();
    if strays.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Failed,
        format!(
            "not all is known to be where its core is ({}); see numactl --hardware for a node without free memory, the pool's line \
             above for what the system refused, and annulus doctor",
            strays.join(", ")
        ),
    ))
}

/// Tells that a core has done its work, or will never do it: a core that fails or panics drops it as well.
struct Tell(SyncSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        // The channel holds one message of every core, and a receiver that has gone needs none.
        self.0.try_send(()).unwrap_or_default();
    }
}

/// Does something of everything that a core does: takes memory from the heap and from the pool, so much that
/// the pool grows by a step, which is checked as well, sets timers, and asks for a file's status, which the
/// ring hands to an io-wq worker.
async fn work() -> annulus::Result<()> {
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            annulus::spawn(async move {
                annulus::time::sleep(std::time::Duration::from_millis(i % 4)).await;
                annulus::buf::Block::take().is_some()
            })
        })
        .collect();
    for task in tasks {
        // A panic of the task says nothing about where memory lies.
        drop(task.await);
    }
    let all: Vec<_> = std::iter::from_fn(annulus::buf::Block::take).collect();
    // Where the node has no more, the report says why.
    let more = annulus::time::timeout(GROWN_WITHIN, annulus::buf::Block::get()).await;
    drop((all, more));
    let root = annulus::fs::Dir::open("/proc").await?;
    let file = root.open_beneath("version", annulus::fs::OpenOptions::new()).await?;
    file.stat().await?;
    Ok(())
}

/// Writes to stdout. A reader that has gone (`| head`) has read enough.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed("cannot write to standard output", error)),
        Ok(()) => Ok(()),
    }
}
