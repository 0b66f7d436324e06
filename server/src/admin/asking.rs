//! A thread of its own for requests whose answer may take a while, because others have to be asked: the
//! figures of the processes, and orders to them. So a process that does not answer holds up nobody who asks
//! for anything else, a probe for one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::request::Request;
use super::routes::{Response, after_asking};
use super::source::Source;
use crate::metrics::status::Status;

/// Names a connection.
pub(super) type Id = u64;

/// What the server has of it. The thread ends when this is dropped.
pub(super) struct Asking {
    questions: Option<Sender<(Id, Request)>>,
    answers: Receiver<(Id, Response)>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    /// Starts the thread. `signal` is written to after each answer.
    ///
    /// # Errors
    /// That of the thread's start.
    pub(super) fn begin(source: Box<dyn Source>, signal: Arc<OwnedFd>) -> io::Result<Self> {
        let (questions, asked) = channel();
        let (tell, answers) = channel();
        let run = move || {
            answer_all(&asked, source, |answer| {
                let is_taken = tell.send(answer).is_ok();
                wake(&signal);
                is_taken
            })
        };
        let thread = std::thread::Builder::new().name("admin-asks".to_owned()).spawn(run)?;
        Ok(Asking { questions: Some(questions), answers, thread: Some(thread) })
    }

    /// Has a request answered. Nothing comes of it where the thread has panicked: then the connection ends
    /// by its deadline.
    pub(super) fn ask(&self, id: Id, request: Request) {
        if let Some(questions) = &self.questions {
            drop(questions.send((id, request)));
        }
    }

    /// The next answer that is there.
    pub(super) fn answer(&self) -> Option<(Id, Response)> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.questions.take());
        // It waits for those whom it asks, and they answer or end. Its panic has been logged.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Wakes who polls the eventfd `signal`.
pub(super) fn wake(signal: &OwnedFd) {
    // It fails only when its count is at its limit, and then it can be read as well.
    let _ = rustix::io::write(signal, &1u64.to_ne_bytes());
}

/// Answers until nobody asks any more. Those who ask while one is being answered share the next status.
fn answer_all(
    asked: &Receiver<(Id, Request)>,
    mut source: Box<dyn Source>,
    tell: impl Fn((Id, Response)) -> bool,
) {
    while let Ok(first) = asked.recv() {
        let mut shared: Option<Status> = None;
        for (id, request) in std::iter::once(first).chain(asked.try_iter()).collect::<Vec<_>>() {
            let response = after_asking(&request, || &*shared.get_or_insert_with(|| source.status()));
            if !tell((id, response)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::tests::sample;

    /// Counts how often it is asked, and has somebody ask meanwhile.
    struct Counted(Sender<(Id, Request)>, Arc<std::sync::atomic::AtomicUsize>);

    impl Source for Counted {
        fn status(&mut self) -> Status {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                (2..5).for_each(|id| self.0.send((id, request("/status"))).unwrap());
            }
            sample()
        }
    }

    fn request(path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: String::new(),
            accept: String::new(),
            origin: None,
        }
    }

    /// Seen to fail: with a status for each request.
    #[test]
    fn those_who_ask_meanwhile_share_the_next_status() {
        let (ask, asked) = channel();
        let count = Arc::default();
        ask.send((1, request("/metrics"))).unwrap();
        let source = Box::new(Counted(ask, Arc::clone(&count)));
        let told = std::cell::RefCell::new(Vec::new());
        answer_all(&asked, source, |(id, _)| {
            told.borrow_mut().push(id);
            id < 4
        });
        assert_eq!(told.into_inner(), [1, 2, 3, 4]);
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
