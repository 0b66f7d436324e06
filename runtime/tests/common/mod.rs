//! What the tests of the library share.
#![allow(dead_code, reason = "not every test file uses everything")]

pub(crate) mod hostile;
pub(crate) mod wire;

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use annulus::fs::File;
use annulus::net::{Family, Listener, TcpListener};
use annulus::{Builder, Report, Result, Running, Runtime};

/// Runs `root` on one core (the first that is allowed) and gives its output.
pub(crate) fn on_one_core<F, Fut, T>(root: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    on_one_core_of(small(), root)
}

/// As [`on_one_core`], on a runtime with these settings.
pub(crate) fn on_one_core_of<F, Fut, T>(settings: Builder, root: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    run(on_first_cpu(settings), Mutex::new(Some(root)), |root: &Mutex<Option<F>>| {
        let root = root.lock().unwrap().take().expect("one core, one call");
        root()
    })
    .pop()
    .unwrap()
}

/// Runs `root` on each core of `list` and gives the outputs in the order in which they ended.
pub(crate) fn on_cores<S, F, Fut, T>(list: &str, state: S, root: F) -> Vec<T>
where
    S: Send + Sync + 'static,
    F: Fn(&S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    run(small().cores(list.parse().unwrap()), state, root)
}

/// Settings that an unprivileged user can have several of.
pub(crate) fn small() -> Builder {
    Runtime::builder().pool_bytes(4 << 20).pool_limit(4 << 20).ring_entries(1024)
}

fn run<S, F, Fut, T>(settings: Builder, state: S, root: F) -> Vec<T>
where
    S: Send + Sync + 'static,
    F: Fn(&S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let runtime = settings.build().unwrap();
    let running = runtime
        .start(move || {
            let tx = tx.lock().unwrap().clone();
            let future = hostile::around(root(&state));
            async move {
                tx.send(future.await?).expect("the test waits");
                annulus::Ok(())
            }
        })
        .unwrap();
    let mut ended =
        [rustix::event::PollFd::from_borrowed_fd(running.finished_fd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    nothing_is_leaked(&running);
    running.wait().unwrap();
    rx.into_iter().collect()
}

/// Looks at a runtime whose cores have ended.
fn nothing_is_leaked(running: &annulus::Running) {
    for counters in running.counters() {
        assert_eq!(
            counters.ops_leaked, 0,
            "the kernel kept operations of core {} beyond the end",
            counters.core
        );
    }
}

/// How many bytes to move where `len` would be right: in a guest, whose CPUs are emulated, a sixteenth.
pub(crate) fn bulk(len: usize) -> usize {
    if std::env::var_os("ANNULUS_GUEST").is_some_and(|guest| guest == "1") { len / 16 } else { len }
}

/// Two CPUs for two cores, as a list. None, with a line that says so, where the process has only one: two
/// cores cannot share a CPU.
pub(crate) fn two_cpus() -> Option<String> {
    let allowed = annulus::numa::thread::affinity_of_current().unwrap();
    let mut cpus = allowed.iter();
    match (cpus.next(), cpus.next()) {
        (Some(a), Some(b)) => Some(format!("{a},{b}")),
        _ => {
            println!("skipped: two cores need two CPUs, and this process has {allowed}");
            None
        }
    }
}

/// A runtime on two cores that does what it is sent, until it is stopped. None as for [`two_cpus`].
pub(crate) fn two_idle_cores() -> Option<annulus::Running> {
    Some(idle_cores(&two_cpus()?))
}

/// A runtime on each core of `list` that does what it is sent, until it is stopped.
pub(crate) fn idle_cores(list: &str) -> annulus::Running {
    Runtime::builder()
        .cores(list.parse().unwrap())
        .pool_bytes(1 << 20)
        .ring_entries(256)
        .build()
        .unwrap()
        .start(|| async {
            annulus::cores::stopping().await;
            annulus::Ok(())
        })
        .unwrap()
}

/// What is in force in a runtime whose cores only wait for the end.
pub(crate) fn report_of(runtime: Runtime) -> Result<Report> {
    let running = runtime.start(|| async {
        annulus::cores::stopping().await;
        annulus::Ok(())
    })?;
    let report = running.report();
    running.stop();
    running.wait()?;
    Ok(report)
}

/// Starts a runtime of one core that listens and does `serve`, and says where it listens.
pub(crate) fn listening<Fut>(
    runtime: Runtime,
    serve: impl Fn(TcpListener) -> Fut + Send + Sync + 'static,
) -> (Running, SocketAddr)
where
    Fut: Future<Output = Result<()>> + 'static,
{
    let (tell, address) = mpsc::channel();
    let tell = Mutex::new(tell);
    let running = runtime.start(move || {
        let listener = TcpListener::bind("127.0.0.1:0");
        let served = listener.map(|listener| {
            tell.lock().unwrap().send(listener.local_addr()).expect("the test waits");
            serve(listener)
        });
        async move { served?.await }
    });
    (running.unwrap(), address.recv().expect("it listens"))
}

/// Waits for the end of a runtime that might hang there: then this test fails, and the others go on.
pub(crate) fn must_end(running: annulus::Running) {
    let mut ended =
        [rustix::event::PollFd::from_borrowed_fd(running.finished_fd(), rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    if rustix::event::poll(&mut ended, Some(&patience)).unwrap() == 0 {
        // Dropping it would wait.
        std::mem::forget(running);
        panic!("the runtime does not end");
    }
    nothing_is_leaked(&running);
    running.wait().unwrap();
}

/// One core, on the first CPU that is allowed.
pub(crate) fn on_first_cpu(settings: Builder) -> Builder {
    settings.cores(one_cpu().parse().unwrap())
}

/// One CPU that the process may run on.
pub(crate) fn one_cpu() -> String {
    annulus::numa::thread::affinity_of_current().unwrap().first().unwrap().to_string()
}

/// A directory of its own for each test, removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A file of the numbers 0, 1, 2..., four bytes each.
pub(crate) fn numbers(scratch: &Scratch, count: u32) -> PathBuf {
    let path = scratch.0.join("numbers");
    std::fs::write(&path, (0..count).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    path
}

/// Reads the number `i`.
pub(crate) async fn read_number(file: &File, i: u32) -> Result<()> {
    let (n, buf) = file.read_at(Vec::with_capacity(4), u64::from(i) * 4).await?;
    assert_eq!((n, &buf[..]), (4, &i.to_le_bytes()[..]));
    Ok(())
}

/// Reads so many numbers at once, each in a task of its own.
pub(crate) async fn read_numbers_at_once(file: &File, count: u32) -> Result<()> {
    let reads: Vec<_> = (0..count)
        .map(|i| {
            let file = file.clone();
            annulus::spawn(async move { read_number(&file, i).await })
        })
        .collect();
    for read in reads {
        read.await.expect("no panic")?;
    }
    Ok(())
}

/// As many clients as cores connect one after the other to listeners that share a socket. Each core accepts
/// one and no more, so each must get one.
pub(crate) fn served_by_each_core<F: Family, Fut, C: Read>(
    list: &str,
    cores: usize,
    listen: impl Fn() -> Fut + Send + Sync + 'static,
    connect: impl Fn() -> C + Send + 'static,
) where
    Fut: Future<Output = Result<Listener<F>>> + 'static,
{
    let (tx, rx) = mpsc::channel();
    let clients = thread::spawn(move || {
        assert_eq!(rx.iter().take(cores).count(), cores, "every core is to listen first");
        for _ in 0..cores {
            connect().read_exact(&mut [0; 1]).unwrap();
        }
    });
    on_cores(list, (tx, listen), |(tx, listen)| {
        let (tx, listener) = (tx.clone(), listen());
        async move {
            let listener = listener.await?;
            tx.send(()).unwrap();
            let stream = listener.accept().await?;
            stream.send_all("x").await?;
            Ok(())
        }
    });
    clients.join().unwrap();
}

/// Echoes every client until `clients` have been served.
pub(crate) async fn echo(listener: annulus::net::TcpListener, clients: usize) -> annulus::Result<()> {
    let mut tasks = Vec::with_capacity(clients);
    for _ in 0..clients {
        let stream = listener.accept().await?;
        tasks.push(annulus::spawn(async move {
            while let Some(chunk) = stream.recv().await? {
                stream.send_all(chunk).await?;
            }
            annulus::Ok(())
        }));
    }
    for task in tasks {
        task.await.expect("no panic")?;
    }
    Ok(())
}

/// How many connections with both ends in this process the descriptor limit allows, at most `wanted`. Root
/// may have more than the limit that it came with.
pub(crate) fn connections(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Another test of this process may need more than this one: the limit is never lowered.
    let needed = limit.current.map(|now| now.max(2 * wanted as u64 + 500));
    let raised = Rlimit { current: needed, maximum: limit.maximum.and(limit.maximum.max(needed)) };
    if setrlimit(Resource::Nofile, raised).is_err() {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    }
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |now| now as usize);
    let possible = wanted.min(allowed.saturating_sub(500) / 2);
    if possible < wanted {
        println!(
            "{possible} connections instead of {wanted}: RLIMIT_NOFILE is {allowed}, and may not be raised"
        );
    }
    possible
}

/// Polls `wait` once on a task whose budget is used up, and drops it.
pub(crate) async fn once_without_budget<T>(wait: impl Future<Output = T>) {
    let (other, other_in) = annulus::pipe::pipe().unwrap();
    other_in.write_all("x").await.unwrap();
    annulus::yield_now().await;
    let mut wait = std::pin::pin!(wait);
    let spent = std::future::poll_fn(|cx| {
        for _ in 0..1000 {
            let copied = std::pin::pin!(other_in.write("x")).poll(cx);
            if copied.is_pending() {
                return std::task::Poll::Ready(wait.as_mut().poll(cx).is_pending());
            }
        }
        panic!("a task without a budget");
    });
    assert!(spent.await, "ready without a budget");
    drop(other);
}

/// The program of an example: in the folder that `ANNULUS_EXAMPLES` names, or where cargo puts them, beside
/// the tests' folder. Where only the test programs were copied there are none.
pub(crate) fn example(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ANNULUS_EXAMPLES").map(PathBuf::from);
    let tests = std::env::current_exe().unwrap();
    let path = named.or_else(|| Some(tests.parent()?.parent()?.join("examples")))?.join(name);
    let here = path.exists();
    here_or_left_out(here, &format!("there is no {}; build the examples beside the tests", path.display()));
    here.then_some(path)
}

/// Whether a program of others is installed: a client of an example, of the Debian package `package`.
pub(crate) fn installed(program: &str, package: &str) -> bool {
    let here = std::process::Command::new(program).arg("--version").output().is_ok();
    here_or_left_out(here, &format!("{program} is not installed (Debian: {package})"));
    here
}

/// Says that something is left out. With `ANNULUS_PEERS=required`, as `scripts/test` sets it, that ends the
/// test.
fn here_or_left_out(here: bool, why: &str) {
    if !here {
        let required = std::env::var_os("ANNULUS_PEERS").is_some_and(|value| value == "required");
        assert!(!required, "{why}, and scripts/test should have seen to that");
        println!("left out: {why}");
    }
}

/// Answers what comes, piece by piece, until the end.
pub(crate) async fn answer(stream: annulus::net::TcpStream) -> Result<()> {
    while let Some(chunk) = stream.recv().await? {
        drop(chunk);
        stream.send_all(&b"answer"[..]).await?;
    }
    Ok(())
}
