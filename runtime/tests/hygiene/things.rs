//! What a runtime can hold.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;

use annulus::Result;
use annulus::buf::Block;
use annulus::fs::{Dir, File, OpenOptions};
use annulus::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use annulus::pipe::pipe;
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::transfer::{Road, relay, send_file};

use crate::common::{self, Scratch};

type Held = Vec<Box<dyn Any>>;
/// What it is called, and how it is made.
type Thing = (&'static str, fn() -> Making);
type Making = Pin<Box<dyn Future<Output = Result<Held>>>>;

/// Everything that has a descriptor or memory of its own, each made in the state in which most of it is open.
/// A new type gets a line here.
const THINGS: &[Thing] = &[
    ("TCP listener, accepted and connected streams", || Box::pin(tcp())),
    ("Unix listener, accepted and connected streams, a pair", || Box::pin(unix())),
    ("UDP socket", || Box::pin(udp())),
    ("files and directories", || Box::pin(files())),
    ("pipes of a transfer", || Box::pin(pipes())),
    ("a pipe of the application's", || Box::pin(async { held([Box::new(pipe()?) as Box<dyn Any>]) })),
    ("sockets that others made", || Box::pin(adopted())),
    ("signals", || Box::pin(signals())),
    ("blocking threads", || Box::pin(blocking())),
];

fn held(things: impl IntoIterator<Item = Box<dyn Any>>) -> Result<Held> {
    Ok(things.into_iter().collect())
}

pub(crate) async fn pair() -> Result<(TcpListener, TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = TcpStream::connect(listener.local_addr()).await?;
    let accepted = listener.accept().await?;
    Ok((listener, connected, accepted))
}

pub(crate) async fn tcp() -> Result<Held> {
    let (listener, connected, accepted) = pair().await?;
    connected.send_all("x").await?;
    // Both multishots are armed from here on.
    accepted.recv().await?;
    held([Box::new(listener) as Box<dyn Any>, Box::new(connected), Box::new(accepted)])
}

async fn unix() -> Result<Held> {
    let scratch = Scratch::new("hygiene-unix");
    let path = scratch.0.join("socket");
    let listener = UnixListener::bind(&path).await?;
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
    assert!(annulus::cores::counters().pipes_made > 0 || !reader.is_finished());
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

/// Their maker left them open across `execve(2)`, as systemd does.
async fn adopted() -> Result<Held> {
    let inheritable = |fd: std::os::fd::OwnedFd| {
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        fd
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    held([
        Box::new(TcpListener::from_owned_fd(inheritable(tcp.into()))?) as Box<dyn Any>,
        Box::new(TcpStream::from_owned_fd(inheritable(client.into()))?),
        Box::new(UdpSocket::from_owned_fd(inheritable(udp.into()))?),
    ])
}

/// Blocked here on the core's thread alone; a program does it before it has threads.
async fn signals() -> Result<Held> {
    block_before_threads(&[Signal::USER2])?;
    held([Box::new(Signals::new(&[Signal::USER2])?) as Box<dyn Any>])
}

async fn blocking() -> Result<Held> {
    annulus::spawn_blocking(|| ()).await.expect("it runs");
    held([])
}

/// Runs `look` while a runtime holds all of [`THINGS`], on its core's thread.
pub(crate) fn with_everything_open<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
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
