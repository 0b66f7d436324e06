//! Every operation that answers once, in a task that exists when the runtime ends. Each has a descriptor of
//! its own, which is closed when the operation's memory is given back.
//!
//! Seen to fail: with `drain` returning at once, and with `late` forgetting its output, descriptors stay
//! open.

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::core::shared::CoreShared;
use crate::task::yield_now;
use crate::testing::link_of;

/// The operations of the tasks, and how their release is seen.
#[derive(Default)]
struct LeftBehind {
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    links: Vec<(&'static str, PathBuf)>,
    /// The other ends, which send nothing.
    peers: Vec<OwnedFd>,
}

impl LeftBehind {
    /// `link` names a descriptor that only the operation has.
    fn ask<T: Operation>(&mut self, link: PathBuf, operation: T) {
        self.links.push((T::NAME, link));
        self.tasks.push(Box::pin(async move { drop(OpFuture::new(operation).await) }));
    }

    /// An operation on a file of `len` bytes.
    fn on_file<T: Operation>(&mut self, len: usize, operation: impl FnOnce(Rc<OwnedFd>) -> T) {
        let file = file_with(&vec![1; len]);
        self.ask(link_of(file.as_fd()), operation(file));
    }

    /// An operation on a connection whose other end reads nothing.
    fn on_socket<T: Operation>(&mut self, operation: impl FnOnce(Rc<Socket>) -> T) {
        let (socket, peer) = pair();
        while rustix::io::write(socket.fd(), &[0; 1 << 16]).is_ok() {}
        self.peers.push(peer.into());
        self.ask(link_of(socket.fd()), operation(socket));
    }

    /// An operation on a socket whose other end sends nothing.
    fn on_quiet<T: Operation>(&mut self, operation: impl FnOnce(Rc<OwnedFd>) -> T) {
        let (ours, theirs) = silent();
        self.peers.push(theirs.into());
        self.ask(link_of(ours.as_fd()), operation(ours));
    }

    /// An operation on `place`, a directory of the test's own, with a name in it.
    fn beneath<T: Operation>(&mut self, place: &Path, operation: impl FnOnce(Rc<OwnedFd>, CString) -> T) {
        let dir = OwnedFd::from(std::fs::File::open(place).unwrap());
        self.ask(link_of(dir.as_fd()), operation(Rc::new(dir), c"name".to_owned()));
    }

    fn everything(place: &Path) -> Self {
        let mut all = Self::default();
        let spare = || Vec::with_capacity(1 << 20);
        all.on_file(1 << 20, |file| read::Read { file, buf: spare(), offset: 0 });
        all.on_file(0, |file| write::Write { file, buf: vec![2; 1 << 20], from: 0, offset: 0 });
        let two = || [0; 2].map(|_| vec![2; 1 << 20]);
        all.on_file(0, |file| write_vectored::WriteVectored::new(file, two(), 0, 0));
        all.on_file(0, statx::Statx::new);
        all.on_file(1, |file| sync::Sync { file, data_only: false });
        all.on_file(0, |file| fallocate::Fallocate { file, offset: 0, len: 4096, mode: 0 });
        all.on_file(0, |file| truncate::Truncate { file, len: 10 });
        let advice = libc::POSIX_FADV_DONTNEED;
        all.on_file(1, |file| advise::Advise { file, offset: 0, len: 0, advice });
        all.beneath(place, |dir, name| open::Open::new(Some(dir), name, libc::O_RDWR | libc::O_CREAT, 0o600));
        all.links.push(("open", place.join("name")));
        all.beneath(place, |dir, name| mkdir::Mkdir { dir, name, mode: 0o700 });
        all.beneath(place, |dir, name| {
            let to = (Rc::clone(&dir), c"other".to_owned());
            rename::Rename { from: (dir, name), to, flags: 0 }
        });
        all.beneath(place, |dir, name| unlink::Unlink { dir, name, directory: false });
        all.on_quiet(|file| read::Read { file, buf: spare(), offset: u64::MAX });
        all.on_quiet(|ours| poll::PollOnce { fd: Fd(ours), ready: poll::Ready::Read });
        all.on_quiet(|ours| splice::Splice {
            from: Fd(ours),
            offset: None,
            into: Fd(Rc::new(std::io::pipe().unwrap().1.into())),
            into_offset: None,
            len: 100,
            wait: Some(poll::Ready::Read),
            more: false,
        });
        all.on_socket(|socket| send::Send { socket, buf: vec![3; 1 << 20], from: 0, flags: 0 });
        all.on_socket(|socket| {
            send_vectored::SendVectored::new(socket, [0; 2].map(|_| vec![3; 1 << 20]), 0, Vec::new())
        });
        let mut block = Block::take().unwrap();
        block.extend_from_slice(&[4; 60_000]);
        let report = Core::with(|core| core.ring.features().zc_report);
        let block = send_zc::SharedBlock(Rc::new(block));
        all.on_socket(|socket| send_zc::SendZc::new(socket, block, 0, report));
        let [theirs, ours] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let (to, link) = (theirs.local_addr().unwrap(), link_of(ours.as_fd()));
        all.ask(link, send_to::SendTo::new(Socket::new(ours.into()), vec![6; 1000], to));
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = rustix::net::SocketAddrAny::from(listener.local_addr().unwrap());
        let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket(family, kind, None).unwrap();
        all.ask(link_of(socket.as_fd()), connect::Connect::new(socket, to));
        all.peers.extend([theirs.into(), listener.into()]);
        all
    }
}

#[test]
fn operations_are_left_to_the_end_of_the_runtime() {
    for stage in [Stage::Pushed, Stage::InKernel] {
        let place = unique_path();
        std::fs::create_dir(&place).unwrap();
        type Left = (Vec<(&'static str, PathBuf)>, Vec<OwnedFd>, Arc<CoreShared>);
        let left = Arc::new(Mutex::new(None::<Left>));
        let (leaves, here) = (Arc::clone(&left), place.clone());
        on_a_core(small(64), async move || {
            let LeftBehind { tasks, links, peers } = LeftBehind::everything(&here);
            let (before, count) = (alive(), tasks.len());
            tasks.into_iter().for_each(|task| crate::spawn(task).detach());
            yield_now().await;
            assert_eq!(alive(), before + count, "each task has asked");
            if stage == Stage::InKernel {
                Core::with(|core| core.ring.enter(Wait::No)).unwrap();
            }
            let shared = Core::with(|core| Arc::clone(&core.shared));
            *leaves.lock().unwrap() = Some((links, peers, shared));
        });
        let (links, _peers, shared) = left.lock().unwrap().take().expect("left there");
        assert_eq!(shared.counters.ops_leaked.get(), 0, "{stage:?}");
        for (name, link) in links {
            assert!(!is_open(&link), "{name} left at {stage:?} keeps {}", link.display());
        }
        std::fs::remove_dir_all(place).unwrap();
    }
}
