//! Starting a program on one CPU, learning its address, and ending it.

use super::contestants::{Contestant, Learn};
use crate::cputime;
use crate::micro::{Measured, Op};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a program may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program that measures itself may take.
const OWN_PATIENCE: Duration = Duration::from_secs(60);

/// What the placeholders of a command line stand for.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory of our own binaries.
    pub bare: PathBuf,
    /// The directory of the other runtimes' binaries.
    pub peers: PathBuf,
    /// The program under test, if it is there.
    pub annulus: Option<PathBuf>,
    /// Where the program runs.
    pub cpu: u32,
    /// Where its other thread runs, if it measures itself with two; else the driver's.
    pub other_cpu: u32,
    /// The directory that is served.
    pub root: PathBuf,
    /// The name in it of the file that is asked for.
    pub file: String,
    /// Bytes of that file.
    pub body: u64,
    /// The backend of a relay.
    pub to: SocketAddr,
    /// Where programs get directories of their own.
    pub scratch: PathBuf,
}

/// A program that listens. Dropping it ends it.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    ended: bool,
}

impl Running {
    /// Nanoseconds of CPU that it and its children have spent so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        cputime::process_tree_ns(self.child.id())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// It is gone.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Waits until it has at most `most` descriptors open.
    ///
    /// # Errors
    /// It still has more after ten seconds, or is gone.
    pub fn wait_for_descriptors(&self, most: usize) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.descriptors()? > most {
            if Instant::now() > deadline {
                let left = self.descriptors()?;
                return Err(io::Error::other(format!("{left} descriptors are open where {most} were due")));
            }
            // Nothing tells of a descriptor that another process closes.
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks it to end by SIGTERM, waits for it and says how it ended: ours with 0, others as they please.
    ///
    /// # Errors
    /// It did not end in time, and was killed.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.ended = true;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Err(io::Error::other("did not end on SIGTERM"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            kill(&mut self.child);
        }
    }
}

/// Ends a child that is of no use any more.
fn kill(child: &mut Child) {
    // Both fail only for a child that has ended and was waited for, which is what is wanted.
    if let Err(e) = child.kill().and_then(|()| child.wait()) {
        eprintln!("cannot end process {}: {e}", child.id());
    }
}

/// Fills in the placeholders of `text`.
fn fill_in(text: &str, place: &Place, scratch: &Path, port: u16) -> String {
    let annulus = place.annulus.as_deref().unwrap_or(Path::new("annulus"));
    let file = place.root.join(&place.file);
    [
        ("{bare}", place.bare.display().to_string()),
        ("{peers}", place.peers.display().to_string()),
        ("{annulus}", annulus.display().to_string()),
        ("{cpu}", place.cpu.to_string()),
        ("{other_cpu}", place.other_cpu.to_string()),
        ("{root}", place.root.display().to_string()),
        ("{path}", place.file.clone()),
        ("{file}", file.display().to_string()),
        ("{body}", place.body.to_string()),
        ("{to}", place.to.to_string()),
        ("{port}", port.to_string()),
        ("{scratch}", scratch.display().to_string()),
    ]
    .iter()
    .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Starts `who` on its CPU and waits until it listens.
///
/// # Errors
/// It is not installed, ended at once (with what it said last), or does not listen in time.
pub fn start(who: &Contestant, place: &Place) -> io::Result<Running> {
    if place.annulus.is_none() && who.command[0] == "{annulus}" {
        return Err(io::Error::new(io::ErrorKind::NotFound, "not built: name it by --annulus PATH"));
    }
    let scratch = place.scratch.join(who.name.replace([' ', ':'], "-"));
    std::fs::create_dir_all(&scratch)?;
    let port = free_port()?;
    if let Some(conf) = &who.conf {
        std::fs::write(scratch.join("conf"), fill_in(conf, place, &scratch, port))?;
    }
    let words: Vec<String> = who.command.iter().map(|word| fill_in(word, place, &scratch, port)).collect();
    let mut child = spawn(&words, [place.cpu; 2], Stdio::null())?;
    let Some(stderr) = child.stderr.take() else { return Err(io::Error::other("no stderr")) };
    let lines = read_lines(stderr);
    let address = match who.learn {
        Learn::Line => wait_for_line(&lines),
        Learn::Port => wait_for_port(port, &lines, &mut child),
    };
    match address {
        Ok(address) => Ok(Running { child, address, ended: false }),
        Err(e) => {
            kill(&mut child);
            let said: Vec<String> = lines.try_iter().collect();
            Err(if said.is_empty() {
                e
            } else {
                io::Error::other(format!("{e}; it said: {}", said.join("; ")))
            })
        }
    }
}

/// Has `who` do `op` so often, on its CPU and the other one, and reads what it measured.
///
/// # Errors
/// It is not installed, failed (with what it said), takes longer than a minute, or prints something else.
pub fn run_own(who: &Contestant, place: &Place, op: Op, count: u64) -> io::Result<Measured> {
    let words: Vec<String> = who
        .command
        .iter()
        .map(|word| fill_in(word, place, &place.scratch, 0))
        .map(|word| word.replace("{op}", op.name()).replace("{count}", &count.to_string()))
        .collect();
    let mut child = spawn(&words, [place.cpu, place.other_cpu], Stdio::piped())?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // What it prints is far less than a pipe holds, so it ends without being read from; the write end closes
    // then.
    let ended = match &out {
        Some(out) => {
            let limit = Timespec { tv_sec: OWN_PATIENCE.as_secs() as i64, tv_nsec: 0 };
            poll(&mut [PollFd::new(out, PollFlags::IN)], Some(&limit))? > 0
        }
        None => false,
    };
    if !ended {
        kill(&mut child);
        return Err(io::Error::other(format!("took longer than {} s", OWN_PATIENCE.as_secs())));
    }
    let (mut printed, mut said) = (String::new(), String::new());
    if let (Some(mut out), Some(mut err)) = (out, err) {
        out.read_to_string(&mut printed)?;
        err.read_to_string(&mut said)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("ended with {status}: {}", said.trim())));
    }
    printed.trim().parse().map_err(io::Error::other)
}

/// Starts a program that may run on `cpus`.
fn spawn(words: &[String], cpus: [u32; 2], stdout: Stdio) -> io::Result<Child> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    // SAFETY: between fork and exec the closure makes two system calls; on success it does not allocate.
    unsafe {
        command.pre_exec(move || {
            // A harness that is killed must not leave servers behind.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            crate::pin::keep_current_thread_on(&cpus)
        });
    }
    command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", words[0])))
}

/// A port that nobody listens on now. Another program may take it before ours does; then ours says so and is
/// left out.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Reads what a program says, so that it never blocks on a full pipe.
fn read_lines(stderr: ChildStderr) -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            // What is read after the address was learned is of no interest, but must be read.
            let Ok(line) = line else { return };
            if to.send(line).is_err() {
                continue;
            }
        }
    });
    lines
}

fn wait_for_line(lines: &Receiver<String>) -> io::Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => match address_in(&line) {
                Some(address) => return Ok(address),
                None => said.push(line),
            },
            Err(RecvTimeoutError::Timeout) => {
                return Err(io::Error::other(format!("does not say where it listens: {}", said.join("; "))));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other(format!("ended at once: {}", said.join("; "))));
            }
        }
    }
}

/// The address in a line such as `annulus: listening on http://127.0.0.1:8080` or `listening on 127.0.0.1:1,
/// ...`.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let rest = rest.strip_prefix("http://").unwrap_or(rest);
    let end = rest.find(|c: char| c == ',' || c == '/' || c.is_whitespace()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn wait_for_port(port: u16, lines: &Receiver<String>, child: &mut Child) -> io::Result<SocketAddr> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if TcpStream::connect(address).is_ok() {
            return Ok(address);
        }
        if let Some(status) = child.try_wait()? {
            let said: Vec<String> = lines.iter().collect();
            return Err(io::Error::other(format!("ended at once with {status}: {}", said.join("; "))));
        }
        // Such a program gives no sign that it listens, so there is nothing to wait for but time.
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("does not listen on port {port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_programs_print() {
        for line in [
            "listening on 127.0.0.1:81",
            "annulus: listening on http://127.0.0.1:81",
            "annulus: listening on http://127.0.0.1:81/",
            "annulus: listening on 127.0.0.1:81, relaying to 127.0.0.1:9",
        ] {
            assert_eq!(address_in(line), Some(SocketAddr::from(([127, 0, 0, 1], 81))), "{line}");
        }
        assert_eq!(address_in("listening on nothing"), None);
        assert_eq!(address_in("127.0.0.1:81"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let who = Contestant {
            name: "nobody".into(),
            command: vec!["/nonexistent/program".into()],
            learn: Learn::Line,
            conf: None,
            streams: false,
        };
        let place = Place {
            bare: PathBuf::new(),
            peers: PathBuf::new(),
            annulus: None,
            cpu: 0,
            other_cpu: 0,
            root: PathBuf::new(),
            file: String::new(),
            body: 0,
            to: SocketAddr::from(([127, 0, 0, 1], 1)),
            scratch: std::env::temp_dir().join(format!("annulus-launch-{}", std::process::id())),
        };
        let errors = [start(&who, &place).map(drop), run_own(&who, &place, Op::Yield, 1).map(drop)];
        std::fs::remove_dir_all(&place.scratch).unwrap();
        for error in errors.map(Result::unwrap_err) {
            assert!(error.to_string().contains("/nonexistent/program"), "{error}");
        }
    }
}
