//! What the program around a runtime may count on: the runtime keeps to itself.
//!
//! What belongs to the whole process is looked at here, so the tests take turns.

mod common;

use std::any::Any;
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as Std};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use annulus::buf::Block;
use annulus::fs::{Dir, File, OpenOptions};
use annulus::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use annulus::transfer::{Road, relay, send_file};
use annulus::{Builder, ErrorKind, Result, Running, Runtime};
use common::{Scratch, small};
use rustix::process::{Resource, Rlimit, setrlimit};

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_first_cpu(settings: Builder) -> Builder {
    let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    settings.cores(first.to_string().parse().unwrap())
}

// What a runtime can hold.

type Held = Vec<Box<dyn Any>>;
/// What it is called, and how it is made.
type Thing = (&'static str, fn() -> Making);
type Making = Pin<Box<dyn Future<Output = Result<Held>>>>;

/// Everything that has a descriptor or memory of its own, each made in the state in which most of it is open. A new type
/// gets a line here.
const THINGS: &[Thing] = &[
    ("TCP listener, accepted and connected streams", || Box::pin(tcp())),
    ("Unix listener, accepted and connected streams, a pair", || Box::pin(unix())),
    ("UDP socket", || Box::pin(udp())),
    ("files and directories", || Box::pin(files())),
    ("pipes of a transfer", || Box::pin(pipes())),
    ("blocking threads", || Box::pin(blocking())),
];

fn held(things: impl IntoIterator<Item = Box<dyn Any>>) -> Result<Held> {
    Ok(things.into_iter().collect())
}

async fn pair() -> Result<(TcpListener, TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = TcpStream::connect(listener.local_addr()).await?;
    let accepted = listener.accept().await?;
    Ok((listener, connected, accepted))
}

async fn tcp() -> Result<Held> {
    let (listener, connected, accepted) = pair().await?;
    connected.send_all("x").await?;
    // Both multishots are armed from here on.
    accepted.recv().await?;
    held([Box::new(listener) as Box<dyn Any>, Box::new(connected), Box::new(accepted)])
}

async fn unix() -> Result<Held> {
    let scratch = Scratch::new("hygiene-unix");
    let path = scratch.0.join("socket");
    let listener = UnixListener::bind(&path)?;
    let connected = UnixStream::connect(&path).await?;
    let accepted = listener.accept().await?;
    held([
        Box::new(listener) as Box<dyn Any>,
        Box::new(connected),
        Box::new(accepted),
        Box::new(UnixStream::pair()?),
        Box::new(scratch),
    ])
}

async fn udp() -> Result<Held> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to("x", socket.local_addr()?).await?;
    socket.recv().await?;
    held([Box::new(socket) as Box<dyn Any>])
}

async fn files() -> Result<Held> {
    let scratch = Scratch::new("hygiene-files");
    let path = scratch.0.join("file");
    let created = File::create(&path).await?;
    let dir = Dir::open(&scratch.0).await?;
    let beneath = dir.open_beneath("file", OpenOptions::new()).await?;
    let again = dir.open_dir(".").await?;
    held([
        Box::new(created) as Box<dyn Any>,
        Box::new(beneath),
        Box::new(dir),
        Box::new(again),
        Box::new(scratch),
    ])
}

/// A pipe goes back to the core's pool when its transfer has ended: it stays open.
async fn pipes() -> Result<Held> {
    let scratch = Scratch::new("hygiene-pipes");
    let path = scratch.0.join("file");
    std::fs::write(&path, vec![1; 100_000]).unwrap();
    let (listener, connected, accepted) = pair().await?;
    let reader = annulus::spawn(async move {
        while accepted.recv().await?.is_some() {}
        annulus::Ok(())
    });
    let file = File::open(&path, OpenOptions::new()).await?;
    for road in [Road::Inline, Road::Ring] {
        send_file(&connected, &file, 0..100_000, road).await.expect("sent");
    }
    assert!(annulus::core::counters().pipes_made > 0 || !reader.is_finished());
    // One that is under way, and whose pipe may be in use.
    let (l2, a, b) = pair().await?;
    let relaying = annulus::spawn(async move { drop(relay(a, b, Road::Inline).await) });
    held([
        Box::new(listener) as Box<dyn Any>,
        Box::new(connected),
        Box::new(reader),
        Box::new(l2),
        Box::new(relaying),
    ])
}

async fn blocking() -> Result<Held> {
    annulus::spawn_blocking(|| ()).await.expect("it runs");
    held([])
}

/// Runs `look` while a runtime holds all of [`THINGS`], on its core's thread.
fn with_everything_open<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    common::on_one_core(|| async move {
        let mut all = Vec::new();
        for (name, make) in THINGS {
            all.push(make().await.unwrap_or_else(|e| panic!("{name}: {e}")));
        }
        let block = Block::take();
        let seen = look();
        drop((all, block));
        Ok(seen)
    })
}

// Descriptors.

/// Number and target of each open descriptor, without the one that is open for the look.
fn descriptors() -> BTreeSet<String> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
        let path = fd.unwrap().path();
        let target = std::fs::read_link(&path).ok()?;
        let number = path.file_name()?.display().to_string();
        (!target.starts_with("/proc")).then(|| format!("{number} {}", target.display()))
    });
    all.collect()
}

/// The descriptors that a program finds which this one executes now.
fn descriptors_of_a_child() -> BTreeSet<String> {
    let child = child("lists_its_descriptors").output().unwrap();
    let told = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{told}");
    told.lines().filter_map(|line| line.strip_prefix("has ")).map(str::to_owned).collect()
}

/// This program again, with one test that does nothing unless it is a child.
fn child(test: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("ANNULUS_CHILD", "1");
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn is_child() -> bool {
    std::env::var_os("ANNULUS_CHILD").is_some()
}

#[test]
fn lists_its_descriptors() {
    if is_child() {
        // The harness writes to the same line.
        println!();
        // Its standard ones are the test's.
        descriptors()
            .iter()
            .filter(|fd| !["0 ", "1 ", "2 "].iter().any(|n| fd.starts_with(n)))
            .for_each(|fd| println!("has {fd}"));
    }
}

/// Seen to fail: with a pipe of the pool made without `O_CLOEXEC`, and for the descriptor that is left open on purpose here.
#[test]
fn an_executed_program_inherits_no_descriptor() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let before = descriptors_of_a_child();
    let (open, inherited) = with_everything_open(|| (descriptors(), descriptors_of_a_child()));
    for kind in ["io_uring", "eventfd", "socket:", "pipe:"] {
        assert!(
            open.iter().any(|fd| fd.contains(kind)),
            "no {kind} was open, the test shows little: {open:?}"
        );
    }
    assert_eq!(inherited, before);
    // What is not closed is seen.
    let left_open = rustix::io::dup(std::fs::File::open("/dev/zero").unwrap()).unwrap();
    let expected = format!("{} /dev/zero", left_open.as_raw_fd());
    assert!(descriptors_of_a_child().contains(&expected));
}

/// The same from inside, where nothing is hidden by what the child is: each descriptor has the flag.
#[test]
fn every_descriptor_is_close_on_exec() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let without_flag = || {
        let all = descriptors();
        let lack = all.into_iter().filter(|fd| {
            let number: i32 = fd.split(' ').next().unwrap().parse().unwrap();
            // SAFETY: the flags of a number are asked for; one that is no longer open is an error.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            flags >= 0 && flags & libc::FD_CLOEXEC == 0
        });
        lack.collect::<BTreeSet<_>>()
    };
    let before = without_flag();
    assert_eq!(with_everything_open(without_flag), before);
}

// Memory.

/// The flags of the mapping that holds `address`, and of every ring's (`VmFlags` of proc(5)).
fn flags_of(wanted: impl Fn(&str, std::ops::Range<usize>) -> bool) -> Vec<(String, String)> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut of, mut found) = (None, Vec::new());
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-')).and_then(|(from, to)| {
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        });
        if let Some(range) = range {
            of = wanted(line, range).then(|| line.to_owned());
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some(of) = of.take()
        {
            found.push((of, format!("{flags} ")));
        }
    }
    found
}

/// Seen to fail: with the ring built without `dontfork()`, and with the `madvise` of a region or of a ring's view left out.
#[test]
fn rings_and_regions_are_not_copied_into_children() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let found = with_everything_open(|| {
        let block = Block::take().expect("a block is free");
        let address = block.spare_address();
        flags_of(|line, range| line.contains("io_uring") || range.contains(&address))
    });
    assert!(found.iter().any(|(of, _)| of.contains("io_uring")), "{found:?}");
    assert!(found.iter().any(|(of, _)| !of.contains("io_uring")), "{found:?}");
    for (of, flags) in found {
        assert!(flags.contains(" dc "), "would be copied by fork(2): {of} ({flags})");
    }
}

trait SpareAddress {
    fn spare_address(self) -> usize;
}

impl SpareAddress for Block {
    fn spare_address(mut self) -> usize {
        self.extend_from_slice(b"x");
        self.as_ptr().addr()
    }
}

// Signals.

/// A mask of /proc/.../status, such as `SigCgt`.
fn mask(task: impl AsRef<Path>, name: &str) -> u64 {
    let status = std::fs::read_to_string(task.as_ref().join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

const SIGPIPE: u64 = 1 << (libc::SIGPIPE - 1);

/// Seen to fail, run alone: with SIGUSR1 ignored from the start of a core on. (What is ignored, unlike a handler, is
/// inherited by the child, so that tests before this one may hide it.)
#[test]
fn signals_are_left_to_the_program() {
    // In a process in which no runtime has been before.
    if !is_child() {
        let _turn = alone();
        let child = child("signals_are_left_to_the_program").output().unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let process = || ["SigCgt", "SigIgn"].map(|name| mask("/proc/thread-self", name));
    let (before, blocked) = (process(), mask("/proc/thread-self", "SigBlk"));
    let (while_up, on_worker) =
        with_everything_open(move || (process(), mask("/proc/thread-self", "SigBlk")));
    assert_eq!(while_up, before, "caught and ignored signals are the program's");
    assert_eq!(process(), before);
    // A core's thread blocks SIGPIPE and nothing else of its own.
    assert_eq!(on_worker, blocked | SIGPIPE);
    let running = wait_for_stop(on_first_cpu(small()));
    assert_eq!(mask("/proc/thread-self", "SigBlk"), blocked, "the starter's mask is its own");
    running.stop();
    running.wait().unwrap();
}

fn wait_for_stop(settings: Builder) -> Running {
    let running = settings.build().unwrap().start(|| async {
        annulus::core::stopping().await;
        annulus::Ok(())
    });
    running.unwrap()
}

// What the process came with.

fn policy_of_current() -> (i32, [u64; 16]) {
    let (mut mode, mut nodes) = (0, [0_u64; 16]);
    // SAFETY: the kernel writes one int and 1024 bits, for which there is room.
    let rc = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024, 0, 0) };
    if rc == 0 { (mode, nodes) } else { (-1, nodes) }
}

/// Seen to fail: with the starting thread's affinity not put back.
#[test]
fn affinity_and_memory_policy_are_heeded_and_left_as_they_were() {
    if is_child() {
        return;
    }
    let _turn = alone();
    // On a thread of its own, because what it does to itself cannot be undone.
    let test = thread::spawn(|| {
        let all = annulus::numa::thread::affinity_of_current().unwrap();
        let running = wait_for_stop(on_first_cpu(small()));
        assert_eq!(annulus::numa::thread::affinity_of_current().unwrap(), all);
        running.stop();
        running.wait().unwrap();
        let last = all.iter().last().unwrap();
        let mut mask = rustix::thread::CpuSet::new();
        mask.set(last.0 as usize);
        rustix::thread::sched_setaffinity(None, &mask).unwrap();
        // Bound to all nodes that it may use, if there is such a thing here.
        let allowed = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let nodes = allowed.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"));
        let mut bits = [0_u64; 16];
        let first: usize =
            nodes.and_then(|list| list.trim().split(['-', ',']).next()?.parse().ok()).unwrap_or(0);
        bits[first / 64] |= 1 << (first % 64);
        // SAFETY: the kernel reads 1024 bits of the mask, which lives across the call.
        let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, bits.as_ptr(), 1025) };
        let (bound, before) = (rc == 0, policy_of_current());
        let running = wait_for_stop(small());
        let report = running.report();
        assert_eq!(report.cores.len(), 1, "only one CPU is allowed: {report}");
        assert_eq!(report.cores[0].core.cpu, last);
        if bound {
            let memory = report.cores[0].core.memory;
            assert_eq!(memory.0 as usize, first, "memory of a node that is not in the binding: {report}");
            let life = &report.cores[0].thread.as_ref().expect("placed").life;
            assert!(life.to_string().starts_with("bound"), "the binding was undone: {life}");
        } else {
            println!("no memory policy can be set here: {}", std::io::Error::last_os_error());
        }
        running.stop();
        running.wait().unwrap();
        assert_eq!(annulus::numa::thread::affinity_of_current().unwrap(), last.into());
        assert_eq!(policy_of_current(), before);
    });
    test.join().unwrap();
}

/// A child that may lock so many bytes, and is not above the limit, starts a runtime and says how it went.
#[test]
fn starts_with_little_locked_memory() {
    if !is_child() {
        return;
    }
    let limit: u64 = std::env::var("ANNULUS_MEMLOCK").map_or(0, |limit| limit.parse().unwrap());
    give_up_ipc_lock();
    setrlimit(Resource::Memlock, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    let started = on_first_cpu(small()).build().unwrap().start(|| async {
        // It works, too.
        drop(tcp().await?);
        annulus::Ok(())
    });
    println!();
    match started.and_then(|running| {
        let fixed = running.report().cores[0].ring.fixed_buffers;
        running.wait().map(|()| fixed)
    }) {
        Ok(fixed) => println!("says runs, registered blocks: {fixed}"),
        Err(e) => println!("says {:?}: {e}", e.kind()),
    }
}

/// CAP_IPC_LOCK is above RLIMIT_MEMLOCK (io_uring, `__io_account_mem`).
fn give_up_ipc_lock() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}

/// Seen to fail: with the remedy for `ENOMEM` taken out of `explain`. (No limit that is tried here refuses a registration,
/// whose remedy is `not_registered`'s.)
#[test]
fn a_memlock_limit_is_respected_or_refused_with_the_remedy() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let tried: Vec<String> = [0, 16 << 10, 256 << 10, 1 << 20, 8 << 20]
        .iter()
        .map(|limit: &u64| {
            let child = child("starts_with_little_locked_memory")
                .env("ANNULUS_MEMLOCK", limit.to_string())
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&child.stdout).into_owned();
            let says = told.lines().find_map(|line| line.strip_prefix("says "));
            let says = says.unwrap_or_else(|| panic!("with {limit} bytes: {told}")).to_owned();
            let refused =
                says.starts_with(&format!("{:?}", ErrorKind::Platform)) && says.contains("RLIMIT_MEMLOCK");
            assert!(says.starts_with("runs") || refused, "with {limit} bytes: {says}");
            says
        })
        .collect();
    assert!(tried[4].starts_with("runs"), "8 MiB is what Linux gives everyone: {tried:?}");
    assert!(!tried[0].ends_with("true"), "blocks were registered beyond the limit: {tried:?}");
}

// Several of them.

/// A core that echoes until it is told to stop, its address and its name.
fn echo(name: &str) -> (Running, SocketAddr) {
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let settings = on_first_cpu(Runtime::builder().pool_bytes(1 << 20).ring_entries(256).name(name));
    let running = settings.build().unwrap().start(move || {
        let tx = tx.lock().unwrap().clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            tx.send(listener.local_addr()).expect("the test waits");
            annulus::spawn(async move {
                loop {
                    let stream = listener.accept().await?;
                    annulus::spawn(async move {
                        while let Some(chunk) = stream.recv().await? {
                            stream.send_all(chunk).await?;
                        }
                        annulus::Ok(())
                    })
                    .detach();
                }
                #[allow(unreachable_code, reason = "gives the task its type")]
                annulus::Ok(())
            })
            .detach();
            annulus::core::stopping().await;
            annulus::Ok(())
        }
    });
    (running.unwrap(), rx.recv().unwrap())
}

fn serves(address: SocketAddr) {
    let mut client = Std::connect(address).unwrap();
    client.write_all(b"anybody?").unwrap();
    let mut back = [0; 8];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"anybody?");
}

/// Threads of this process whose name begins so. The kernel's io-wq workers come and go by themselves.
fn threads(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// Seen to fail: with the ring leaked at the end, its descriptors are left.
#[test]
fn runtimes_live_side_by_side_and_leave_nothing() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let before = descriptors();
    let (first, first_address) = echo("first");
    let (second, second_address) = echo("second");
    serves(first_address);
    serves(second_address);
    assert_eq!((threads("first-"), threads("second-")), (1, 1));
    first.stop();
    first.wait().unwrap();
    serves(second_address);
    // And one after the other, while another lives.
    for _ in 0..3 {
        let (next, address) = echo("next");
        serves(address);
        serves(second_address);
        next.stop();
        next.wait().unwrap();
    }
    second.stop();
    second.wait().unwrap();
    assert_eq!((threads("first-"), threads("second-"), threads("next-")), (0, 0, 0));
    // Closing a connection that just ended is the ring's, and the ring has gone when its last work has.
    for _ in 0..500 {
        if descriptors() == before {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(descriptors(), before);
}
