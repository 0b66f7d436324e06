//! Runs contestants beside each other and prints what each costs: one table per workload, and JSON.

use annulus_benches::contest::launch::Place;
use annulus_benches::contest::rounds::{Settings, play};
use annulus_benches::contest::{report, table};
use annulus_benches::pin::pin_current_thread;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

/// Compares servers by the CPU time that each spends on the same work.
///
/// Each contestant runs on one CPU and is driven from another; all take turns in every round, and ratios are of
/// rounds paired. A contestant that sends a wrong byte is left out.
#[derive(Parser)]
struct Args {
    /// Workloads or groups: roads, small, hello-1k, hello-16k, echo-100, file-64k, file-1m, file-256m, relay-1, relay-64,
    /// relay-small [default: all]
    workloads: Vec<String>,
    /// Rounds; below 6 there are no intervals
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds that a contestant works in a round, about
    #[arg(long, default_value_t = 200)]
    run_ms: u64,
    /// Only contestants whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// The contestant that ratios refer to [default: each workload's own]
    #[arg(long)]
    against: Option<String>,
    /// The CPU of the contestants
    #[arg(long, default_value_t = 0)]
    cpu: u32,
    /// The CPU of the driver
    #[arg(long, default_value_t = 1)]
    drive_cpu: u32,
    /// The program `annulus` [default: the one beside this program]
    #[arg(long)]
    annulus: Option<PathBuf>,
    /// Have clients read bulk bytes, instead of dropping them in the kernel
    #[arg(long)]
    copy: bool,
    /// Where results go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where files to serve are kept [default: bench-files beside the program's directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("compare: {e}");
            ExitCode::from(2)
        }
    }
}

/// Whether every workload had at least one contestant that finished.
fn run(args: Args) -> io::Result<bool> {
    let chosen = choose(&args.workloads)?;
    let own = env::current_exe()?;
    let bare = own.parent().map(PathBuf::from).unwrap_or_default();
    let annulus = args.annulus.or_else(|| Some(bare.join("annulus"))).filter(|path| path.exists());
    let dir = args.dir.unwrap_or_else(|| bare.join("../bench-files"));
    let place = Place {
        bare,
        annulus,
        cpu: args.cpu,
        root: dir.join("root"),
        file: String::new(),
        body: 0,
        to: SocketAddr::from(([127, 0, 0, 1], 1)),
        scratch: dir.join(format!("run-{}", std::process::id())),
    };
    fs::create_dir_all(&place.root)?;
    fs::create_dir_all(&place.scratch)?;
    let place = Place { root: place.root.canonicalize()?, scratch: place.scratch.canonicalize()?, ..place };
    pin_current_thread(args.drive_cpu)?;
    if cfg!(debug_assertions) {
        eprintln!("compare: this is a debug build: the numbers say nothing");
    }
    let settings = Settings {
        rounds: args.rounds,
        run: Duration::from_millis(args.run_ms),
        only: args.only,
        copy: args.copy,
    };
    let before = report::machine();
    let (mut results, mut all_played) = (Vec::new(), true);
    for work in chosen {
        let reference = args.against.as_deref().unwrap_or(work.reference);
        eprintln!("compare: {} ...", work.name);
        let outcomes = play(&work, &place, &settings)?;
        print!("{}", report::text(&work, &outcomes, reference, &settings));
        all_played &= !outcomes.results.is_empty();
        results.push(report::json(&work, &outcomes, reference));
    }
    fs::remove_dir_all(&place.scratch)?;
    if let Some(path) = args.json {
        let all = serde_json::json!({
            "machine": before,
            "load_average_after": report::machine()["load_average"],
            "rounds": settings.rounds,
            "run_ms": args.run_ms,
            "copy": settings.copy,
            "workloads": results,
        });
        fs::write(&path, format!("{all:#}\n"))
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    }
    Ok(all_played)
}

/// The workloads that `names` stand for, in the table's order; all if there are none.
fn choose(names: &[String]) -> io::Result<Vec<table::Workload>> {
    let all = table::workloads();
    let mut wanted = Vec::new();
    for name in names {
        match table::group(name) {
            Some(members) => wanted.extend_from_slice(members),
            None => match all.iter().find(|work| work.name == name) {
                Some(work) => wanted.push(work.name),
                None => {
                    let known: Vec<&str> = all.iter().map(|work| work.name).collect();
                    let text = format!("no workload `{name}`: roads, small, {}", known.join(", "));
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
            },
        }
    }
    Ok(all.into_iter().filter(|work| names.is_empty() || wanted.contains(&work.name)).collect())
}
