//! `annulus topology`: the machine, the cores that would run on it, and proof of where their memory lies.

use std::io::{self, Write};

use annulus::numa::plan::{CorePlan, CoreSelection};
use annulus::numa::topology::Topology;

use crate::exit::{Failure, Kind, say};

/// Prints numactl --hardware's lines, then the core plan.
pub(crate) fn show(selection: &CoreSelection) -> Result<(), Failure> {
    let topology = Topology::discover()?;
    let plan = CorePlan::new(&topology, selection)?;
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
    text
}

/// Starts the runtime on the cores, looks where every page of it lies, and says so.
///
/// # Errors
/// [`Kind::Failed`] when a page lies elsewhere, or cannot be looked at in any way.
pub(crate) fn verify(selection: CoreSelection) -> Result<(), Failure> {
    let runtime = annulus::Runtime::builder().cores(selection).build()?;
    let running = runtime.start(|| async {
        annulus::core::stopping().await;
        Ok::<(), Failure>(())
    })?;
    let report = running.report();
    running.stop();
    running.wait()?;
    print(&report.to_string())?;
    let (mut off, mut unknown) = (0, 0);
    for region in &report.regions {
        match &region.pages {
            Ok(pages) => {
                off += pages.off(region.node);
                unknown += pages.unknown;
            }
            Err(error) => return Err(Failure::failed("cannot look where every page lies", error)),
        }
    }
    if unknown > 0 {
        say(&format!(
            "{unknown} pages could not be looked at one by one; allow move_pages (CAP_SYS_NICE) to see all"
        ));
    }
    if off > 0 {
        let remedy =
            "free memory on that node (numactl --hardware), or see above which call the system refused";
        return Err(Failure::new(
            Kind::Failed,
            format!("{off} pages do not lie on their core's node; {remedy}"),
        ));
    }
    Ok(())
}

/// Writes to stdout. A reader that has gone (`| head`) has read enough.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed("cannot write to standard output", error)),
        Ok(()) => Ok(()),
    }
}
