//! The end, while the kernel is still writing into memory of ours.
//!
//! The memory is filled with a pattern at the moment in which the runtime gives it back, so a later write of
//! the kernel shows. Seen to fail: with `drain` returning at once nothing is ever given back; with the buffer
//! released when its future is dropped, and its operation forgotten, the kernel writes into it afterwards.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Waker};

use io_uring::{opcode, squeue, types};

use crate::buf::IoBufMut;
use crate::core::Core;
use crate::core::ask::OpFuture;
use crate::op::poll::{PollOnce, Ready};
use crate::op::read::Read;
use crate::op::slots::Outcome;
use crate::op::{Operation, Sqes};
use crate::ring::Wait;
use crate::testing::{on_a_core, small, until};
use crate::{ErrorKind, Result, Runtime};

/// Bytes of a read. A guest whose CPUs are emulated takes as long for a sixteenth.
static LEN: LazyLock<usize> = LazyLock::new(|| {
    let guest = std::env::var_os("ANNULUS_GUEST").is_some_and(|guest| guest == "1");
    if guest { 2 << 20 } else { 32 << 20 }
});
const IN_FILE: u8 = 0x11;
const PAINT: u8 = 0xcc;

/// Memory that stays mapped for ever, and how many of its owners have given it back.
#[derive(Clone)]
struct Pages {
    address: *mut u8,
    returned: Arc<AtomicUsize>,
}

// SAFETY: a pointer to leaked memory. The test controls who uses it when, and reads it only at the end.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn new() -> Self {
        let memory = vec![0u8; *LEN].leak();
        Self { address: memory.as_mut_ptr(), returned: Arc::default() }
    }

    fn assert_untouched_since_returned(&self) {
        assert_eq!(self.returned.load(Ordering::Acquire), 1, "never given back");
        // SAFETY: mapped for ever, and given back by all.
        let bytes = unsafe { std::slice::from_raw_parts(self.address, *LEN) };
        assert!(bytes.iter().all(|b| *b == PAINT), "the kernel wrote after the memory was given back");
    }
}

/// The right to use `Pages`. Dropping it fills them with the pattern.
struct Painted(Pages);

impl Drop for Painted {
    fn drop(&mut self) {
        // SAFETY: mapped for ever; this was the only right to it.
        unsafe { self.0.address.write_bytes(PAINT, *LEN) };
        self.0.returned.fetch_add(1, Ordering::Release);
    }
}

// SAFETY: the memory never moves, and this is the only right to it.
unsafe impl IoBufMut for Painted {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: `LEN` bytes, mapped for ever, ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.address.cast(), *LEN) }
    }

    unsafe fn filled(&mut self, _: usize) {}
}

/// A read that an io-wq worker does, from the first byte to the last, and that no cancel stops once it runs.
struct AsyncRead(Read<Painted>);

// SAFETY: the entry is that of the read inside.
unsafe impl Operation for AsyncRead {
    const NAME: &'static str = "read on a worker";
    type Output = (std::io::Result<usize>, Painted);

    fn sqes(&mut self) -> Sqes {
        let Read { file, buf, .. } = &mut self.0;
        let spare = buf.spare_capacity();
        opcode::Read::new(types::Fd(file.as_raw_fd()), spare.as_mut_ptr().cast(), *LEN as u32)
            .build()
            .flags(squeue::Flags::ASYNC)
            .into()
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        self.0.complete(outcome)
    }
}

/// A file whose pages are not in memory.
fn cold_file() -> OwnedFd {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("annulus-end-{}-{n}", std::process::id()));
    let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(&vec![IN_FILE; *LEN]).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    file.into()
}

/// A runtime on all cores, of which each has a read on its way when `root` is called.
fn with_reads_in_flight(root: impl AsyncFn() -> Result<()> + Send + Sync + Clone + 'static) -> Result<()> {
    let runtime = Runtime::builder().pool_bytes(1 << 20).build().unwrap();
    let pages: Vec<_> = runtime.plan().cores().iter().map(|_| Pages::new()).collect();
    let files = Mutex::new(pages.iter().map(|pages| (cold_file(), pages.clone())).collect::<Vec<_>>());
    let result = runtime.run(move || {
        let (file, pages) = files.lock().unwrap().pop().unwrap();
        let root = root.clone();
        async move {
            let read = Read { file: Rc::new(file), buf: Painted(pages), offset: 0 };
            let mut read = OpFuture::new(AsyncRead(read));
            assert!(Pin::new(&mut read).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            Core::with(|core| core.ring.enter(Wait::No))?;
            root().await
        }
    });
    // There is no event for a write that must not come. A second read of as many bytes gives a late write its
    // time.
    std::io::copy(&mut std::fs::File::from(cold_file()), &mut std::io::sink()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    pages.iter().for_each(Pages::assert_untouched_since_returned);
    result
}

#[test]
fn reads_in_flight_when_the_roots_end() {
    with_reads_in_flight(async || Ok(())).unwrap();
}

#[test]
fn reads_in_flight_when_a_root_panics() {
    let e = with_reads_in_flight(async || match crate::cores::index() {
        0 => panic!("on purpose"),
        _ => std::future::pending().await,
    });
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Panicked);
}

/// An operation that was answered, and whose future is not dropped while there is a core: it was forgotten,
/// or is kept by the thread. Its descriptor and its buffer are given up with the core.
///
/// Seen to fail: with what is left in the cells leaked.
#[test]
fn an_answered_operation_whose_owner_outlives_the_core_keeps_nothing() {
    struct Holds(OwnedFd, #[allow(dead_code, reason = "counted, not read")] Arc<()>);
    impl AsFd for Holds {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    on_a_core(small(64), async move || {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let owned = Arc::new(());
        tell.send(Arc::downgrade(&owned)).unwrap();
        let mut future = OpFuture::new(PollOnce { fd: Holds(ours.into(), owned), ready: Ready::Write });
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        until("the answer", || Core::with(|core| core.ops.in_kernel() == 0)).await;
        std::mem::forget(future);
    });
    assert_eq!(told.recv().unwrap().strong_count(), 0, "what it owns is leaked");
}
