//! Connections of the server on a core that is played (`annulus::played`): clients whose requests come in
//! any pieces, who take answers slowly, stop, end or reset at any byte. Whatever the order of events, what a
//! client has heard is the beginning of the right answers, whole but for the last, and every answer that is
//! owed comes.

mod exchange;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus::net::Tcp;
use annulus::played::{PlayHandle, Played, Seeds, Tracing, play_program};
use annulus::transfer::Road;
use clap::Parser;
use exchange::{Expected, Files, answers, requests};

use super::Sites;
use super::connection::run;
use super::options::ServeArgs;
use super::roots::Roots;
use super::sites::SiteConfig;
use crate::listen::client::Client as Accepted;
use crate::listen::forwarded::Field;
use crate::listen::gate::Gate;
use crate::listen::networks::AccessList;
use crate::log::access::AccessLog;
use crate::slow::Unwatched;

/// Seeds that every run of the tests plays.
const FEW: u64 = 60;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// A directory to be served, which goes with the value.
struct Root(PathBuf);

impl Root {
    fn with(files: &Files) -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("annulus-served-{}-{number}", std::process::id());
        // Memory where there is such a place: nothing is to be learnt from a disk.
        let memory = Path::new("/dev/shm");
        let path = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
        std::fs::create_dir(&path)?;
        let root = Self(path);
        for (name, content) in files.iter() {
            std::fs::write(root.0.join(name), content)?;
        }
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Nothing that a test could do about it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is served to a few clients at once, on one core.
async fn serves(play: PlayHandle) -> Result<(), String> {
    let files = Rc::new(Files::new());
    let root = Root::with(&files).map_err(|e| format!("cannot make a directory to serve: {e}"))?;
    let mut flags = vec!["serve".into(), root.0.clone().into_os_string()];
    if play.once_in(2) {
        flags.extend(["--cache".into(), "0".into()]);
    }
    let args = Flags::try_parse_from(flags).map_err(|e| e.to_string())?.serve;
    let road = play.pick(&[Road::Inline, Road::Ring]);
    let (configs, access) = ([SiteConfig::of_all(args)], Rc::new(AccessLog::on_core()));
    let sites = loop {
        // No descriptor may be left for it.
        if let Ok(sites) = Sites::open(&configs, road, &access, &Roots::default()).await {
            break Rc::new(sites);
        }
    };
    let gate = Rc::new(Gate::new(AccessList::default(), Vec::new(), Vec::new(), Field::XForwardedFor));
    let clients = (0..1 + play.below(4)).map(|_| {
        let (play, files) = (play.clone(), Rc::clone(&files));
        annulus::spawn(served(play, files, Rc::clone(&sites), Rc::clone(&gate)))
    });
    let clients: Vec<_> = clients.collect();
    let mut seen = Ok(());
    for client in clients {
        seen = seen.and(client.await.map_err(|e| e.to_string())?);
    }
    seen
}

/// One connection, from its first byte to its last.
async fn served(play: PlayHandle, files: Rc<Files>, sites: Rc<Sites>, gate: Rc<Gate>) -> Result<(), String> {
    let asked: Rc<[Expected]> = requests(&play, &files).into();
    let says: Vec<u8> = asked.iter().flat_map(|one| one.request.clone()).collect();
    // How many answers a client lets be outstanding: one waits for each, another says all at once.
    let ahead = play.pick(&[1, 2, 100]);
    let known = Rc::clone(&asked);
    let up_to = move |heard: &[u8]| {
        let answered = answers(&known, heard).map_or(0, |heard| heard.whole);
        known.iter().take(answered + ahead).map(|one| one.request.len() as u64).sum()
    };
    let (stream, client) = play.client(says, up_to);
    let mut accepted = Accepted::new(stream);
    if play.once_in(2) {
        accepted.declared = Some(([192, 0, 2, 1], 4711).into());
    }
    run::<Tcp, Unwatched>(accepted, sites, gate).await;
    let heard = answers(&asked, &client.heard())?;
    play.says(format_args!("{heard:?} of {} answers, reset {}", asked.len(), client.was_reset()));
    if client.was_reset() {
        return Ok(());
    }
    if heard.partial > 0 {
        return Err(format!("the connection ended in the midst of an answer: {heard:?}"));
    }
    let mut end = 0;
    let owed = asked.iter().take_while(|one| {
        end += one.request.len() as u64;
        end <= client.has_said()
    });
    let owed = owed.count();
    if heard.whole < owed && !heard.said_close {
        return Err(format!("{owed} requests have come, and {} were answered", heard.whole));
    }
    Ok(())
}

/// The connections of the server.
fn seeds() -> Seeds<impl Fn(u64, Tracing) -> Played> {
    let play = |seed, tracing| play_program(seed, tracing, serves);
    Seeds { play, command: "scripts/play --server" }
}

/// Seen to fail: see the faults of this folder's name in `scripts/refind`; and at seed 1, with what a first
/// read brings of a small file taken for the whole.
#[test]
fn connections_on_a_core_that_is_played_get_the_answers_that_they_are_owed() {
    seeds().first(FEW);
}

/// For `scripts/play`.
#[test]
#[ignore = "for scripts/play"]
fn one() {
    seeds().one();
}

/// For `scripts/test`.
#[test]
#[ignore = "for scripts/test"]
fn for_a_while() {
    seeds().for_a_while(FEW);
}
