//! The thread that answers operators: one request a connection, nothing that waits, small limits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::asking::{Asking, Id, wake};
use super::request::{Parsed, Request, parse};
use super::routes::{Response, at_once};
use super::socket::{Listener, Stream};
use super::source::Source;

/// Connections at a time. The oldest goes when another comes.
const MAX_CONNECTIONS: usize = 32;
/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long it may take to ask others for an answer.
const ASKING_TIME: Duration = Duration::from_secs(30);
/// How long an answer may take to be read.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long the peer may take to notice the end.
const LAST_TIME: Duration = Duration::from_secs(1);

/// Ends the thread when dropped.
pub(super) struct Stop {
    is_set: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

/// What the thread has.
pub(super) struct Server {
    listener: Listener,
    asking: Asking,
    connections: Vec<Exchange>,
    /// The number of the next connection.
    next: Id,
    is_stopped: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    /// No descriptor was left for a connection: the next accept is not before this time.
    rest_until: Option<Instant>,
}

/// A connection, and how far it has come.
struct Exchange {
    id: Id,
    stream: Stream,
    state: State,
    deadline: Instant,
}

enum State {
    Reading(Vec<u8>),
    /// Others are asked; whether the answer goes with its body.
    Asking(bool),
    /// What is to be sent, and how much of it has been.
    Writing(Vec<u8>, usize),
    /// All was sent. Bytes that still come are discarded, so that no reset destroys the answer.
    Lingering,
    Over,
}

impl Server {
    pub(super) fn new(listener: Listener, source: Box<dyn Source>) -> io::Result<(Self, Stop)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let is_set = Arc::new(AtomicBool::new(false));
        let asking = Asking::begin(source, Arc::clone(&wake))?;
        let server = Server {
            listener,
            asking,
            connections: Vec::new(),
            next: 0,
            is_stopped: Arc::clone(&is_set),
            wake: Arc::clone(&wake),
            rest_until: None,
        };
        Ok((server, Stop { is_set, wake }))
    }

    /// Answers until it is stopped.
    pub(super) fn run(mut self) {
        while !self.is_stopped.load(Ordering::Acquire) {
            let ready = match self.wait_and_take_answers() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the admin server cannot wait for requests and ends");
                    return;
                }
            };
            let now = Instant::now();
            for (exchange, ready) in self.connections.iter_mut().zip(&ready[1..]) {
                if exchange.deadline <= now {
                    exchange.state = State::Over;
                } else if *ready {
                    exchange.go_on(&self.asking);
                }
            }
            self.connections.retain(|exchange| !matches!(exchange.state, State::Over));
            if ready[0] && !self.listener.is_given().load(Ordering::Acquire) {
                self.accept();
            }
        }
    }

    /// As [`wait`](Self::wait). Answers for which others were asked are on their way afterwards.
    fn wait_and_take_answers(&mut self) -> io::Result<Vec<bool>> {
        let ready = self.wait()?;
        // Before the answers are taken, so that one that comes later is signalled anew. Nothing there is
        // no error.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Some((id, response)) = self.asking.answer() {
            // Its connection may have gone.
            if let Some(exchange) = self.connections.iter_mut().find(|exchange| exchange.id == id) {
                exchange.answered(&response);
            }
        }
        Ok(ready)
    }

    /// Waits for something to do. Says whether somebody connects, and which connections can go on.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let listener = self.listener.as_fd();
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let now = Instant::now();
        let is_given = self.listener.is_given().load(Ordering::Acquire);
        let rests = is_given || self.rest_until.is_some_and(|until| until > now);
        fds.push(PollFd::from_borrowed_fd(listener, if rests { PollFlags::empty() } else { PollFlags::IN }));
        for exchange in &self.connections {
            let wanted = match exchange.state {
                State::Writing(..) => PollFlags::OUT,
                // Its end is reported all the same.
                State::Asking(_) => PollFlags::empty(),
                State::Reading(_) | State::Lingering | State::Over => PollFlags::IN,
            };
            fds.push(PollFd::from_borrowed_fd(exchange.stream.as_fd(), wanted));
        }
        let deadlines = self.connections.iter().map(|exchange| exchange.deadline);
        let next = deadlines.chain(self.rest_until.filter(|until| *until > now)).min();
        let left = next.map(|next| next.saturating_duration_since(now));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(stream) => {
                if self.connections.len() >= MAX_CONNECTIONS {
                    self.connections.remove(0);
                }
                let (id, deadline) = (self.next, Instant::now() + REQUEST_TIME);
                self.next += 1;
                self.connections.push(Exchange { id, stream, state: State::Reading(Vec::new()), deadline });
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept a connection; it tries again in a second");
                self.rest_until = Some(Instant::now() + LAST_TIME);
            }
        }
    }
}

impl Exchange {
    /// Goes on as far as no call waits.
    fn go_on(&mut self, asking: &Asking) {
        loop {
            let done = match &mut self.state {
                State::Reading(bytes) => match receive(&mut self.stream, bytes) {
                    Ok(Some(())) => match parse(bytes) {
                        Parsed::Partial => continue,
                        Parsed::Complete(request) => {
                            let with_body = request.method != "HEAD";
                            match at_once(&request, self.stream.is_unix()) {
                                Some(response) => self.begin_answer(response.bytes(with_body)),
                                None => return self.ask(asking, request, with_body),
                            }
                        }
                        Parsed::Refused(status, why) => {
                            self.begin_answer(Response::text(status, why).bytes(true))
                        }
                    },
                    Ok(None) => Ok(true),
                    Err(error) => Err(error),
                },
                State::Writing(bytes, at) => match self.stream.write(&bytes[*at..]) {
                    Ok(0) => Ok(true),
                    Ok(written) => {
                        *at += written;
                        if *at == bytes.len() { self.begin_end() } else { Ok(false) }
                    }
                    Err(error) => Err(error),
                },
                // Its peer has gone.
                State::Asking(_) => Ok(true),
                State::Lingering => receive(&mut self.stream, &mut Vec::new()).map(|came| came.is_none()),
                State::Over => return,
            };
            match done {
                Ok(false) => {}
                Ok(true) => self.state = State::Over,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.state = State::Over,
            }
        }
    }

    fn ask(&mut self, asking: &Asking, request: Request, with_body: bool) {
        self.state = State::Asking(with_body);
        self.deadline = Instant::now() + ASKING_TIME;
        asking.ask(self.id, request);
    }

    /// Those who were asked have answered.
    fn answered(&mut self, response: &Response) {
        if let State::Asking(with_body) = self.state {
            self.state = State::Writing(response.bytes(with_body), 0);
            self.deadline = Instant::now() + ANSWER_TIME;
        }
    }

    fn begin_answer(&mut self, bytes: Vec<u8>) -> io::Result<bool> {
        self.state = State::Writing(bytes, 0);
        self.deadline = Instant::now() + ANSWER_TIME;
        Ok(false)
    }

    fn begin_end(&mut self) -> io::Result<bool> {
        self.state = State::Lingering;
        self.deadline = Instant::now() + LAST_TIME;
        self.stream.finish().map(|()| false)
    }
}

/// Takes what has come; `None` at the end.
fn receive(stream: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<Option<()>> {
    let mut chunk = [0; 4096];
    let len = stream.read(&mut chunk)?;
    bytes.extend_from_slice(&chunk[..len]);
    Ok((len > 0).then_some(()))
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.is_set.store(true, Ordering::Release);
        wake(&self.wake);
    }
}
