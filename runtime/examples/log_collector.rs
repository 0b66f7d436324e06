//! A log collector: `log_collector FILE [ADDR] [SOCKET]`. Lines come as datagrams on a UDP address
//! (`127.0.0.1:5514` by default) and, if SOCKET is given, on a Unix socket of that path, such as `/dev/log`
//! is; each becomes a line of FILE, behind its sender. FILE is written through a buffer, at most 200 ms late,
//! and goes on as FILE.1 when it has 64 MiB. SIGTERM or Ctrl-C ends it, 200 ms later: what had come by then
//! is in the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annulus::channel::{Receiver, Sender, bounded};
use annulus::fs::{self, BufWriter, Cursor, File, OpenOptions};
use annulus::net::{UdpSocket, UnixDatagram};
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::time::timeout;
use annulus::{Runtime, TaskTracker};

const ENDS: [Signal; 2] = [Signal::INTERRUPT, Signal::TERMINATE];
/// How late a line may be in the file, and how long a file becomes, in bytes.
const LATE: Duration = Duration::from_millis(200);
const LONGEST: u64 = 64 << 20;

/// A line of a sender: what ends lines within it is made visible.
fn line_of(sender: &str, message: &[u8]) -> Vec<u8> {
    let mut line = format!("{sender} ").into_bytes();
    line.extend(
        message.trim_ascii_end().iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }),
    );
    line.push(b'\n');
    line
}

async fn from_network(socket: UdpSocket, lines: Sender<Vec<u8>>) -> annulus::Result<()> {
    loop {
        let datagram = socket.recv().await?;
        let line = line_of(&datagram.source().to_string(), &datagram);
        drop(datagram);
        if lines.send(line).await.is_err() {
            return annulus::Ok(());
        }
    }
}

async fn from_here(socket: UnixDatagram, lines: Sender<Vec<u8>>) -> annulus::Result<()> {
    let mut buf = Vec::with_capacity(64 << 10);
    loop {
        buf.clear();
        buf = socket.recv(buf).await?.buf;
        if lines.send(line_of("local", &buf)).await.is_err() {
            return annulus::Ok(());
        }
    }
}

async fn opened(path: &Path) -> annulus::Result<(BufWriter, u64)> {
    let file = File::open(path, OpenOptions::new().write(true).create(true)).await?;
    let size = file.stat().await?.size;
    annulus::Ok((BufWriter::with_capacity(64 << 10, Cursor::at(file, size)), size))
}

/// Writes what comes, until nobody is left who sends.
async fn write(path: PathBuf, mut lines: Receiver<Vec<u8>>) -> annulus::Result<()> {
    let (mut log, mut size) = opened(&path).await?;
    let mut full = path.clone().into_os_string();
    full.push(".1");
    // When what is in the buffer has to be in the file.
    let mut due: Option<Instant> = None;
    loop {
        let wait = due.map_or(LATE, |due| due.saturating_duration_since(Instant::now()));
        match timeout(wait, lines.recv()).await {
            Ok(Some(line)) => {
                log.write_all(&line).await?;
                size += line.len() as u64;
                due.get_or_insert_with(|| Instant::now() + LATE);
            }
            Ok(None) => return log.flush().await,
            Err(_) => {
                log.flush().await?;
                due = None;
            }
        }
        if size >= LONGEST {
            log.flush().await?;
            fs::rename(&path, &full).await?;
            (log, size) = opened(&path).await?;
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path: PathBuf = args.next().ok_or("usage: log_collector FILE [ADDR] [SOCKET]")?.into();
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:5514".to_owned()).parse()?;
    let socket = args.next();
    block_before_threads(&ENDS)?;

    Runtime::builder().most_cores(1).build()?.block_on(async move || {
        let signals = Signals::new(&ENDS)?;
        let (lines, incoming) = bounded(1024);
        let network = UdpSocket::bind(address)?;
        eprintln!("listening on {}", network.local_addr()?);
        let sources = TaskTracker::new();
        if let Some(socket) = &socket {
            sources.spawn(from_here(UnixDatagram::bind(socket).await?, lines.clone()));
        }
        sources.spawn(from_network(network, lines));
        let writes = annulus::spawn(write(path, incoming));
        signals.recv().await?;
        // What has come to the sockets by now is read.
        let _late = timeout(LATE, sources.all_ended()).await;
        sources.abort_all();
        sources.all_ended().await;
        if let Some(socket) = socket {
            fs::remove_file(socket).await?;
        }
        writes.await?
    })??;
    Ok(())
}
