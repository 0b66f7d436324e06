//! Starts the program, waits for its listening line, and ends it as its users do: with a signal.

mod ended;
mod stopped;

pub use ended::Ended;
pub use stopped::Stopped;

use crate::bin;
use crate::lines::Lines;
use crate::prepare::{Prepare, Refusal, Sigpipe};
use ended::{end, stop_at_once, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A command line of `annulus` that is being put together.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// An example of the library in place of `annulus`.
    example: Option<&'static str>,
    /// A copy of it.
    program: Option<PathBuf>,
    wrapper: Vec<OsString>,
    args: Vec<OsString>,
    dir: Option<PathBuf>,
    prepare: Prepare,
    unread: Option<Unread>,
}

/// What standard error is where nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A pipe.
    Pipe,
    /// A FIFO.
    Fifo,
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    line: String,
    out: Option<Lines>,
    err: Option<Lines>,
}

impl Launch {
    /// `annulus`, with no arguments yet.
    pub fn new() -> Launch {
        Launch::default()
    }

    /// `annulus serve ROOT --listen 127.0.0.1:0 --processes one`: what a test sees of the process, it sees of
    /// the server.
    pub fn serve(root: &Path) -> Launch {
        Launch::new().arg("serve").arg(root).listen("127.0.0.1:0").processes("one")
    }

    /// `annulus proxy --to UPSTREAM --listen 127.0.0.1:0 --processes one`.
    pub fn proxy(upstream: SocketAddr) -> Launch {
        Launch::new()
            .arg("proxy")
            .arg("--to")
            .arg(upstream.to_string())
            .listen("127.0.0.1:0")
            .processes("one")
    }

    /// `NAME 127.0.0.1:0 CORES`, an example of the library that is a server.
    pub fn example(name: &'static str, cores: &str) -> Launch {
        let launch = Launch { example: Some(name), ..Launch::default() };
        launch.arg("127.0.0.1:0").arg(cores)
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Some more arguments.
    pub fn args<const N: usize>(self, args: [&str; N]) -> Launch {
        args.into_iter().fold(self, Launch::arg)
    }

    /// `--listen ADDR`, in place of an earlier one.
    pub fn listen(self, addr: &str) -> Launch {
        self.with("--listen", addr)
    }

    /// `--processes HOW`, in place of an earlier one.
    pub fn processes(self, how: &str) -> Launch {
        self.with("--processes", how)
    }

    fn with(mut self, flag: &str, value: &str) -> Launch {
        if let Some(at) = self.args.iter().position(|arg| arg == flag) {
            self.args.drain(at..at + 2);
        }
        self.arg(flag).arg(value)
    }

    /// `--road ROAD`.
    pub fn road(self, road: &str) -> Launch {
        self.arg("--road").arg(road)
    }

    /// `--cores LIST`.
    pub fn cores(self, list: &str) -> Launch {
        self.arg("--cores").arg(list)
    }

    /// `--grace SECS`: how long connections may go on after a signal.
    pub fn grace(self, seconds: u32) -> Launch {
        self.arg("--grace").arg(seconds.to_string())
    }

    /// Runs it under another program, such as `taskset -c 0`.
    pub fn under(mut self, wrapper: &[&str]) -> Launch {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Runs it with this working directory.
    pub fn within(mut self, dir: &Path) -> Launch {
        self.dir = Some(dir.to_owned());
        self
    }

    /// What SIGPIPE does when the program starts.
    pub fn sigpipe(mut self, sigpipe: Sigpipe) -> Launch {
        self.prepare.sigpipe = Some(sigpipe);
        self
    }

    /// SIGINT and SIGTERM come blocked.
    pub fn signals_blocked(mut self) -> Launch {
        self.prepare.signals_blocked = true;
        self
    }

    /// RLIMIT_NOFILE, in descriptors.
    pub fn open_files(mut self, count: u64) -> Launch {
        self.prepare.open_files = Some(count);
        self
    }

    /// RLIMIT_MEMLOCK, in bytes.
    pub fn locked_memory(mut self, bytes: u64) -> Launch {
        self.prepare.locked_memory = Some(bytes);
        self
    }

    /// System calls that the kernel refuses with `errno`.
    pub fn refused(mut self, syscalls: &[libc::c_long], errno: i32) -> Launch {
        self.prepare.refusal = Some(Refusal { syscalls: syscalls.to_vec(), errno });
        self
    }

    /// It may start threads, and no process.
    pub fn threads_only(mut self) -> Launch {
        self.prepare.no_processes = true;
        self
    }

    /// Nobody reads its standard error from the listening line on until it has ended.
    pub fn unread(mut self, unread: Unread) -> Launch {
        self.unread = Some(unread);
        self
    }

    /// Runs this copy of the program in its place.
    pub fn program(mut self, program: &Path) -> Launch {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts it and returns once its first line with `listening on` is there.
    #[track_caller]
    pub fn start(self) -> Server {
        let (mut child, out, err) = self.spawn();
        let found = err.wait_for("the listening line", |line| {
            line.contains("listening on").then(|| (line.to_owned(), address(line)))
        });
        match found {
            Some((line, Some(addr))) => Server { child, addr, line, out: Some(out), err: Some(err) },
            Some((line, None)) => {
                stop_at_once(&mut child);
                panic!("{self:?}: no address in the listening line {line:?}");
            }
            None => {
                let ended = end(child, out, err);
                panic!("{self:?} ended without listening: {ended:#?}");
            }
        }
    }

    /// Runs it to its own end. A server that listens instead of ending is a failure at once.
    #[track_caller]
    pub fn run(self) -> Ended {
        match self.clone().start_or_end() {
            Ok(server) => panic!("{self:?} should have ended, and says {:?}", server.line()),
            Err(ended) => ended,
        }
    }

    /// Starts it and waits for whichever comes first: it listens, or it ends.
    ///
    /// # Errors
    /// It has ended.
    #[track_caller]
    pub fn start_or_end(self) -> Result<Server, Ended> {
        let (child, out, err) = self.spawn();
        let found = err.wait_for("the listening line or the end", |line| {
            line.contains("listening on").then(|| address(line).map(|addr| (line.to_owned(), addr))).flatten()
        });
        match found {
            Some((line, addr)) => Ok(Server { child, addr, line, out: Some(out), err: Some(err) }),
            None => Err(end(child, out, err)),
        }
    }

    /// Starts it while the test does something to it, and runs it to its own end.
    #[track_caller]
    pub fn run_while(self, act: impl FnOnce(u32)) -> Ended {
        let (child, out, err) = self.spawn();
        act(child.id());
        end(child, out, err)
    }

    #[track_caller]
    fn spawn(&self) -> (Child, Lines, Lines) {
        let binary =
            self.program.clone().unwrap_or_else(|| self.example.map_or_else(bin::annulus, bin::example));
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program is at least one word"));
        command.args(words).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let fifo = self.unread.filter(|unread| *unread == Unread::Fifo).map(|_| fifo());
        let fifo = fifo.map(|(read, write)| {
            command.stderr(write);
            read
        });
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        // What a test says about output must not depend on who runs it.
        command.env_remove("ANNULUS_LOG").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        self.prepare.apply(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
        let out = Lines::collect(child.stdout.take().expect("a piped stdout"));
        // The command holds the FIFO's other end, and is not to.
        drop(command);
        let err: Box<dyn std::io::Read + Send> = match fifo {
            Some(fifo) => Box::new(fifo),
            None => Box::new(child.stderr.take().expect("a piped stderr")),
        };
        let unread = self.unread.is_some();
        let err = Lines::until(err, move |line| unread && line.contains("listening on"));
        (child, out, err)
    }
}

impl Server {
    /// Where it listens, as its line says.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The listening line.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The URL of `path` (which begins with a slash).
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error.
    pub fn err(&self) -> &Lines {
        self.err.as_ref().expect("a running server's standard error")
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal)
            .unwrap_or_else(|e| panic!("sending {signal:?} to {}: {e}", self.pid()));
    }

    /// Ends the test if the server no longer runs.
    #[track_caller]
    pub fn must_live(&mut self) {
        let status = self.child.try_wait().expect("asking after the server");
        assert!(status.is_none(), "the server ended: {status:?}; it said {:#?}", self.err().so_far());
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let (out, err) = (self.out.take().expect("its output"), self.err.take().expect("its errors"));
        let status = wait(&mut self.child);
        Ended { status, out: out.all(), err: err.all() }
    }

    /// Sends SIGTERM, waits, and ends the test unless the exit code is 0.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        let ended = self.wait();
        assert_eq!(ended.code(), 0, "after SIGTERM: {ended:#?}");
        ended
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop_at_once(&mut self.child);
    }
}

/// The address in `annulus: listening on [http://]ADDR[, relaying to ADDR]`.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.split_once("listening on ")?.1;
    let rest = rest.strip_prefix("http://").unwrap_or(rest);
    rest.split([',', '/', ' ']).next()?.parse().ok()
}

/// Both ends of a FIFO without a name any more.
fn fifo() -> (std::fs::File, std::fs::File) {
    let tree = crate::files::Tree::new();
    tree.fifo("stderr");
    let path = tree.at("stderr");
    let both = std::fs::File::options().read(true).write(true).open(&path).expect("opening a FIFO");
    let read = std::fs::File::open(&path).expect("opening a FIFO to read");
    let write = std::fs::File::options().write(true).open(&path).expect("opening a FIFO to write");
    drop(both);
    (read, write)
}
