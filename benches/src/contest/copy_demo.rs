//! A large file to one client by copying and without: what `time` would say of each server.

use super::contestants::contestants;
use super::launch::{Place, start};
use super::rounds::make_file;
use super::table::Kind;
use crate::cputime::user_and_system;
use crate::drive::Load;
use serde_json::Value;
use std::io;
use std::time::Duration;

/// The file, and who serves it. It stays in memory, so that the disk is not what is compared.
const FILE: u64 = 1 << 30;
const PLAYERS: [(&str, &str); 4] = [
    ("bare read-send:64k", "read, then send"),
    ("bare sendfile:all", "sendfile"),
    ("annulus serve", "annulus serve"),
    ("nginx sendfile on", "nginx, sendfile"),
];

/// What one server took.
pub struct Took {
    /// As in the text.
    pub name: &'static str,
    /// From the first byte to the last.
    pub wall: Duration,
    /// CPU in user mode, and in the kernel.
    pub cpu: (Duration, Duration),
}

/// Has each server send a file of 1 GiB `times` times, over one connection. One that is not there is told of
/// on stderr.
///
/// # Errors
/// The file cannot be made.
pub fn copy_demo(place: &Place, times: u64, copy: bool) -> io::Result<Vec<Took>> {
    let place = Place { file: "1g".into(), body: FILE, ..place.clone() };
    make_file(&place.root.join(&place.file), FILE)?;
    let load = Load::Http { path: "/1g".into(), body: FILE, connections: 1 };
    let mut all = Vec::new();
    for (who, name) in PLAYERS {
        let Some(who) = contestants(Kind::File(FILE)).into_iter().find(|found| found.name == who) else {
            continue;
        };
        let measure = || {
            let server = start(&who, &place)?;
            let mut session = load.open(server.address, None, copy)?;
            session.verify()?;
            let before = user_and_system(server.pid())?;
            let wall = session.run(times)?.wall;
            let after = user_and_system(server.pid())?;
            Ok::<Took, io::Error>(Took { name, wall, cpu: (after.0 - before.0, after.1 - before.1) })
        };
        match measure() {
            Ok(took) => all.push(took),
            Err(e) => eprintln!("compare: left out: {}: {e}", who.name),
        }
    }
    Ok(all)
}

/// As a table in Markdown.
pub fn table(machine: &Value, all: &[Took], bytes: u64) -> String {
    let mut out = format!(
        "{:.1} GB from a file in memory to one client over loopback, Linux {}, {}, load average {}:\n\n\
         | server | wall s | user s | sys s |\n|---|---|---|---|\n",
        bytes as f64 / 1e9,
        machine["kernel"].as_str().unwrap_or("?"),
        machine["cpu"].as_str().unwrap_or("?"),
        machine["load_average"].as_str().unwrap_or("?"),
    );
    for Took { name, wall, cpu: (user, system) } in all {
        let [wall, user, system] = [wall, user, system].map(Duration::as_secs_f64);
        out.push_str(&format!("| {name} | {wall:.2} | {user:.2} | {system:.2} |\n"));
    }
    out
}
