//! What the attributes [`main`](macro@main) and [`test`](macro@test) call.

use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::builder::{Builder, Runtime};
use crate::core::placement::PlacementPolicy;
use crate::numa::CpuSet;
use crate::numa::plan::CoreSelection;
use crate::{Error, ErrorKind, Result};

/// Makes an `async fn main` the body of the program: it runs once, on one core.
///
/// ```no_run
/// #[annulus::main]
/// async fn main() -> annulus::Result<()> {
///     let listener = annulus::net::TcpListener::bind("127.0.0.1:7000")?;
///     loop {
///         let stream = listener.accept().await?;
///         annulus::spawn(async move {
///             while let Some(chunk) = stream.recv().await? {
///                 stream.send_all(chunk).await?;
///             }
///             annulus::Ok(())
///         })
///         .detach();
///     }
/// }
/// ```
///
/// In brackets, all of it optional:
///
/// | | |
/// |---|---|
/// | `cores = 4` | at most this many cores, the first of the plan; 1 by default |
/// | `cores = "0-3,8"` | a core on each of these CPUs |
/// | `cores = "all"` | a core on every CPU that the process may use |
/// | `pool_bytes = 4 << 20` | [`Builder::pool_bytes`](crate::Builder::pool_bytes) |
/// | `name = "echo"` | [`Builder::name`](crate::Builder::name) |
/// | `crate = "path::to::annulus"` | where the crate is, if it is not called `annulus` here |
///
/// The body runs on the first core. Others serve [`submit_to`](crate::cores::submit_to) and
/// [`Sharded`](crate::cores::Sharded) until it has ended. For a body on every core there is
/// [`Runtime::run`](crate::Runtime::run), and for every other setting
/// [`Runtime::builder`](crate::Runtime::builder).
///
/// ```
/// use annulus::cores;
///
/// #[annulus::main(cores = "all", pool_bytes = 1 << 20)]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     assert_eq!(cores::index(), 0);
///     for core in 0..cores::count() {
///         assert_eq!(cores::submit_to(core, async || cores::index()).await?, core);
///     }
///     Ok(())
/// }
/// ```
///
/// The body's result decides the program's exit code, as [`Termination`] has it. The core that ran the body
/// prints an error. A runtime that cannot start prints the reason, and the exit code is 2 where a setting
/// cannot be met, 3 where the machine refuses (`io_uring` off), else 1.
///
/// # Panics
/// When the body does, once all cores have ended.
///
/// # Bad input
///
/// ```compile_fail
/// #[annulus::main]
/// fn main() {} // not async
/// ```
///
/// ```compile_fail
/// #[annulus::main(cores = "3-0")] // no list of CPUs
/// async fn main() {}
/// ```
///
/// ```compile_fail
/// #[annulus::main(threads = 4)] // not known
/// async fn main() {}
/// ```
pub use annulus_macros::main;

/// Makes an `async fn` a test that runs on a core of its own.
///
/// ```
/// # mod tests {
/// #[annulus::test]
/// async fn what_is_sent_is_received() -> annulus::Result<()> {
///     let (a, b) = annulus::net::UnixStream::pair()?;
///     a.send_all("ping").await?;
///     assert_eq!(b.recv().await?.as_deref(), Some(&b"ping"[..]));
///     Ok(())
/// }
/// # }
/// ```
///
/// Other attributes stay: `#[ignore]`, and `#[should_panic]` for a test without a return type. A panic of the
/// body is the test's. The settings of [`main`](macro@main) work here too. `cores = 2` is at most two cores,
/// so that the test runs on a machine with one CPU as well. A list of CPUs ties a test to a machine that has
/// them.
///
/// Many such tests may run at once: each has a small ring, a small pool (512 KiB), and no blocks registered
/// with the ring, so that 256 cores of tests fit together within what a user may lock (`RLIMIT_MEMLOCK`, 8
/// MiB for most). They take turns on the CPUs of the process, and their memory is not placed.
///
/// ```compile_fail
/// #[annulus::test]
/// async fn takes_something(n: usize) {}
/// ```
pub use annulus_macros::test;

/// Bytes of the pool of a test's core.
const TEST_POOL: usize = 512 << 10;
/// Entries of its ring.
const TEST_RING: u32 = 128;
/// Cores of tests that one user has at a time, in all processes.
const TEST_CORES: usize = 256;

/// Which cores a program has.
#[derive(Debug, Clone, Copy)]
pub enum Cores {
    /// All that the process may use.
    All,
    /// At most this many.
    Most(usize),
    /// These CPUs, as text.
    List(&'static str),
}

/// The settings in the brackets.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    cores: Option<Cores>,
    pool_bytes: Option<usize>,
    name: Option<&'static str>,
}

impl Settings {
    /// No settings.
    #[expect(clippy::new_without_default, reason = "for macros")]
    pub fn new() -> Self {
        Self { cores: None, pool_bytes: None, name: None }
    }

    /// Which cores to use.
    pub fn cores(self, cores: Cores) -> Self {
        Self { cores: Some(cores), ..self }
    }

    /// Bytes of each core's pool.
    pub fn pool_bytes(self, bytes: usize) -> Self {
        Self { pool_bytes: Some(bytes), ..self }
    }

    /// The name of the threads.
    pub fn name(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// `builder` with these settings.
    fn over(self, mut builder: Builder) -> Result<Builder> {
        builder = match self.cores {
            None => builder.most_cores(1),
            Some(Cores::All) => builder,
            Some(Cores::Most(most)) => builder.most_cores(most),
            Some(Cores::List(list)) => builder.cores(list.parse()?),
        };
        if let Some(bytes) = self.pool_bytes {
            builder = builder.pool_bytes(bytes);
        }
        if let Some(name) = self.name {
            builder = builder.name(name);
        }
        Ok(builder)
    }
}

/// The exit code of a body's result. It is made on the body's core, so the result need not be `Send`.
pub fn report(output: impl Termination) -> ExitCode {
    output.report()
}

/// Runs the body of a program.
#[track_caller]
pub fn main<F>(settings: Settings, body: F) -> ExitCode
where
    F: AsyncFnOnce() -> ExitCode + Send + 'static,
{
    let runtime = settings.over(Runtime::builder()).and_then(Builder::build);
    match runtime.and_then(|runtime| runtime.block_on(body)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("Error: {e:?}");
            ExitCode::from(match e.kind() {
                ErrorKind::Input => 2,
                ErrorKind::Platform => 3,
                _ => 1,
            })
        }
    }
}

/// Runs the body of a test.
///
/// # Panics
/// When the body does, and when the runtime cannot start.
#[track_caller]
pub fn test<F, T>(settings: Settings, body: F) -> T
where
    F: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let tested = test_runtime(settings).and_then(|runtime| runtime.block_on(body));
    tested.unwrap_or_else(|e| panic!("the runtime of this test: {e}"))
}

fn test_runtime(settings: Settings) -> Result<Runtime> {
    let allowed = crate::numa::thread::affinity_of_current()?;
    let mut builder = Runtime::builder()
        .pool_bytes(TEST_POOL)
        .ring_entries(TEST_RING)
        .placement(PlacementPolicy::Off)
        .cores_of_user(TEST_CORES)
        .name("test");
    if settings.cores.is_none() {
        builder = builder.cores(next_of(&allowed)?);
    }
    settings.over(builder)?.build()
}

/// One of these CPUs; each call takes the next.
fn next_of(allowed: &CpuSet) -> Result<CoreSelection> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % allowed.iter().count().max(1);
    let cpu = allowed.iter().nth(turn);
    let cpu = cpu.ok_or_else(|| Error::new(ErrorKind::Platform, "no CPU is allowed to this process"))?;
    Ok(CoreSelection::List(cpu.into()))
}
