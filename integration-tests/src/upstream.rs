//! Servers that the proxy relays to: a thread that accepts, and one for each connection.

use crate::server::Server;
use crate::{net, watch};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A running upstream. Dropping it stops accepting; connections that are open end by themselves.
pub struct Upstream {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on a port of 127.0.0.1 and gives each connection to `handler`, on a thread of its own.
    ///
    /// What `handler` finds out it must send to the test itself (a channel): the test, and not this thread,
    /// decides.
    #[track_caller]
    pub fn start(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding a port of 127.0.0.1");
        Upstream::on(listener, handler)
    }

    /// As [`Upstream::start`], on a listener that is there already.
    #[track_caller]
    pub fn on(listener: TcpListener, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Upstream {
        let addr = listener.local_addr().expect("the address of a listening socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let handler = Arc::new(handler);
        let accepting = std::thread::Builder::new()
            .name("upstream".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::Acquire) {
                        return;
                    }
                    // A client that is gone before it was accepted is no matter of ours.
                    let Ok(stream) = stream else { continue };
                    let watched = stream
                        .set_read_timeout(Some(watch::LIMIT))
                        .and_then(|()| stream.set_write_timeout(Some(watch::LIMIT)))
                        .and_then(|()| stream.set_nodelay(true));
                    if watched.is_err() {
                        continue;
                    }
                    let handler = Arc::clone(&handler);
                    let name = "upstream-conn".to_owned();
                    let spawned = std::thread::Builder::new().name(name).stack_size(128 * 1024);
                    spawned.spawn(move || handler(stream)).expect("a thread for a connection");
                }
            })
            .expect("a thread that accepts");
        Upstream { addr, stop, accepting: Some(accepting) }
    }

    /// Sends back what comes, until the client ends its side.
    #[track_caller]
    pub fn echo() -> Upstream {
        Upstream::start(|stream| {
            // The test looks at the other end; here there is nothing to add to an error.
            let _ = echo(stream);
        })
    }

    /// Says its letter to each connection, and then sends back what comes.
    #[track_caller]
    pub fn lettered(letter: u8) -> Upstream {
        Upstream::start(move |stream| say(stream, letter))
    }

    /// As [`Upstream::lettered`], on a listener that is there already.
    #[track_caller]
    pub fn lettered_on(listener: TcpListener, letter: u8) -> Upstream {
        Upstream::on(listener, move |stream| say(stream, letter))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept. If it fails, the listener is gone and so is the thread.
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.accepting.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the thread that accepts for {} panicked", self.addr);
        }
    }
}

fn say(mut stream: TcpStream, letter: u8) {
    // The test looks at the other end; here there is nothing to add to an error.
    let _ = stream.write_all(&[letter]).and_then(|()| echo(stream));
}

/// A new connection by a relay, and the letter of the [upstream](Upstream::lettered) that it came to.
#[track_caller]
pub fn letter(relay: &Server) -> (TcpStream, u8) {
    let mut client = net::connect(relay.addr()).expect("connecting");
    let mut letter = [0];
    client.read_exact(&mut letter).expect("an upstream's letter");
    (client, letter[0])
}

/// Sends back what comes on `stream` until its end, then ends its own side.
///
/// # Errors
/// What the connection says.
pub fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut block)? {
            0 => return stream.shutdown(Shutdown::Write),
            n => stream.write_all(&block[..n])?,
        }
    }
}
