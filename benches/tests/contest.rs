//! The contestants that are Annulus itself, the peers that are not there, and the exit status of a check.

use annulus_benches::contest::contestants::{Contestant, Learn, contestants};
use annulus_benches::contest::launch::{Place, run_own, start};
use annulus_benches::contest::rounds::{Settings, play};
use annulus_benches::contest::table::{Kind, workloads};
use annulus_benches::drive::Load;
use annulus_benches::micro::Op;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const COMPARE: &str = env!("CARGO_BIN_EXE_compare");

/// CPUs that this test may use: two, or the same twice.
fn cpus() -> (u32, u32) {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cpus = (0..1024).filter(|cpu| allowed.is_set(*cpu)).map(|cpu| cpu as u32);
    let first = cpus.next().unwrap();
    (first, cpus.next().unwrap_or(first))
}

fn place(name: &str) -> Place {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&scratch).unwrap();
    let (cpu, other_cpu) = cpus();
    Place {
        bare: Path::new(COMPARE).parent().unwrap().to_owned(),
        peers: scratch.join("nowhere"),
        annulus: None,
        cpu,
        other_cpu,
        root: scratch.clone(),
        file: "file".into(),
        body: 3000,
        to: SocketAddr::from(([127, 0, 0, 1], 1)),
        scratch,
    }
}

fn ours(kind: Kind, name: &str) -> Contestant {
    contestants(kind).into_iter().find(|who| who.name == name).unwrap()
}

#[test]
fn hello_on_annulus_sends_the_right_bytes() {
    let place = place("annulus-hello");
    let server = start(&ours(Kind::Hello(3000), "annulus hello"), &place).unwrap();
    let load = Load::Http { path: "/".into(), body: 3000, connections: 16 };
    load.open(server.address, None, false).unwrap().verify().unwrap();
}

#[test]
fn every_micro_operation_is_done_on_annulus() {
    let place = place("annulus-micro");
    for op in Op::ALL {
        if op == Op::PingPong && place.cpu == place.other_cpu {
            continue;
        }
        let count = if op == Op::Sleepers { 1 } else { 100 };
        let measured = run_own(&ours(Kind::Micro, "annulus"), &place, op, count).unwrap();
        assert!(measured.ops >= 100 && !measured.cpu.is_zero(), "{op:?}: {measured:?}");
        assert_eq!(measured.late.is_some(), op == Op::Sleepers);
    }
}

#[test]
fn what_is_not_built_is_left_out_and_named() {
    let work = workloads().into_iter().find(|work| work.name == "yield").unwrap();
    let settings = Settings { rounds: 2, run: Duration::from_millis(1), only: vec![], copy: false };
    let outcomes = play(&work, &place("left-out"), &settings).unwrap();
    let finished: Vec<&str> = outcomes.results.iter().map(|result| result.who.name.as_str()).collect();
    assert_eq!(finished, ["annulus"]);
    assert!(outcomes.left_out.iter().any(|(name, why)| name == "tokio" && why.contains("peer-tokio")));
    assert_eq!(outcomes.results[0].samples.len(), 2);
}

#[test]
fn a_program_that_measures_nothing_is_an_error_with_what_it_said() {
    let place = place("no-measure");
    let says = |what: &str| Contestant {
        name: "test".into(),
        command: vec!["/bin/sh".into(), "-c".into(), what.into()],
        learn: Learn::Line,
        conf: None,
    };
    for (what, error) in [("echo oops >&2; exit 3", "oops"), ("echo 7", "ops"), ("exec >&-; exit 0", "ops")] {
        let e = run_own(&says(what), &place, Op::Yield, 1).unwrap_err().to_string();
        assert!(e.contains(error), "{what}: {e}");
    }
}

/// Annulus against itself is 1, whatever this machine does: half of that is missed, twice that is met.
#[test]
fn a_check_ends_with_one_if_and_only_if_a_bar_is_missed() {
    let (cpu, drive_cpu) = cpus();
    for (bar, code, verdict) in
        [("0.10", 1, "0 met, 1 missed"), ("10.0", 0, "1 met, 0 missed"), ("-", 0, "1 without")]
    {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("check-{code}-{}", bar.len()));
        std::fs::create_dir_all(&dir).unwrap();
        let bars = dir.join("bars.md");
        let line = format!("| yield | annulus | annulus | {bar} |");
        std::fs::write(&bars, format!("|work|ours|contestant|bar|\n|---|---|---|---|\n{line}\n")).unwrap();
        let out = Command::new(COMPARE)
            .args([
                "--run-ms",
                "1",
                "--cpu",
                &cpu.to_string(),
                "--drive-cpu",
                &drive_cpu.to_string(),
                "--dir",
            ])
            .args([dir.as_os_str(), "--check".as_ref(), bars.as_os_str()])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(code), "{printed} {}", String::from_utf8_lossy(&out.stderr));
        assert!(printed.lines().last().unwrap().contains(verdict), "{printed}");
    }
}
