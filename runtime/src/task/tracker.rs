//! All tasks of a kind, to be awaited or aborted together.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use slab::Slab;

use super::{JoinHandle, spawn_at};
use crate::sync::waiters::Waiters;

/// Tasks that run by themselves and can be awaited together, such as the connections of a listener before the
/// end.
///
/// It belongs to one core, as its tasks do; a [`Sharded`](crate::cores::Sharded) has one on each core. Clones
/// are handles on the same tasks. A tracked task has an entry in a list, which is removed when its future has
/// been dropped. Outputs are dropped; a task whose output is wanted has a [`JoinHandle`] instead.
///
/// ```
/// # use std::time::Duration;
/// # use annulus::{Runtime, TaskTracker, net::{TcpListener, TcpStream}};
/// # Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let address = listener.local_addr();
/// # let client = TcpStream::connect(address).await?;
/// let connections = TaskTracker::new();
/// let stream = listener.accept().await?;
/// connections.spawn(async move {
///     while let Some(chunk) = stream.recv().await? {
///         stream.send_all(chunk).await?;
///     }
///     annulus::Ok(())
/// });
/// // At the end: no more clients, and those that are there may finish.
/// drop(listener);
/// # client.send_all("ping").await?;
/// # assert_eq!(&*client.recv().await?.unwrap(), b"ping");
/// # drop(client);
/// if annulus::time::timeout(Duration::from_secs(30), connections.all_ended()).await.is_err() {
///     connections.abort_all();
/// }
/// # assert!(connections.is_empty());
/// # Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Cancellation
/// Dropping the last handle ends nothing: its tasks run on.
#[derive(Clone, Default)]
pub struct TaskTracker {
    tracked: Rc<Tracked>,
}

#[derive(Default)]
struct Tracked {
    /// `None` after the task was aborted. The entry stays until its future has been dropped.
    tasks: RefCell<Slab<Option<JoinHandle<()>>>>,
    /// Tasks that wait until none is left.
    waiters: Waiters,
}

impl TaskTracker {
    /// A tracker of no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that is tracked, as [`spawn`](crate::spawn) does.
    ///
    /// # Panics
    /// On a thread that is no core's.
    #[track_caller]
    pub fn spawn<F>(&self, future: F)
    where
        F: Future + 'static,
    {
        let key = self.tracked.tasks.borrow_mut().insert(None);
        let place = Place { tracked: Rc::clone(&self.tracked), key };
        // Nothing is borrowed meanwhile, because an ending core drops the future at once.
        let handle = spawn_at(Location::caller(), in_place(future, place));
        let mut tasks = self.tracked.tasks.borrow_mut();
        let late = match tasks.get_mut(key) {
            Some(empty @ None) => empty.replace(handle),
            _ => Some(handle),
        };
        drop(tasks);
        drop(late);
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.tracked.tasks.borrow().len()
    }

    /// Whether all have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes when no tracked task is left: all have ended, or were aborted and their futures dropped. It
    /// also waits for tasks that are spawned meanwhile.
    ///
    /// # Cancellation
    /// Safe: dropping the future forgets the wait.
    pub fn all_ended(&self) -> AllEnded {
        AllEnded { tracked: Rc::clone(&self.tracked), ticket: None }
    }

    /// Aborts every tracked task. Their futures are dropped in a later tick: [`all_ended`](Self::all_ended)
    /// waits for it.
    pub fn abort_all(&self) {
        let handles: Vec<_> =
            self.tracked.tasks.borrow_mut().iter_mut().filter_map(|(_, handle)| handle.take()).collect();
        drop(handles);
    }
}

impl fmt::Debug for TaskTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskTracker").field("tasks", &self.len()).finish()
    }
}

/// The future is dropped before its place, in every case: the parameters of a future that was never polled
/// are dropped in their order.
async fn in_place<F: Future>(future: F, place: Place) {
    future.await;
    drop(place);
}

/// A task's entry in the list. It exists as long as the task's future.
struct Place {
    tracked: Rc<Tracked>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tasks = self.tracked.tasks.borrow_mut();
        let handle = tasks.try_remove(self.key).flatten();
        let last = tasks.is_empty();
        drop(tasks);
        // The task ends by itself, so there is nothing to abort.
        if let Some(handle) = handle {
            handle.detach();
        }
        if last {
            self.tracked.waiters.wake_all();
        }
    }
}

/// The future of [`TaskTracker::all_ended`].
#[must_use = "futures do nothing unless awaited"]
pub struct AllEnded {
    tracked: Rc<Tracked>,
    ticket: Option<u64>,
}

impl Future for AllEnded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ticket = self.ticket;
        if self.tracked.tasks.borrow().is_empty() {
            return Poll::Ready(());
        }
        let all_ended = |_| self.tracked.tasks.borrow().is_empty();
        self.ticket = Some(self.tracked.waiters.wait(ticket, cx.waker(), all_ended));
        Poll::Pending
    }
}

impl Drop for AllEnded {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.tracked.waiters.leave(ticket);
        }
    }
}

impl fmt::Debug for AllEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllEnded").field("left", &self.tracked.tasks.borrow().len()).finish()
    }
}
