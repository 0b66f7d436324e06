//! A chat room by WebSocket (RFC 6455), by tungstenite: `websocket [ADDR] [CPULIST]`, `127.0.0.1:7000` on all
//! CPUs by default. What one client says all hear, whichever core they are on: each core has a room of its
//! own ([`Sharded`]), and a word goes to every core once.
//!
//! A client that does not read what the others say loses words, and holds up nobody.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use annulus::Runtime;
use annulus::channel::{Receiver, Sender, bounded};
use annulus::compat::Io;
use annulus::cores::{Local, Sharded};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use annulus::time::timeout;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// How long a client may take to say that it wants a WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many words may wait for a client.
const WAITING: usize = 64;

/// The clients of a core.
#[derive(Default)]
struct Room {
    next: Cell<u64>,
    clients: RefCell<HashMap<u64, Sender<Utf8Bytes>>>,
}

impl Room {
    fn say(&self, word: &Utf8Bytes) {
        for client in self.clients.borrow().values() {
            // Where its queue is full, it does not read.
            drop(client.try_send(word.clone()));
        }
    }
}

/// A client's place in the room of its core, until it is dropped.
struct Seat {
    room: Local<Room>,
    number: u64,
}

impl Seat {
    fn take(room: Local<Room>) -> (Self, Receiver<Utf8Bytes>) {
        let (hears, heard) = bounded(WAITING);
        let number = room.next.replace(room.next.get() + 1);
        room.clients.borrow_mut().insert(number, hears);
        (Self { room, number }, heard)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.clients.borrow_mut().remove(&self.number);
    }
}

async fn serve(stream: TcpStream, rooms: Sharded<Room>) -> Result<(), Box<dyn Error>> {
    let mut socket = timeout(HANDSHAKE, accept_async(Io::new(stream))).await??;
    let (_seat, mut heard) = Seat::take(rooms.local()?);
    loop {
        tokio::select! {
            came = socket.next() => match came.transpose()? {
                Some(Message::Text(word)) => {
                    rooms.invoke_on_all(async move |room: &Room| room.say(&word)).await?;
                }
                // tungstenite answers pings, and the end, while it is asked for what comes next.
                Some(_) => {}
                None => return Ok(()),
            },
            Some(word) = heard.recv() => socket.send(Message::Text(word)).await?,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;

    let mut runtime = Runtime::builder().cores(cores).build()?;
    let rooms = runtime.sharded(|| annulus::Ok(Room::default()));
    runtime.run(move || {
        let rooms = rooms.clone();
        async move {
            let listener = TcpListener::bind(address)?;
            if annulus::cores::index() == 0 {
                eprintln!("listening on {}", listener.local_addr());
            }
            loop {
                let (stream, rooms) = (listener.accept().await?, rooms.clone());
                annulus::spawn(async move {
                    if let Err(e) = serve(stream, rooms).await {
                        eprintln!("a client has gone: {e}");
                    }
                })
                .detach();
            }
        }
    })?;
    Ok(())
}
