//! The part of the driver that is an Annulus program, on the driver's CPU: the server behind a relay, and the
//! clients of relays and of load at a fixed rate.

use super::order::{ACK, Ask, Order};
use super::wire::{Wire, told};
use super::{Load, Outcome, STALL, Session, bulk, exchange, wrong};
use annulus::net::{TcpListener, UdpSocket};
use annulus::{Running, Runtime, spawn};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of memory for what is received.
const POOL: usize = 16 << 20;

/// The running program, and where relays connect to. Dropping it ends it.
pub struct Backend {
    address: SocketAddr,
    jobs: UnboundedSender<Job>,
    _running: Running,
}

/// A session that is asked for.
struct Job {
    load: Load,
    server: SocketAddr,
    moved: Arc<AtomicU64>,
    asks: UnboundedReceiver<Ask>,
    answers: Sender<io::Result<Outcome>>,
}

impl Backend {
    /// Starts the program on the first CPU that this thread may use; its server listens on `address`, or with
    /// port 0 on a port of the kernel's choice.
    ///
    /// # Errors
    /// It cannot.
    pub fn new(address: SocketAddr) -> io::Result<Backend> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap_or(0);
        let core = cpu.to_string().parse().map_err(io::Error::other)?;
        let (jobs, queue) = unbounded();
        let (listens, told_where) = mpsc::channel();
        // The root is made once per core, of which there is one.
        let once = Mutex::new(Some((queue, listens)));
        let runtime = Runtime::builder().cores(core).pool_bytes(POOL).name("drive").build().map_err(told)?;
        let running = runtime.start(move || {
            let parts = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                if let Some((jobs, listens)) = parts { work(address, jobs, listens).await } else { Ok(()) }
            }
        });
        let running = running.map_err(told)?;
        match told_where.recv() {
            Ok(address) => Ok(Backend { address, jobs, _running: running }),
            Err(_) => Err(running.wait().map_err(told).err().unwrap_or_else(|| wrong("the driver ended"))),
        }
    }

    /// Its address, which the relay is told.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the program open the connections of `load`.
    pub(super) fn open(&self, load: &Load, server: SocketAddr) -> io::Result<Remote> {
        let (asks, queue) = unbounded();
        let (answers, replies) = mpsc::channel();
        let moved = Arc::new(AtomicU64::new(0));
        let job = Job { load: load.clone(), server, moved: Arc::clone(&moved), asks: queue, answers };
        self.jobs.unbounded_send(job).map_err(|_| wrong("the driver has ended"))?;
        let remote = Remote { asks, replies, moved };
        remote.reply().map(|_| remote)
    }
}

/// A session inside the program, from outside. Dropping it ends it.
pub(super) struct Remote {
    asks: UnboundedSender<Ask>,
    replies: Receiver<io::Result<Outcome>>,
    moved: Arc<AtomicU64>,
}

impl Remote {
    fn reply(&self) -> io::Result<Outcome> {
        let mut before = self.moved.load(Ordering::Relaxed);
        loop {
            match self.replies.recv_timeout(STALL) {
                Ok(reply) => return reply,
                Err(RecvTimeoutError::Disconnected) => return Err(wrong("the driver's session has ended")),
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.moved.load(Ordering::Relaxed);
                    if now == before {
                        return Err(wrong(format!("stuck: no byte moved for {} s", STALL.as_secs())));
                    }
                    before = now;
                }
            }
        }
    }

    fn ask(&self, ask: Ask) -> io::Result<Outcome> {
        self.asks.unbounded_send(ask).map_err(|_| wrong("the driver's session has ended"))?;
        self.reply()
    }
}

impl Session for Remote {
    fn verify(&mut self) -> io::Result<()> {
        self.ask(Ask::Verify).map(drop)
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        self.ask(Ask::Run(work))
    }
}

/// What the program does: serves those behind relays, and begins sessions.
async fn work(
    address: SocketAddr,
    mut jobs: UnboundedReceiver<Job>,
    listens: Sender<SocketAddr>,
) -> annulus::Result<()> {
    let listener = TcpListener::bind(address)?;
    // Relays of datagrams are told the same address.
    let datagrams = UdpSocket::bind(listener.local_addr())?;
    spawn(send_back(datagrams)).detach();
    if listens.send(listener.local_addr()).is_err() {
        return Ok(());
    }
    let accepting = spawn(async move {
        let moved = Arc::new(AtomicU64::new(0));
        loop {
            let wire = Wire::new(listener.accept().await?, Arc::clone(&moved));
            // Relays bring connections that are cut when a session ends; what is wrong the client sees.
            spawn(serve(wire)).detach();
        }
    });
    let failed: annulus::JoinHandle<annulus::Result<()>> = accepting;
    while let Ok(Job { load, server, moved, asks, answers }) = jobs.recv().await {
        spawn(session(load, server, moved, asks, answers)).detach();
    }
    failed.abort();
    Ok(())
}

/// Sends datagrams back to where they came from, for ever. One that finds the queue full is lost, and missed
/// by its client.
async fn send_back(socket: UdpSocket) {
    loop {
        if let Ok(datagram) = socket.recv().await {
            let source = datagram.source();
            drop(socket.send_to(datagram.into_lease(), source).await);
        }
    }
}

/// Opens, and then does what is asked until nobody asks any more, or something is wrong.
async fn session(
    load: Load,
    server: SocketAddr,
    moved: Arc<AtomicU64>,
    mut asks: UnboundedReceiver<Ask>,
    answers: Sender<io::Result<Outcome>>,
) {
    let mut ends = Ends::open(&load, server, &moved).await;
    let mut answer = ends.as_ref().map(|_| Outcome::default()).map_err(copy);
    loop {
        let failed = answer.is_err();
        if answers.send(answer).is_err() || failed {
            return;
        }
        let (Ok(ends), Ok(ask)) = (&mut ends, asks.recv().await) else { return };
        answer = match ends {
            Ends::Bulk(bulk) => bulk.pass(ask).await,
            Ends::Exchange(exchange) => exchange.pass(ask).await,
        };
    }
}

fn copy(e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), e.to_string())
}

enum Ends {
    Bulk(bulk::Bulk),
    Exchange(exchange::Exchange),
}

impl Ends {
    async fn open(load: &Load, server: SocketAddr, moved: &Arc<AtomicU64>) -> io::Result<Ends> {
        if let Load::Bulk { direction, connections } = *load {
            return bulk::Bulk::open(server, direction, connections, moved).await.map(Ends::Bulk);
        }
        exchange::Exchange::open(load, server, moved).await.map(Ends::Exchange)
    }
}

/// One connection of the server behind a relay, until its end.
async fn serve(mut wire: Wire) -> io::Result<()> {
    while let Some(order) = wire.exactly().await? {
        match Order::decode(order)? {
            Order::Send { bytes, verify } => wire.put(bytes, verify).await?,
            Order::Receive { bytes, verify } => {
                wire.take(bytes, verify, 0).await?;
                wire.send(ACK.to_vec()).await?;
            }
            Order::Echo => {
                while let Some(piece) = wire.some(u64::MAX).await? {
                    wire.send(piece).await?;
                }
            }
        }
    }
    Ok(())
}
