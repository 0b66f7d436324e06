//! Work for another core: sends a closure, and returns its output.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::Core;
use super::shared::CoreShared;
use crate::contained::{caught, contained, panic_text};
use crate::sync::oneshot::{self, oneshot};
use crate::task::spawn_at;
use crate::{Error, ErrorKind};

/// Why work that was sent to a core has no output.
#[non_exhaustive]
pub enum SubmitError {
    /// The runtime has no core of this index. Nothing ran.
    NoSuchCore {
        /// The index that was asked for.
        core: usize,
        /// How many cores there are.
        cores: usize,
    },
    /// The core had ended, or ended before it took the work. Nothing ran; the closure was dropped.
    Ended,
    /// The core ended while the work was running, and dropped it half-way.
    Aborted,
    /// The work panicked with this payload.
    Panicked(Box<dyn Any + Send>),
}

impl fmt::Debug for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCore { core, cores } => {
                f.debug_struct("NoSuchCore").field("core", core).field("cores", cores).finish()
            }
            Self::Ended => f.write_str("Ended"),
            Self::Aborted => f.write_str("Aborted"),
            Self::Panicked(payload) => f.debug_tuple("Panicked").field(&panic_text(payload)).finish(),
        }
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCore { core, cores } => {
                write!(f, "there is no core {core}: the runtime has {cores}, counted from 0")
            }
            Self::Ended => f.write_str("the core had ended, so the work was not begun"),
            Self::Aborted => f.write_str("the core ended while the work was under way"),
            Self::Panicked(payload) => write!(f, "the work panicked: {}", panic_text(payload)),
        }
    }
}

impl std::error::Error for SubmitError {}

impl From<SubmitError> for Error {
    fn from(e: SubmitError) -> Self {
        let kind = match e {
            SubmitError::NoSuchCore { .. } => ErrorKind::Input,
            SubmitError::Ended | SubmitError::Aborted => ErrorKind::Ended,
            SubmitError::Panicked(_) => ErrorKind::Panicked,
        };
        Error::new(kind, e.to_string())
    }
}

/// Runs an async closure on core `core` of this runtime and gives its output.
///
/// The closure is sent to another thread, so it is `Send`, and so is its output. Its future is made on that
/// core and stays there, so it need not be `Send`. There it is a task like any other. Sending to the current
/// core is allowed.
///
/// Each core has an inbox of 512 places, which lies on its node. This future waits while the inbox is full,
/// and a core with much to do takes fewer calls at a time: that is the backpressure. Answers need no place,
/// so cores that ask each other, over any number of steps, cannot block each other. Work that a core has
/// taken is not limited any more: a caller that wants a limit counts its own.
///
/// ```
/// # fn main() -> annulus::Result<()> {
/// # annulus::Runtime::builder().pool_bytes(1 << 20).build()?.run(|| async {
/// # if annulus::cores::index() > 0 {
/// #     annulus::cores::stopping().await;
/// #     return annulus::Ok(());
/// # }
/// let core = annulus::cores::count() - 1;
/// let name = String::from("here");
/// let answer = annulus::cores::submit_to(core, async move || {
///     let held = std::rc::Rc::new(annulus::cores::index());
///     annulus::yield_now().await;
///     format!("{name} and on core {held}")
/// });
/// assert_eq!(answer.await?, format!("here and on core {core}"));
/// # annulus::cores::handle().stop();
/// # annulus::Ok(())
/// # })
/// # }
/// ```
///
/// # Errors
/// [`SubmitError`]: there is no such core, it has ended (then the closure was dropped and did not run), it
/// ended half-way, or the closure panicked. `?` turns it into an [`Error`].
///
/// # Cancellation
/// Nothing is sent before the first poll. Dropped before the core took the work, it drops the closure, which
/// never runs. Dropped later, it aborts the task there: that future is dropped on its own core, which cancels
/// the operations inside. An output that nobody waits for any more is dropped there. An output that had
/// arrived is dropped here, with the future.
///
/// # Panics
/// On a thread that is no core's: see [`Handle::submit_to`](crate::Handle::submit_to).
#[track_caller]
pub fn submit_to<F, T>(core: usize, f: F) -> impl Future<Output = Result<T, SubmitError>> + use<F, T>
where
    F: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let at = Location::caller();
    let target = Core::with(|here| here.peers.get(core).cloned().ok_or(here.peers.len()));
    async move {
        match target {
            Ok(target) => send(target, f, at).await,
            Err(cores) => Err(SubmitError::NoSuchCore { core, cores }),
        }
    }
}

/// Sends `f` to `target`, from any thread.
pub(crate) async fn send<F, T>(
    target: Arc<CoreShared>,
    f: F,
    at: &'static Location<'static>,
) -> Result<T, SubmitError>
where
    F: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (answer, outcome) = oneshot();
    let envelope = CallEnvelope { content: Some((f, answer)), at };
    if Core::is_current(&target) {
        envelope.open();
    } else {
        Core::try_with(|here| here.peers.count_submit(&here.shared.counters, &target));
        target.send(Box::new(move || envelope.open())).await;
    }
    outcome.await.unwrap_or(Err(SubmitError::Aborted))
}

type Outcome<T> = Result<T, SubmitError>;

/// A closure on its way to a core, with the cell for its outcome. If it is dropped unopened, the outcome says
/// that nothing ran.
struct CallEnvelope<F, T> {
    content: Option<(F, oneshot::CellSender<Outcome<T>>)>,
    at: &'static Location<'static>,
}

impl<F, T> CallEnvelope<F, T>
where
    F: AsyncFnOnce() -> T + 'static,
    T: 'static,
{
    /// Begins the work, on the core that it was sent to.
    fn open(mut self) {
        if Core::with(|core| core.tasks.is_ending()) {
            return;
        }
        // A sender that has gone needs no answer: dropping the rest of the envelope is enough.
        if self.content.as_ref().is_some_and(|(_, answer)| !answer.is_canceled())
            && let Some((f, answer)) = self.content.take()
        {
            spawn_at(self.at, work(f, answer)).detach();
        }
    }
}

impl<F, T> Drop for CallEnvelope<F, T> {
    fn drop(&mut self) {
        let Some((f, answer)) = self.content.take() else { return };
        // The closure may be dropped in the middle of a core's tick, or of its end. A panic of its destructor
        // must stop neither.
        contained(format_args!("the destructor of a closure sent at {}", self.at), || drop(f));
        // Refused when nobody waits any more.
        drop(answer.send(Err(SubmitError::Ended)));
    }
}

/// The task on the other core. It ends early when nobody waits for the outcome any more.
async fn work<F, T>(f: F, mut answer: oneshot::CellSender<Outcome<T>>)
where
    F: AsyncFnOnce() -> T,
{
    let outcome = {
        let mut running = pin!(async move { f().await });
        poll_fn(|cx| {
            if answer.is_canceled() {
                return Poll::Ready(None);
            }
            match caught(|| running.as_mut().poll(cx)) {
                Ok(Poll::Ready(output)) => Poll::Ready(Some(Ok(output))),
                Ok(Poll::Pending) => answer.poll_canceled(cx).map(|()| None),
                // State that the future shares with others may be inconsistent, as with any task that panics.
                Err(payload) => Poll::Ready(Some(Err(SubmitError::Panicked(payload)))),
            }
        })
        .await
        // The future is dropped here, before anyone gets its outcome.
    };
    if let Some(outcome) = outcome {
        // The outcome comes back when nobody waits any more. It is then dropped here, on the core that made
        // it.
        drop(answer.send(outcome));
    }
}
