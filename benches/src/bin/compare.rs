//! Runs contestants beside each other and prints what each costs: one table per workload, and JSON.

use annulus_benches::contest::budget::Budget;
use annulus_benches::contest::launch::Place;
use annulus_benches::contest::rounds::{Outcomes, Settings, play};
use annulus_benches::contest::{bars, check, copy_demo, front, latency, markdown, order, report, svg, table};
use annulus_benches::pin::pin_current_thread;
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

/// Compares servers by the CPU time that each spends on the same work.
///
/// Each contestant runs on one CPU and is driven from another; all take turns in every round, and ratios are
/// of rounds paired. A contestant that sends a wrong byte is left out.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Args {
    /// Workloads or groups; an unknown name lists them [default: all]
    workloads: Vec<String>,
    /// Rounds; below 6 there are no intervals
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds that a contestant works in a round, about
    #[arg(long, default_value_t = 200)]
    run_ms: u64,
    /// Only contestants whose name contains this, or is this where it ends in `=`; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// No contestants whose name contains this, or is this where it ends in `=`; may be repeated
    #[arg(long)]
    without: Vec<String>,
    /// Seconds that all may take: turns become shorter and rounds fewer, but not below 6 while there is time
    #[arg(long)]
    budget: Option<u64>,
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
    /// The directory of the other runtimes' programs [default: ../peers/release beside this program's]
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Have clients read bulk bytes, instead of dropping them in the kernel
    #[arg(long)]
    copy: bool,
    /// Where results go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where results go as a page of Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// A directory in which results go as pictures: cost.svg, speed.svg, latency.svg, and front-cost.svg and
    /// front-latency.svg for a front page
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Instead, draw the pictures of a file that --json wrote
    #[arg(long, value_name = "RESULTS", requires = "svg", conflicts_with_all = ["workloads", "check", "copy_demo"])]
    draw: Option<PathBuf>,
    /// A line for JSON and Markdown, such as versions of the contestants
    #[arg(long, default_value = "")]
    note: String,
    /// Measure the bars of this table instead; exit with 1 if one is missed
    #[arg(long, conflicts_with_all = ["workloads", "rounds", "only", "against", "markdown", "svg"])]
    check: Option<PathBuf>,
    /// Instead, send a file of 1 GiB so many times by copying and without, and say what each took
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["workloads", "check"])]
    copy_demo: Option<u64>,
    /// Instead, read two files that --json wrote, and say whether who was apart stands in the same order;
    /// exit with 1 if not
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], conflicts_with_all = ["workloads", "check", "copy_demo"])]
    same_order: Vec<PathBuf>,
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
    if let [first, second] = &args.same_order[..] {
        return same_order(first, second);
    }
    if let (Some(results), Some(dir)) = (&args.draw, &args.svg) {
        return draw(dir, &read(results)?).map(|()| true);
    }
    let chosen = choose(&args.workloads)?;
    let place = prepare(&args)?;
    pin_current_thread(args.drive_cpu)?;
    if cfg!(debug_assertions) {
        eprintln!("compare: this is a debug build: the numbers say nothing");
    }
    let settings = Settings {
        rounds: args.rounds,
        run: Duration::from_millis(args.run_ms),
        only: args.only.clone(),
        without: args.without.clone(),
        copy: args.copy,
    };
    raise_open_files()?;
    if let Some(times) = args.copy_demo {
        let took = copy_demo::copy_demo(&place, times, settings.copy)?;
        let table = copy_demo::table(&report::machine(), &took, times << 30);
        print!("{table}");
        if let Some(path) = &args.markdown {
            write(path, &table)?;
        }
        fs::remove_dir_all(&place.scratch)?;
        return Ok(!took.is_empty());
    }
    let machine = report::machine();
    let (results, good) = match &args.check {
        Some(table) => measure_bars(table, &place, &settings)?,
        None => {
            let budget = Budget::new(args.budget.map(Duration::from_secs));
            let played = play_all(&chosen, &place, &settings, budget, args.against.as_deref())?;
            let load_after = report::machine()["load_average"].as_str().unwrap_or_default().to_owned();
            if let Some(path) = &args.markdown {
                write(path, &markdown::page(&machine, &load_after, &args.note, &played))?;
            }
            let good = played.iter().all(|(_, outcomes, _)| !outcomes.results.is_empty());
            let json =
                played.iter().map(|(work, outcomes, reference)| report::json(work, outcomes, reference));
            (json.collect(), good)
        }
    };
    fs::remove_dir_all(&place.scratch)?;
    let all = serde_json::json!({
        "machine": machine,
        "note": args.note,
        "load_average_after": report::machine()["load_average"],
        "run_ms": args.run_ms,
        "copy": settings.copy,
        "workloads": results,
    });
    if let Some(path) = args.json {
        write(&path, &format!("{all:#}\n"))?;
    }
    if let Some(dir) = &args.svg {
        draw(dir, &all)?;
    }
    Ok(good)
}

/// Where everything is, with folders for what is served and for what is thrown away.
fn prepare(args: &Args) -> io::Result<Place> {
    let own = env::current_exe()?;
    let bare = own.parent().map(PathBuf::from).unwrap_or_default();
    let annulus = args.annulus.clone().or_else(|| Some(bare.join("annulus"))).filter(|path| path.exists());
    let peers = args.peers.clone().unwrap_or_else(|| bare.join("../peers/release"));
    let dir = args.dir.clone().unwrap_or_else(|| bare.join("../bench-files"));
    let place = Place {
        bare,
        peers,
        annulus,
        cpu: args.cpu,
        other_cpu: args.drive_cpu,
        root: dir.join("root"),
        file: String::new(),
        body: 0,
        to: SocketAddr::from(([127, 0, 0, 1], 1)),
        scratch: dir.join(format!("run-{}", std::process::id())),
    };
    fs::create_dir_all(&place.root)?;
    fs::create_dir_all(&place.scratch)?;
    Ok(Place { root: place.root.canonicalize()?, scratch: place.scratch.canonicalize()?, ..place })
}

/// The pictures of what came out. Those that nothing was measured for are left out.
fn draw(dir: &Path, results: &serde_json::Value) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let (cost, speed) = svg::pictures(results);
    let latency = latency::picture(results, |work| format!("{work}: latency, less is better"), |_, _| true);
    let pictures = [
        ("cost.svg", Some(cost)),
        ("speed.svg", Some(speed)),
        ("latency.svg", latency),
        ("front-cost.svg", front::cost(results)),
        ("front-latency.svg", front::waits(results)),
    ];
    for (name, picture) in pictures {
        if let Some(picture) = picture {
            write(&dir.join(name), &picture)?;
        }
    }
    Ok(())
}

type Played = Vec<(table::Workload, Outcomes, String)>;

fn play_all(
    chosen: &[table::Workload],
    place: &Place,
    settings: &Settings,
    budget: Budget,
    against: Option<&str>,
) -> io::Result<Played> {
    let mut played: Played = Vec::new();
    for (i, work) in chosen.iter().enumerate() {
        let reference = against.unwrap_or(work.reference);
        // What is only another view of the same rounds takes no time.
        let view =
            |i: usize| i > 0 && chosen[i - 1].kind == chosen[i].kind && chosen[i - 1].task == chosen[i].task;
        let outcomes = match played.last() {
            Some((_, outcomes, _)) if view(i) => outcomes.clone(),
            _ => {
                let left: Vec<_> = (i..chosen.len()).filter(|i| !view(*i)).map(|i| &chosen[i]).collect();
                let (settings, until) = budget.share(&left, settings);
                eprintln!("compare: {} ... (turns of {} ms)", work.name, settings.run.as_millis());
                play(work, place, &settings, &until)?
            }
        };
        print!("{}", report::text(work, &outcomes, reference));
        played.push((work.clone(), outcomes, reference.to_owned()));
    }
    Ok(played)
}

/// Results as JSON, and whether no bar was missed.
fn measure_bars(
    table: &Path,
    place: &Place,
    settings: &Settings,
) -> io::Result<(Vec<serde_json::Value>, bool)> {
    let of_table =
        |e: String| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {e}", table.display()));
    let text = fs::read_to_string(table).map_err(|e| of_table(e.to_string()))?;
    let checked = check::check(&bars::parse(&text).map_err(of_table)?, place, settings)?;
    println!("check: {checked}");
    let good = !checked.missed();
    Ok((checked.results, good))
}

fn same_order(first: &Path, second: &Path) -> io::Result<bool> {
    let found = order::agreement(&read(first)?, &read(second)?).map_err(io::Error::other)?;
    println!("order: {found}");
    Ok(found.turned.is_empty())
}

/// A file that --json wrote.
fn read(path: &Path) -> io::Result<serde_json::Value> {
    let bad = |e: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// Thousands of connections need as many descriptors, here and in the servers, which inherit the limit.
fn raise_open_files() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
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
                    let groups: Vec<&str> = table::GROUPS.iter().map(|(group, _)| *group).collect();
                    let known: Vec<&str> = all.iter().map(|work| work.name).collect();
                    let text = format!(
                        "no workload `{name}`; there are the groups {} and {}",
                        groups.join(", "),
                        known.join(", ")
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
            },
        }
    }
    Ok(all.into_iter().filter(|work| names.is_empty() || wanted.contains(&work.name)).collect())
}
