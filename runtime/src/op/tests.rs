//! Every operation, dropped at every stage of its life: nothing is freed while the kernel may still use it,
//! and nothing is kept when it cannot.
//!
//! Seen to fail: with `Arena`'s value dropped in `abandon` ("freed early" for `Pushed` and `InKernel`), with
//! no cancel sent (the polls and the pending reads never end), with `late` forgetting its output (descriptors
//! stay open).

use std::ffi::CString;
use std::future::Future;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use super::{
    Operation, advise, fallocate, mkdir, open, poll, read, rename, splice, statx, sync, truncate, unlink,
    write, write_vectored,
};
use crate::buf::{Block, IoBuf, IoBufMut};
use crate::core::Core;
use crate::core::ask::OpFuture;
use crate::net::op::{connect, send, send_to, send_vectored, send_zc};
use crate::net::socket::Socket;
use crate::ring::Wait;
use crate::testing::{alive, is_open, on_a_core, small, until};

/// Where in its life an operation loses its future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The kernel was asked for nothing.
    BeforePoll,
    /// The SQE is in the queue, and the kernel has not taken it.
    Pushed,
    /// The kernel has it, or its answer is in the completion queue.
    InKernel,
    /// The answer came, and nobody has polled.
    Answered,
}

const STAGES: [Stage; 4] = [Stage::BeforePoll, Stage::Pushed, Stage::InKernel, Stage::Answered];

/// A waker that only remembers.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A buffer whose drop the reference count shows.
struct Bytes(Vec<u8>, #[allow(dead_code, reason = "counted, not read")] Rc<()>);

// SAFETY: as for the vector inside.
unsafe impl IoBuf for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

// SAFETY: as for the vector inside.
unsafe impl IoBufMut for Bytes {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.spare_capacity_mut()
    }

    unsafe fn filled(&mut self, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { self.0.set_len(self.0.len() + n) };
    }
}

struct Fd(Rc<OwnedFd>);

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Drops `operation` at `stage`. `is_held` says whether what it owns still exists; `provoke` lets the
/// operation complete if it waits for something.
async fn drop_at<T: Operation>(
    stage: Stage,
    operation: T,
    is_held: impl Fn() -> bool,
    provoke: impl FnOnce(),
) {
    let mut provoke = Some(provoke);
    let before = alive();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut future = OpFuture::new(operation);
    if stage != Stage::BeforePoll {
        assert!(Pin::new(&mut future).poll(&mut cx).is_pending(), "{}: nothing is ready at once", T::NAME);
        assert_eq!(alive(), before + 1);
    }
    match stage {
        Stage::BeforePoll | Stage::Pushed => {}
        Stage::InKernel => Core::with(|core| core.ring.enter(Wait::No)).unwrap(),
        Stage::Answered => {
            provoke.take().expect("provoked once")();
            until(&format!("answer of {}", T::NAME), || woken.0.load(Ordering::Relaxed)).await;
        }
    }
    drop(future);
    match stage {
        // A notification may still be due.
        Stage::Answered if T::NAME == send_zc::SendZc::NAME => {}
        Stage::BeforePoll | Stage::Answered => assert!(!is_held(), "{}: kept at {stage:?}", T::NAME),
        // No tick has passed: the final CQE was not reaped, whatever the kernel has done meanwhile.
        Stage::Pushed | Stage::InKernel => {
            assert!(is_held(), "{}: freed early at {stage:?}", T::NAME);
        }
    }
    // Some bytes may have left before the cancel came. Their notification waits for the other end.
    if T::NAME == send_zc::SendZc::NAME
        && let Some(provoke) = provoke.take()
    {
        provoke();
    }
    until(&format!("end of {} dropped at {stage:?}", T::NAME), || alive() == before).await;
    assert!(!is_held(), "{}: leaked at {stage:?}", T::NAME);
}

fn file_with(bytes: &[u8]) -> Rc<OwnedFd> {
    let path = unique_path();
    let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(bytes).unwrap();
    Rc::new(file.into())
}

fn unique_path() -> PathBuf {
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("annulus-op-{}-{n}", std::process::id()))
}

/// A connected pair, ours first.
fn pair() -> (Rc<Socket>, StdStream) {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Socket::new(ours.into()), peer)
}

/// A non-blocking pair. The first end has nothing to read until something is written to the second.
fn silent() -> (Rc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Rc::new(ours.into()), theirs)
}

fn held<T>(counted: &Rc<T>) -> impl Fn() -> bool + use<T> {
    let counted = Rc::downgrade(counted);
    // One reference is the test's own.
    move || counted.strong_count() > 1
}

#[test]
fn files() {
    on_a_core(small(64), async || {
        for stage in STAGES {
            let seen = Rc::new(());
            let buf = Bytes(Vec::with_capacity(1 << 20), Rc::clone(&seen));
            let read = read::Read { file: file_with(&[1; 1 << 20]), buf, offset: 0 };
            drop_at(stage, read, held(&seen), || {}).await;
            let buf = Bytes(vec![2; 1 << 20], Rc::clone(&seen));
            let write = write::Write { file: file_with(&[]), buf, from: 0, offset: 0 };
            drop_at(stage, write, held(&seen), || {}).await;
            let bufs = [0; 2].map(|_| Bytes(vec![2; 1 << 20], Rc::clone(&seen)));
            let write = write_vectored::WriteVectored::new(file_with(&[]), bufs, 0, 0);
            drop_at(stage, write, held(&seen), || {}).await;
            let file = file_with(&[]);
            drop_at(stage, statx::Statx::new(Rc::clone(&file)), held(&file), || {}).await;
            let path = unique_path();
            let dir = Rc::new(OwnedFd::from(std::fs::File::open(path.parent().unwrap()).unwrap()));
            let name = CString::new(path.file_name().unwrap().to_str().unwrap()).unwrap();
            let open = open::Open::new(Some(Rc::clone(&dir)), name, libc::O_RDWR | libc::O_CREAT, 0o600);
            drop_at(stage, open, held(&dir), || {}).await;
            assert!(!is_open(&path), "a file that was opened late stays open at {stage:?}");
            // A cancelled open may not have made the file.
            drop(std::fs::remove_file(&path));
            files_without_bytes(stage, &file, &dir).await;
            let mut block = Block::take().unwrap();
            block.extend_from_slice(&[1; 1000]);
            // An operation holds its descriptor as long as its block, which is from the pool and registered.
            let file = file_with(&[1; 1000]);
            let write = write::Write { file: Rc::clone(&file), buf: block, from: 0, offset: 0 };
            drop_at(stage, write, held(&file), || {}).await;
            let read = read::Read { file: Rc::clone(&file), buf: Block::take().unwrap(), offset: 0 };
            drop_at(stage, read, held(&file), || {}).await;
        }
    });
}

/// Operations on files that carry no buffer. They hold a descriptor, and a name in its own allocation.
async fn files_without_bytes(stage: Stage, file: &Rc<OwnedFd>, dir: &Rc<OwnedFd>) {
    let name = || CString::new(unique_path().file_name().unwrap().to_str().unwrap()).unwrap();
    let clone = || Rc::clone(file);
    for data_only in [false, true] {
        drop_at(stage, sync::Sync { file: clone(), data_only }, held(file), || {}).await;
    }
    let fallocate = fallocate::Fallocate { file: clone(), offset: 0, len: 4096, mode: 0 };
    drop_at(stage, fallocate, held(file), || {}).await;
    drop_at(stage, truncate::Truncate { file: clone(), len: 10 }, held(file), || {}).await;
    let advise = advise::Advise { file: clone(), offset: 0, len: 0, advice: libc::POSIX_FADV_DONTNEED };
    drop_at(stage, advise, held(file), || {}).await;
    let made = name();
    let mkdir = mkdir::Mkdir { dir: Rc::clone(dir), name: made.clone(), mode: 0o700 };
    drop_at(stage, mkdir, held(dir), || {}).await;
    let moved = name();
    let (from, to) = ((Rc::clone(dir), made.clone()), (Rc::clone(dir), moved.clone()));
    drop_at(stage, rename::Rename { from, to, flags: 0 }, held(dir), || {}).await;
    // Both are removed, whichever exists.
    for name in [made, moved] {
        let unlink = unlink::Unlink { dir: Rc::clone(dir), name: name.clone(), directory: true };
        drop_at(stage, unlink, held(dir), || {}).await;
        let _gone_already = rustix::fs::unlinkat(dir, &name, rustix::fs::AtFlags::REMOVEDIR);
    }
}

/// Operations that wait for the other end, which does nothing until it is provoked.
#[test]
fn waits() {
    on_a_core(small(64), async || {
        for stage in STAGES {
            let seen = Rc::new(());
            let (ours, mut theirs) = silent();
            let buf = Bytes(Vec::with_capacity(100), Rc::clone(&seen));
            let read = read::Read { file: ours, buf, offset: u64::MAX };
            drop_at(stage, read, held(&seen), || theirs.write_all(b"late").unwrap()).await;
            let (ours, mut theirs) = silent();
            let poll = poll::PollOnce { fd: Fd(Rc::clone(&ours)), ready: poll::Ready::Read };
            drop_at(stage, poll, held(&ours), || theirs.write_all(b"late").unwrap()).await;
            // This is more than both socket buffers hold, so it cannot end before the other end reads.
            let (socket, mut peer) = pair();
            let buf = Bytes(vec![3; 64 << 20], Rc::clone(&seen));
            let send = send::Send { socket, buf, from: 0, flags: 0 };
            drop_at(stage, send, held(&seen), || drain(&mut peer)).await;
            let (socket, mut peer) = pair();
            let bufs = [0; 2].map(|_| Bytes(vec![3; 32 << 20], Rc::clone(&seen)));
            let send = send_vectored::SendVectored::new(socket, bufs, 100, Vec::new());
            drop_at(stage, send, held(&seen), || drain(&mut peer)).await;
            let (socket, mut peer) = pair();
            while rustix::io::write(socket.fd(), &[0; 1 << 16]).is_ok() {}
            let mut block = Block::take().unwrap();
            block.extend_from_slice(&[4; 60_000]);
            let block = Rc::new(block);
            let report = Core::with(|core| core.ring.features().zc_report);
            let send = send_zc::SendZc::new(socket, send_zc::SharedBlock(Rc::clone(&block)), 0, report);
            drop_at(stage, send, held(&block), || drain(&mut peer)).await;
        }
    });
}

/// Reads to the end on a thread of its own.
fn drain(peer: &mut StdStream) {
    let mut peer = peer.try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
}

#[test]
fn datagrams() {
    on_a_core(small(64), async || {
        for stage in STAGES {
            let seen = Rc::new(());
            let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let buf = Bytes(vec![6; 1000], Rc::clone(&seen));
            let to = theirs.local_addr().unwrap();
            drop_at(stage, send_to::SendTo::new(Socket::new(socket.into()), buf, to), held(&seen), || {})
                .await;
        }
    });
}

#[test]
fn splices() {
    on_a_core(small(64), async || {
        for stage in STAGES {
            let (read_end, write_end) = std::io::pipe().unwrap();
            let (read_end, write_end) = (Rc::new(OwnedFd::from(read_end)), Rc::new(OwnedFd::from(write_end)));
            let fill = splice::Splice {
                from: Fd(file_with(&[4; 1000])),
                offset: Some(0),
                into: Fd(Rc::clone(&write_end)),
                into_offset: None,
                len: 1000,
                wait: None,
                more: false,
            };
            drop_at(stage, fill, held(&write_end), || {}).await;
            // It is behind a poll that waits: the cancel must find the poll.
            let (ours, mut theirs) = silent();
            let fill = splice::Splice {
                from: Fd(Rc::clone(&ours)),
                offset: None,
                into: Fd(Rc::clone(&write_end)),
                into_offset: None,
                len: 100,
                wait: Some(poll::Ready::Read),
                more: false,
            };
            drop_at(stage, fill, held(&ours), || theirs.write_all(b"late").unwrap()).await;
            rustix::io::write(&*write_end, b"something").unwrap();
            let (ours, _theirs) = silent();
            let empty = splice::Splice {
                from: Fd(Rc::clone(&read_end)),
                offset: None,
                into: Fd(ours),
                into_offset: None,
                len: 9,
                wait: Some(poll::Ready::Write),
                more: false,
            };
            drop_at(stage, empty, held(&read_end), || {}).await;
        }
    });
}

#[test]
fn connections() {
    use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, socket_with};
    on_a_core(small(64), async || {
        for stage in STAGES {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
            let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            let connect = connect::Connect::new(socket, SocketAddrAny::from(listener.local_addr().unwrap()));
            drop_at(stage, connect, || is_open(&link), || {}).await;
        }
    });
}

/// 300 cancels through a submission queue of eight: none is lost, or an operation would stay for ever.
///
/// Seen to fail: with a cancel left out when the queue is full.
#[test]
fn cancels_through_a_full_queue() {
    on_a_core(small(8), async || {
        let before = alive();
        let (ours, _theirs) = silent();
        let mut cx = Context::from_waker(Waker::noop());
        let futures: Vec<_> = (0..300)
            .map(|_| {
                let mut future =
                    OpFuture::new(poll::PollOnce { fd: Fd(Rc::clone(&ours)), ready: poll::Ready::Read });
                assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
                future
            })
            .collect();
        assert_eq!(alive(), before + 300);
        drop(futures);
        until("the end of 300 polls", || alive() == before).await;
        assert_eq!(Rc::strong_count(&ours), 1);
    });
}

/// A new operation that nobody drops, or leaves to the end, is found by its name: `op/mod.rs` and
/// `net/op/mod.rs` name them all.
///
/// Seen to fail: with `statx` taken out of `files`.
#[test]
fn every_operation_is_dropped_here() {
    const NO_OPERATIONS: [&str; 5] = ["arena", "limits", "slots", "table", "waits_for"];
    let lists = [include_str!("mod.rs"), include_str!("../net/op/mod.rs")];
    let multishots = include_str!("tests/multishots.rs");
    let (dropped, left) =
        ([include_str!("tests.rs"), multishots], [include_str!("tests/left.rs"), multishots]);
    let lines = lists.iter().flat_map(|list| list.lines());
    let modules = lines.filter_map(|line| line.strip_prefix("pub(crate) mod ")?.strip_suffix(';'));
    let operations: Vec<&str> = modules.filter(|name| !NO_OPERATIONS.contains(name)).collect();
    assert!(operations.len() >= 20, "{operations:?}");
    for operation in operations {
        // The name of a type of it: `use` lines have none.
        let of_it = format!(" {operation}::");
        let are_in = |tests: [&str; 2]| tests.iter().any(|tests| tests.contains(&of_it));
        assert!(are_in(dropped), "no test drops {operation} at every stage");
        assert!(are_in(left), "no test leaves {operation} to the end of the runtime");
    }
}

mod foreign;
mod left;
mod multishots;
