//! A server for Redis clients: `redis [ADDR] [CPULIST]`, `127.0.0.1:6379` on all CPUs by default.
//!
//! Keys are split over the cores by their hash, each core's in a map of its own that nobody locks
//! ([`Sharded`]); a command goes to the core of its key. What stands in one chunk is answered by one send, so
//! pipelining pays. It knows PING, ECHO, SET, GET, DEL, EXISTS, INCR, MSET, DBSIZE, FLUSHALL, COMMAND, CONFIG
//! GET and QUIT of RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>); nothing expires,
//! nothing goes to a disk, and a value has 512 KiB at most. SIGTERM or Ctrl-C ends it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use annulus::cores::{self, Sharded};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::time::timeout;
use annulus::{Runtime, TaskTracker};
use futures_util::future::{Either, select};

const ENDS: [Signal; 2] = [Signal::INTERRUPT, Signal::TERMINATE];
/// How long clients may go on when the end is asked for.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of an argument, and arguments of a command, at most.
const LONGEST: usize = 512 << 10;
const MOST: usize = 1 << 20;

type Bytes = Rc<[u8]>;
type Store = RefCell<HashMap<Vec<u8>, Bytes>>;

/// The arguments of a command, and how many bytes it had.
type Command<'a> = (Vec<&'a [u8]>, usize);

/// The first command in `buf`; `None` where more must come.
fn parse(buf: &[u8]) -> Result<Option<Command<'_>>, &'static str> {
    let mut at = 0;
    let Some(line) = line(buf, &mut at)? else { return Ok(None) };
    // What a person types into telnet.
    let Some(count) = line.strip_prefix(b"*") else {
        return Ok(Some((line.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect(), at)));
    };
    let count = number(count, MOST).ok_or("invalid multibulk length")?;
    let mut arguments = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let Some(head) = self::line(buf, &mut at)? else { return Ok(None) };
        let length = head.strip_prefix(b"$").ok_or("expected '$'")?;
        let length = number(length, LONGEST).ok_or("invalid bulk length")?;
        let Some(bulk) = buf.get(at..at + length + 2) else { return Ok(None) };
        if !bulk.ends_with(b"\r\n") {
            return Err("a bulk without its end");
        }
        arguments.push(&bulk[..length]);
        at += length + 2;
    }
    Ok(Some((arguments, at)))
}

/// A line without its end, behind which `at` is then.
fn line<'a>(buf: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, &'static str> {
    let rest = &buf[*at..];
    match rest.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) if end <= LONGEST => {
            *at += end + 2;
            Ok(Some(&rest[..end]))
        }
        None if rest.len() <= LONGEST => Ok(None),
        _ => Err("too big inline request"),
    }
}

fn number(digits: &[u8], most: usize) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number <= most)
}

fn bulk(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        None => out.extend_from_slice(b"$-1\r\n"),
    }
}

/// What is done with one key, on its core.
enum OfKey {
    Set(Vec<u8>),
    Get,
    Remove,
    Has,
    Increment,
}

fn done(store: &Store, key: Vec<u8>, what: OfKey, out: &mut Vec<u8>) -> i64 {
    let mut store = store.borrow_mut();
    match what {
        OfKey::Set(value) => drop(store.insert(key, value.into())),
        OfKey::Get => bulk(out, store.get(&key).map(|value| &**value)),
        OfKey::Remove => return i64::from(store.remove(&key).is_some()),
        OfKey::Has => return i64::from(store.contains_key(&key)),
        OfKey::Increment => {
            let old = store.get(&key).map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse().ok());
            match old.and_then(|old: i64| old.checked_add(1)) {
                Some(new) => {
                    store.insert(key, new.to_string().into_bytes().into());
                    out.extend_from_slice(format!(":{new}\r\n").as_bytes());
                }
                None => out.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
            }
        }
    }
    0
}

#[derive(Clone)]
struct Server {
    stores: Sharded<Store>,
}

impl Server {
    /// The core of a key.
    fn core_of(key: &[u8]) -> usize {
        (BuildHasherDefault::<DefaultHasher>::default().hash_one(key) % cores::count() as u64) as usize
    }

    /// Does it here, or on the core of the key. Gives a count, and writes what else there is to say.
    async fn of_key(&self, key: &[u8], what: OfKey, out: &mut Vec<u8>) -> annulus::Result<i64> {
        let (core, key) = (Self::core_of(key), key.to_vec());
        if core == cores::index() {
            return annulus::Ok(done(&*self.stores.local()?, key, what, out));
        }
        let work = async move |store: &Store| {
            let mut said = Vec::new();
            (done(store, key, what, &mut said), said)
        };
        let (count, said) = self.stores.invoke_on(core, work).await?;
        out.extend_from_slice(&said);
        annulus::Ok(count)
    }

    async fn answer(&self, command: &[&[u8]], out: &mut Vec<u8>) -> annulus::Result<()> {
        let Some((name, arguments)) = command.split_first() else { return annulus::Ok(()) };
        match (name.to_ascii_uppercase().as_slice(), arguments) {
            (b"PING", []) => out.extend_from_slice(b"+PONG\r\n"),
            (b"PING" | b"ECHO", [text]) => bulk(out, Some(text)),
            (b"SET", [key, value]) => {
                self.of_key(key, OfKey::Set(value.to_vec()), out).await?;
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"GET", [key]) => drop(self.of_key(key, OfKey::Get, out).await?),
            (b"INCR", [key]) => drop(self.of_key(key, OfKey::Increment, out).await?),
            (b"DEL" | b"EXISTS", keys @ [_, ..]) => {
                let mut count = 0;
                for key in keys {
                    let what = if name.eq_ignore_ascii_case(b"DEL") { OfKey::Remove } else { OfKey::Has };
                    count += self.of_key(key, what, out).await?;
                }
                out.extend_from_slice(format!(":{count}\r\n").as_bytes());
            }
            (b"MSET", pairs @ [_, ..]) if pairs.len() % 2 == 0 => {
                for pair in pairs.chunks_exact(2) {
                    self.of_key(pair[0], OfKey::Set(pair[1].to_vec()), out).await?;
                }
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"DBSIZE", []) => {
                let count = self.stores.map_reduce(async |store| store.borrow().len(), 0, |a, b| a + b);
                out.extend_from_slice(format!(":{}\r\n", count.await?).as_bytes());
            }
            (b"FLUSHALL", _) => {
                self.stores.invoke_on_all(async |store| store.borrow_mut().clear()).await?;
                out.extend_from_slice(b"+OK\r\n");
            }
            // What clients ask before they begin.
            (b"COMMAND" | b"CONFIG", _) => out.extend_from_slice(b"*0\r\n"),
            (b"QUIT", []) => out.extend_from_slice(b"+OK\r\n"),
            (name, _) => {
                let name = name.escape_ascii();
                let what = format!("-ERR unknown command '{name}', or a wrong number of arguments\r\n");
                out.extend_from_slice(what.as_bytes());
            }
        }
        annulus::Ok(())
    }

    async fn serve(self, stream: TcpStream) -> annulus::Result<()> {
        let (mut pending, mut out) = (Vec::new(), Vec::new());
        while let Some(chunk) = stream.recv().await? {
            pending.extend_from_slice(&chunk);
            // Its buffer goes back before anything waits.
            drop(chunk);
            let (mut at, mut quits) = (0, false);
            while !quits {
                match parse(&pending[at..]) {
                    Ok(None) => break,
                    Ok(Some((command, len))) => {
                        quits = command.first().is_some_and(|name| name.eq_ignore_ascii_case(b"QUIT"));
                        self.answer(&command, &mut out).await?;
                        at += len;
                    }
                    Err(why) => {
                        out.extend_from_slice(format!("-ERR Protocol error: {why}\r\n").as_bytes());
                        quits = true;
                    }
                }
            }
            pending.drain(..at);
            if !out.is_empty() {
                out = stream.send_all(std::mem::take(&mut out)).await?;
                out.clear();
            }
            if quits {
                break;
            }
        }
        annulus::Ok(())
    }
}

/// Asks all cores to stop when a signal comes.
async fn stop_on_signal() -> annulus::Result<()> {
    Signals::new(&ENDS)?.recv().await?;
    cores::handle().stop();
    annulus::Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:6379".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;
    block_before_threads(&ENDS)?;

    let mut runtime = Runtime::builder().cores(cores).build()?;
    let server = Server { stores: runtime.sharded(|| annulus::Ok(Store::default())) };
    runtime.run(move || {
        let server = server.clone();
        async move {
            let listener = TcpListener::bind(address)?;
            let mut signal = None;
            if cores::index() == 0 {
                signal = Some(annulus::spawn(stop_on_signal()));
                eprintln!("listening on {}", listener.local_addr());
            }
            let clients = TaskTracker::new();
            while let Either::Left((stream, _)) =
                select(pin!(listener.accept()), pin!(cores::stopping())).await
            {
                let (stream, server) = (stream?, server.clone());
                clients.spawn(async move {
                    if let Err(e) = server.serve(stream).await {
                        eprintln!("a client has gone: {e}");
                    }
                });
            }
            drop((listener, signal));
            if timeout(GRACE, clients.all_ended()).await.is_err() {
                clients.abort_all();
            }
            annulus::Ok(())
        }
    })?;
    Ok(())
}
