//! The connection to the service manager.
//!
//! Any thread, a core's too, puts its message into a queue, and a thread sends it. Without `NOTIFY_SOCKET` in
//! the environment nothing is sent and no thread is started.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::message::Message;
use crate::listen::address::unix_address;

/// The variable with the manager's address: a path, or an abstract name after an `@`.
const SOCKET: &str = "NOTIFY_SOCKET";
/// The other variables that a manager sets for its one process.
const OTHERS: [&str; 5] = ["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// How long the end of the program waits for a manager that does not receive.
const PATIENCE: Duration = Duration::from_millis(500);

static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();

/// It was told that the program is ready. Changed under the queue's lock.
static READY: AtomicBool = AtomicBool::new(false);

/// Messages to be sent.
struct Queue {
    messages: Mutex<Option<Sender<Message>>>,
    /// Closed when all messages have been sent.
    sent: Mutex<Receiver<()>>,
}

/// Begins, if there is a manager. Nothing is sent before `may_begin` returns, which may wait. The thread
/// inherits the CPUs of the caller, so this is not to be called on a core.
pub(crate) fn begin(may_begin: impl FnOnce() + Send + 'static) {
    QUEUE.get_or_init(|| start(may_begin));
}

/// Sends a message, if there is a manager. Does not wait.
pub(crate) fn tell(message: Message) {
    let Some(Some(queue)) = QUEUE.get() else { return };
    let messages = queue.messages.lock().unwrap_or_else(PoisonError::into_inner);
    match message {
        Message::Ready(_) => READY.store(true, Ordering::Relaxed),
        // The manager's watchdog waits from then on.
        Message::Alive if !READY.load(Ordering::Relaxed) => return,
        _ => {}
    }
    // The thread takes messages until the sender is dropped.
    let _ = messages.as_ref().map(|messages| messages.send(message));
}

/// Waits until the messages are sent, as long as the manager receives them. Nothing is sent afterwards.
pub(crate) fn end() {
    let Some(Some(queue)) = QUEUE.get() else { return };
    drop(queue.messages.lock().unwrap_or_else(PoisonError::into_inner).take());
    let sent = queue.sent.lock().unwrap_or_else(PoisonError::into_inner);
    // Nothing is ever sent on this channel: it ends when the sender is dropped.
    let _ = sent.recv_timeout(PATIENCE);
}

/// Says that process `pid` has taken the place of this one, which sends nothing afterwards.
pub(crate) fn hand_over(pid: u32) {
    tell(Message::MainProcess(pid));
    end();
}

/// Passes the manager's variables on to a program that is to take this one's place.
pub(crate) fn pass_on(command: &mut Command) {
    // The sockets are passed in another way, and the number is this process's.
    OTHERS.iter().filter(|name| **name != "WATCHDOG_USEC").for_each(|name| {
        command.env_remove(name);
    });
}

/// Removes the manager's variables from the environment of a program that this one starts.
pub(crate) fn keep_from(command: &mut Command) {
    std::iter::once(SOCKET).chain(OTHERS).for_each(|name| {
        command.env_remove(name);
    });
}

/// The thread that sends, if there is a manager.
fn start(may_begin: impl FnOnce() + Send + 'static) -> Option<Queue> {
    let address = std::env::var(SOCKET).ok().filter(|address| !address.is_empty())?;
    let socket = match connect(&address) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, address, "the service manager cannot be told anything");
            return None;
        }
    };
    let (messages, queued) = channel::<Message>();
    let (open, sent) = channel::<()>();
    let send = move || {
        let _open = open;
        may_begin();
        for message in queued {
            let text = message.text(monotonic());
            if let Err(error) = socket.send(text.as_bytes()) {
                tracing::warn!(%error, ?message, "the service manager was not told something");
            }
        }
    };
    match std::thread::Builder::new().name("notify".to_owned()).spawn(send) {
        Ok(_) => Some(Queue { messages: Mutex::new(Some(messages)), sent: Mutex::new(sent) }),
        Err(error) => {
            tracing::warn!(%error, "the service manager cannot be told anything: no thread can be started");
            None
        }
    }
}

fn connect(address: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&unix_address(address)?)?;
    Ok(socket)
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
